"""What devices download."""

from django.urls import path

from devices import views
from iotsupport import converters  # noqa: F401 - registers <anything:…>

urlpatterns = [
    path("configs/<anything:mac_address>.json", views.download_config, name="config-download"),
    path("esp32/config/<anything:mac_address>.json", views.download_config),
]
