"""What devices download."""

from django.urls import path

from assets import views
from iotsupport import converters  # noqa: F401 - registers <anything:…>

urlpatterns = [path("assets/<anything:filename>", views.download_asset, name="asset-download")]
