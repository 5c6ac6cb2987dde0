"""All addresses. For GET and HEAD, ``iotsupport.public_urls`` is asked first: it has what is open to everybody."""

from functools import partial

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from iotsupport.api import api

api.add_router("", "devices.api.router")
api.add_router("", "devices.versions_api.router")
api.add_router("", "devices.transfer.api.router")
api.add_router("", "devices.boards_api.router")
api.add_router("", "devices.changes.api.router")
api.add_router("", "devices.types.api.router")
api.add_router("", "assets.api.router")

# What the apps register is there before its addresses are made.
admin.autodiscover()

_api_patterns, _app_name, _namespace = api.urls

_moved = partial(RedirectView.as_view, query_string=True)

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    # Where earlier versions had the announcements: people keep addresses of pages.
    path("admin/notifications/debt/", _moved(pattern_name="admin:notifications_announcement_changelist")),
    path(
        "admin/notifications/debt/<path:object_id>/change/",
        _moved(pattern_name="admin:notifications_announcement_change"),
    ),
    path("admin/", admin.site.urls),
    path("", include((_api_patterns, _app_name), namespace=_namespace)),
    # Existing scripts and firmware call everything under /api.
    path("api/", include((_api_patterns, _app_name), namespace=f"{_namespace}-prefixed")),
    # Their other methods are refused in the right words.
    path("", include("iotsupport.public_urls")),
]

handler403 = "iotsupport.editing.unsaved.permission_denied"
handler500 = "iotsupport.editing.unsaved.server_error"
