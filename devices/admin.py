from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, QueryDict
from django.urls import reverse
from django.utils.html import format_html

from devices import telling
from devices.changes.admin import ChangeAdmin, change_many
from devices.choosing import ChoosingAdmin
from devices.editor import EditorAdmin
from devices.fields import MACAddressField, part_as_stored
from devices.filters import FitFilter, SeenFilter, StateFilter, TypeFilter
from devices.forms import DeviceConfigForm
from devices.metrics import count_save, track
from devices.models import DeletedConfig, DeviceConfig, DeviceType, DoesNotFit
from devices.panel import Panel, panel_of
from devices.transfer.admin import TransferringAdmin
from devices.transfer.exporting import answer_configs
from devices.types.admin import DeviceTypeAdmin
from devices.waiting import WaitingBoardAdmin
from iotsupport.editing.deleted import DeletedAdmin
from iotsupport.editing.differences import difference
from iotsupport.errors import DATABASE_ERRORS
from iotsupport.times import lasting, told

__all__ = ["ChangeAdmin", "DeletedConfigAdmin", "DeviceConfigAdmin", "DeviceTypeAdmin", "WaitingBoardAdmin"]

# More types than that are found by the field alone.
MOST_BEGINNINGS = 20


class ConfigList(ChangeList):
    """Leaves the texts where they are: a page shows none of them, and they may be 64 KB each."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if any("board__" in str(field) for field in self.queryset.query.order_by):
            self.result_list = self._in_order_of_boards(self.result_list)
        # Not defer(), which would leave out the board: that is no column.
        columns = [field.name for field in self.opts.concrete_fields if field.name not in {"content", "folded"}]
        # Of a type, its name: a page would read as many schemas as it has rows.
        self.result_list = self.result_list.only(*columns, "board", "type__name")

    def _in_order_of_boards(self, page: QuerySet[DeviceConfig]) -> QuerySet[DeviceConfig]:
        """The same page, read from the boards: each configuration has one, and their index has the order.

        A configuration that might have none would have all of them joined first, and then sorted.
        """
        rows: QuerySet[DeviceConfig] = self.queryset.filter(board__state__isnull=False)
        return rows[page.query.low_mark : page.query.high_mark]


@admin.register(DeviceConfig)
class DeviceConfigAdmin(EditorAdmin, ChoosingAdmin, TransferringAdmin):
    form = DeviceConfigForm
    # How long an address may be says less than what is wrong with it.
    formfield_overrides = {MACAddressField: {"max_length": None}}
    saved_by = "updated_by"
    large_fields = ["content"]
    deleted_model = DeletedConfig
    comparison_template = "admin/includes/difference.html"
    count_save = staticmethod(count_save)
    answer_export = staticmethod(answer_configs)
    list_display = ["device", "state", "seen", "runs", "ota", "changed"]
    list_filter = [StateFilter, SeenFilter, TypeFilter, FitFilter, "enable_ota", "updated_at"]
    list_select_related = ["updated_by", "board", "type"]
    actions: ClassVar[list[Any]] = [change_many, *TransferringAdmin.actions]
    search_fields = ["mac_address", "folded__contains"]
    search_help_text = "MAC address (also with colons, or a part of it), name or entity ID of the device"

    def get_fields(self, request: HttpRequest, obj: DeviceConfig | None = None) -> list[str]:
        fields = ["mac_address", "content"]
        if _has_types(request):  # else nobody need choose one
            fields = ["mac_address", "type", *(["fit"] if obj is not None and obj.type_id else []), "content"]
            if obj is None or self.has_change_permission(request, obj):
                fields.append("although_it_does_not_fit")
        if obj is None:
            return [*fields, "reason"]
        if self.has_change_permission(request, obj):
            fields += ["reason", "based_on"]
        return [*fields, "download", "updated_at", "updated_by"]

    def get_readonly_fields(self, request: HttpRequest, obj: DeviceConfig | None = None) -> list[str]:
        # The address names the file that a device asks for: another address is another configuration.
        return [] if obj is None else ["mac_address", "fit", "download", "updated_at", "updated_by"]

    def may_overrule(self, error: ValidationError) -> bool:
        found = error.error_dict["content"] if hasattr(error, "error_dict") else []
        return any(isinstance(each, DoesNotFit) for each in found)

    def overrule(self, row: DeviceConfig) -> None:
        row.although_it_does_not_fit = True

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        chosen = _type_of(request.GET)
        if chosen is not None and chosen.starting_content:
            initial["content"] = chosen.starting_content
        return initial

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if db_field.name == "type" and field is not None:
            field.queryset = DeviceType.objects.only("name", "folded")
            field.empty_label = "none"
        return field

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "type" and field is not None:
            # Types have pages of their own: their pop-ups would be another way, and need scripts.
            field.widget = field.widget.widget
        return field

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None:
            kwargs["help_texts"] = {
                **DeviceConfigForm.Meta.help_texts,
                "mac_address": "Fixed: for another device, add another configuration.",
            }
        form = super().get_form(request, obj, change=change, **kwargs)
        form.new = vars(request).get("new_content")
        return form

    @contextmanager
    def prepared(self, request: HttpRequest) -> Iterator[None]:
        """Parse and stage what was typed. What is wrong with it, the form says."""
        typed = request.POST.get("content")
        if typed is None or not (self.has_add_permission(request) or self.has_change_permission(request)):
            yield
            return
        new = None
        with suppress(ValidationError):
            # As most texts are stored, whatever browsers send. Of the others, the row has to be known.
            new = DeviceConfig.objects.prepare(typed.replace("\r\n", "\n"))
            new.judge(_type_of(request.POST))
        request.new_content = new  # type: ignore[attr-defined]
        try:
            yield
        finally:
            if new is not None and new.staged is not None:
                new.close()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ConfigList

    def name_of(self, version: Any) -> str:
        return version.device_name or super().name_of(version)

    def compare(self, old: Any, new: Any) -> dict[str, Any]:
        rows = difference("" if old is None else old.content, new.content)
        return {"rows": rows, "remark": "" if old is None else _tell_other_type(old, new)}

    @admin.display(description="device", ordering="device_name")
    def device(self, obj: DeviceConfig) -> str:
        mac_address = format_html(
            '<span class="{}">{}</span>', "second mono" if obj.device_name else "mono", obj.mac_address
        )
        names = format_html("{} {}", obj.device_name, mac_address) if obj.device_name else mac_address
        return telling.with_second(telling.with_second(names, obj.device_entity_id or ""), telling.tell_type(obj))

    @admin.display(description="state", ordering="board__state")
    def state(self, obj: DeviceConfig) -> str:
        board = obj.board
        if board is None:
            return ""
        behind = format_html("for {}", lasting(board.behind_since)) if board.behind_since else ""
        return telling.with_second(telling.tell_state(board), behind)

    @admin.display(description="last seen", ordering="board__last_seen")
    def seen(self, obj: DeviceConfig) -> str:
        return telling.tell_last_seen(obj.board) if obj.board else ""

    @admin.display(description="says it runs", ordering="board__runs_version")
    def runs(self, obj: DeviceConfig) -> str:
        return telling.tell_runs(obj.board) if obj.board else ""

    @admin.display(description="changed", ordering="updated_at")
    def changed(self, obj: DeviceConfig) -> str:
        return telling.with_second(told(obj.updated_at), str(obj.updated_by or ""))

    @admin.display(description="OTA", boolean=True, ordering="enable_ota")
    def ota(self, obj: DeviceConfig) -> bool | None:
        return obj.enable_ota

    @admin.display(description="Fits its type")
    def fit(self, obj: DeviceConfig) -> str:
        return telling.MISFIT if obj.fits is False else "yes"

    @admin.display(description="Devices download")
    def download(self, obj: DeviceConfig) -> str:
        url = reverse("config-download", args=[obj.mac_address], urlconf="iotsupport.public_urls")
        return format_html('<a href="{}">{}</a>', url, url)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {"title": "Device configurations", **(extra_context or {})})

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        config = kwargs.get("obj")
        return super().render_change_form(
            request,
            {**context, "panel": config and _panel(request, config), "beginnings": _beginnings(request, config)},
            *args,
            **kwargs,
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DeviceConfig], search_term: str
    ) -> tuple[QuerySet[DeviceConfig], bool]:
        found, may_have_duplicates = super().get_search_results(request, queryset, search_term)
        if part := part_as_stored(search_term):
            found |= queryset.filter(mac_address__contains=part)
        return found, may_have_duplicates

    @track("delete")
    def delete_model(self, request: HttpRequest, obj: DeviceConfig) -> None:
        super().delete_model(request, obj)


@admin.register(DeletedConfig)
class DeletedConfigAdmin(DeletedAdmin):
    search_fields = ["mac_address", "device_name"]
    search_help_text = "MAC address (also with colons, or a part of it), or name of the device"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        found, may_have_duplicates = super().get_search_results(request, queryset, search_term)
        if part := part_as_stored(search_term):
            found |= queryset.filter(mac_address__contains=part)
        return found, may_have_duplicates


def _beginnings(request: HttpRequest, config: DeviceConfig | None) -> list[tuple[DeviceType, str]]:
    """The types with which a new configuration can begin, and where: nothing typed so far goes along."""
    if config is not None or request.method == "POST":
        return []
    types = DeviceType.objects.exclude(starting_content="").only("name", "folded")[:MOST_BEGINNINGS]
    asked = request.GET.copy()
    return [(each, f"?{_with(asked, type=str(each.pk))}") for each in types]


def _with(query: QueryDict, **values: str) -> str:
    for name, value in values.items():
        query[name] = value
    return query.urlencode()


def _type_of(chosen: QueryDict) -> DeviceType | None:
    """The type that an address or a form names."""
    pk = chosen.get("type", "")
    return DeviceType.objects.filter(pk=int(pk)).first() if re.fullmatch("[0-9]{1,18}", pk) else None


def _has_types(request: HttpRequest) -> bool:
    """Whether there is any type: asked once for each page."""
    if not hasattr(request, "has_types"):
        request.has_types = DeviceType.objects.exists()  # type: ignore[attr-defined]
    return bool(request.has_types)  # type: ignore[attr-defined]


def _panel(request: HttpRequest, config: DeviceConfig) -> Panel | None:
    try:
        return panel_of(request, config)
    except DATABASE_ERRORS:  # what somebody typed is shown again without it
        return None


def _tell_other_type(old: Any, new: Any) -> str:
    """Say which type a version had and which another one has; nothing where that is the same."""
    if old.type_id == new.type_id:
        return ""
    names = dict(DeviceType.objects.filter(pk__in=[old.type_id or 0, new.type_id or 0]).values_list("pk", "name"))
    was, is_now = (
        "none" if pk is None else f"“{names[pk]}”" if pk in names else "one that was deleted"
        for pk in [old.type_id, new.type_id]
    )
    return f"The type was {was}; then it is {is_now}."
