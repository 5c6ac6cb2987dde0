"""Where devices download configurations."""

from devices.views import DOWNLOADS, download_config

urlpatterns = DOWNLOADS.urls(download_config, "config-download")
