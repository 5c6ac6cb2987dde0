"""All addresses. GET and HEAD of the open ones are taken by ``iotsupport.public_urls`` before."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from iotsupport.api import api

api.add_router("", "devices.api.router")
api.add_router("", "assets.api.router")

_api_patterns, _app_name, _namespace = api.urls

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("", include((_api_patterns, _app_name), namespace=_namespace)),
    # Existing scripts and firmware call everything under /api.
    path("api/", include((_api_patterns, _app_name), namespace=f"{_namespace}-prefixed")),
    # Their other methods are refused in the right words.
    path("", include("iotsupport.public_urls")),
]

handler403 = "iotsupport.editing.unsaved.permission_denied"
handler500 = "iotsupport.editing.unsaved.server_error"
