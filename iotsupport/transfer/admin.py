"""Exporting from a list of the admin: what is selected, or all that its search and filters find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect, QueryDict
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path
from django.views.decorators.http import require_safe

from iotsupport.admin import MirroredAdmin
from iotsupport.mirror.files import MirrorError


class ExportingAdmin(MirroredAdmin):
    """Sends rows as a zip of their files to whoever may view them."""

    # Given the rows, the answer that has their files.
    answer_export: Callable[[QuerySet[Any]], HttpResponseBase]
    actions: ClassVar[list[Any]] = ["export_selected"]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_safe(self.export_view))
        return [path("export/", view, name=f"{self.opts.app_label}_{self.opts.model_name}_export"), *super().get_urls()]

    @admin.action(description="Export as a zip", permissions=["view"])
    def export_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponseBase:
        return self._export(request, queryset)

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """All that the list finds with the same query, on all its pages."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            return self._export(request, self.get_changelist_instance(request).get_queryset(request))
        except IncorrectLookupParameters:
            return HttpResponseRedirect(f"{self._url('changelist')}?e=1")

    def _export(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponseBase:
        try:
            return type(self).answer_export(queryset)
        except MirrorError as error:
            self.message_user(request, f"Nothing was exported. {error}", messages.ERROR)
            return HttpResponseRedirect(self._url("changelist"))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        query = QueryDict(request.META.get("QUERY_STRING", ""), mutable=True)
        query.pop(PAGE_VAR, None)
        context = {"export_url": f"export/?{query.urlencode()}" if query else "export/"}
        return super().changelist_view(request, {**context, **(extra_context or {})})
