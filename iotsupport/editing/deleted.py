"""The list of what was deleted and does not exist since: to be looked at, and brought back."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from iotsupport.editing.undo import MOST_ROWS
from iotsupport.times import told

DONE = "Brought back."


class DeletedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Whoever may view what exists sees what was deleted; whoever may add it brings it back."""

    list_display = ["name", "deleted_at", "deleted_by", "reason"]
    list_display_links = None
    list_select_related = ["history_user"]
    actions = ["bring_back"]
    show_full_result_count = False

    @property
    def rows(self) -> Any:
        """The admin of what exists."""
        return self.admin_site.get_model_admin(self.model.instance_type)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        found: QuerySet[Any] = self.model.objects.deleted().defer(*self.rows.large_fields)
        return found

    def get_ordering(self, request: HttpRequest) -> Any:
        return ["-history_id"]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.bring_back_view))
        name = f"{self.opts.app_label}_{self.opts.model_name}_bring_back"
        return [path("bring-back/", view, name=name), *super().get_urls()]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return False  # the list of what exists leads here

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self.rows.has_view_or_change_permission(request, obj and obj.instance))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_bring_back_permission(self, request: HttpRequest) -> bool:
        return bool(self.rows.has_add_permission(request))

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        version = self.get_object(request, object_id)
        if not self.has_view_permission(request, version):
            raise PermissionDenied
        if version is None:
            raise Http404
        return HttpResponseRedirect(self.rows.versions_url(version))

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        columns: list[Any] = list(super().get_list_display(request))
        if not self.has_bring_back_permission(request):
            return columns

        @admin.display(description="what to do")
        def choices(version: Any) -> SafeString:
            return format_html(
                '<button type="submit" formaction="{}" name="version" value="{}">Bring back</button>',
                reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_bring_back"),
                version.pk,
            )

        return [*columns, choices]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = f"Deleted {self.model.instance_type._meta.verbose_name_plural}"
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def bring_back_view(self, request: HttpRequest) -> HttpResponse:
        """Bring back one of the list."""
        if not self.has_bring_back_permission(request):
            raise PermissionDenied
        version = self.get_object(request, request.POST.get("version", ""))
        if version is None:
            self.message_user(request, "That exists again, or was never deleted: nothing was brought back.")
        else:
            self.rows.bring_back(request, [version], DONE)
        return HttpResponseRedirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))

    @admin.action(description="Bring back", permissions=["bring_back"])
    def bring_back(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        chosen = list(queryset[: MOST_ROWS + 1])
        self.rows.bring_back(request, chosen[:MOST_ROWS], DONE)
        if len(chosen) > MOST_ROWS:
            self.message_user(request, f"At most {MOST_ROWS} are brought back at once. Choose the others again.")

    @admin.display(description="name")
    def name(self, version: Any) -> SafeString:
        name, key = self.rows.name_of(version), getattr(version, self.model.instance_type.name_field)
        link = format_html('<a href="{}">{}</a>', self.rows.versions_url(version), name)
        return link if name == key else format_html('{} <span class="second mono">{}</span>', link, key)

    @admin.display(description="deleted")
    def deleted_at(self, version: Any) -> SafeString:
        return told(version.history_date)

    @admin.display(description="by")
    def deleted_by(self, version: Any) -> str:
        return str(version.history_user or version.get_history_way_display() or "-")

    @admin.display(description="reason", empty_value="-")
    def reason(self, version: Any) -> str | None:
        return version.history_change_reason or None
