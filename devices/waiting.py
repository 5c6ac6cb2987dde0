"""Boards that ask for a configuration and have none, in the admin: to be added, or forgotten."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from devices.fields import part_as_stored
from devices.models import DeviceConfig, WaitingBoard
from iotsupport.times import told


def add_url(mac_address: str) -> str:
    """Where a configuration is added for a board."""
    return f"{reverse('admin:devices_deviceconfig_add')}?{urlencode({'mac_address': mac_address})}"


@admin.register(WaitingBoard)
class WaitingBoardAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Who may view configurations sees who asks for one; who may add them adds it, who may change them forgets it."""

    list_display = ["mac_address", "last_asked", "first_asked", "asked", "last_address", "user_agent"]
    list_display_links = None
    ordering = ["-last_seen", "mac_address"]
    search_fields = ["mac_address", "last_address", "user_agent"]
    search_help_text = "MAC address (also with colons, or a part of it), address, or what it identifies itself as"
    actions = ["forget"]
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[WaitingBoard]:
        return super().get_queryset(request).waiting()  # type: ignore[attr-defined, no-any-return]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.forget_view))
        return [path("forget/", view, name="devices_waitingboard_forget"), *super().get_urls()]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: WaitingBoard | None = None) -> bool:
        return bool(_configs().has_view_or_change_permission(request))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: WaitingBoard | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: WaitingBoard | None = None) -> bool:
        return False

    def has_forget_permission(self, request: HttpRequest) -> bool:
        return bool(_configs().has_change_permission(request))

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        columns: list[Any] = list(super().get_list_display(request))
        may_add, may_forget = _configs().has_add_permission(request), self.has_forget_permission(request)

        @admin.display(description="what to do")
        def choices(board: WaitingBoard) -> SafeString:
            add = format_html('<a class="button" href="{}">Add</a>', add_url(board.mac_address)) if may_add else ""
            return format_html("{} {}", add, self._forget_button(board) if may_forget else "")

        return [*columns, choices] if may_add or may_forget else columns

    def _forget_button(self, board: WaitingBoard) -> SafeString:
        return format_html(
            '<button type="submit" formaction="{}" name="mac_address" value="{}">Forget</button>',
            reverse("admin:devices_waitingboard_forget"),
            board.mac_address,
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = "Boards that ask, and have no configuration"
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[WaitingBoard], search_term: str
    ) -> tuple[QuerySet[WaitingBoard], bool]:
        found, may_have_duplicates = super().get_search_results(request, queryset, search_term)
        if part := part_as_stored(search_term):
            found |= queryset.filter(mac_address__contains=part)
        return found, may_have_duplicates

    def forget_view(self, request: HttpRequest) -> HttpResponse:
        """Forget one board, until it asks again."""
        if not self.has_forget_permission(request):
            raise PermissionDenied
        boards = self.get_queryset(request).filter(mac_address=request.POST.get("mac_address", ""))
        self.forget(request, boards)
        return HttpResponseRedirect(reverse("admin:devices_waitingboard_changelist"))

    @admin.action(description="Forget", permissions=["forget"])
    def forget(self, request: HttpRequest, queryset: QuerySet[WaitingBoard]) -> None:
        count, _ = queryset.delete()
        named = f"{count} board{' is' if count == 1 else 's are'} forgotten, until asking again."
        text = named if count else "Nothing was forgotten: what you chose does not wait any more."
        self.message_user(request, text, messages.SUCCESS if count else messages.INFO)

    @admin.display(description="first asked", ordering="waiting_since")
    def first_asked(self, obj: WaitingBoard) -> SafeString | None:
        return told(obj.waiting_since) if obj.waiting_since else None

    @admin.display(description="last asked", ordering="last_seen")
    def last_asked(self, obj: WaitingBoard) -> SafeString | None:
        return told(obj.last_seen) if obj.last_seen else None


def _configs() -> Any:
    return admin.site.get_model_admin(DeviceConfig)
