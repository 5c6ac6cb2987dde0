from django.apps import AppConfig


class AssetsConfig(AppConfig):
    name = "assets"
    verbose_name = "Assets"

    def ready(self) -> None:
        from assets import receivers  # noqa: F401
        from assets.views import FAST_DOWNLOADS
        from iotsupport import fast_downloads

        fast_downloads.register(FAST_DOWNLOADS)
