"""What parts of an address URL patterns take: ``<anything:…>``."""

from django.urls import register_converter


class AnythingConverter:
    """Whatever stands there, so that the view can say what is wrong with it; line feeds and slashes too."""

    regex = "(?s:.+)"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(AnythingConverter, "anything")
