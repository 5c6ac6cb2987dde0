"""Where devices download assets."""

from assets.views import DOWNLOADS, download_asset

urlpatterns = DOWNLOADS.urls(download_asset, "asset-download")
