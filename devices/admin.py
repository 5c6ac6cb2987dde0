from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from devices.fields import MACAddressField, base_mac_address
from devices.forms import DeviceConfigForm
from devices.metrics import count_save, track
from devices.models import DeviceConfig
from iotsupport.admin import MirroredAdmin

# In any of its spellings.
MAC_ADDRESS_PART = re.compile("[0-9a-f:-]{2,17}", re.ASCII | re.IGNORECASE)


class ConfigList(ChangeList):
    """Leaves the texts where they are: a page shows none of them, and they may be 64 KB each."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = self.result_list.defer("content", "folded")


@admin.register(DeviceConfig)
class DeviceConfigAdmin(MirroredAdmin):
    form = DeviceConfigForm
    # How long an address may be says less than what is wrong with it.
    formfield_overrides = {MACAddressField: {"max_length": None}}
    saved_by = "updated_by"
    count_save = staticmethod(count_save)
    list_display = ["mac_address", "device_name", "device_entity_id", "ota", "updated_at", "updated_by"]
    list_filter = ["enable_ota", "updated_at"]
    list_select_related = ["updated_by"]
    search_fields = ["mac_address", "folded__contains"]
    search_help_text = "MAC address (also with colons, or a part of it), name or entity ID of the device"

    def get_fields(self, request: HttpRequest, obj: DeviceConfig | None = None) -> list[str]:
        fields = ["mac_address", "content"]
        if obj is None:
            return fields
        if self.has_change_permission(request, obj):
            fields.append("based_on")
        return [*fields, "download", "updated_at", "updated_by"]

    def get_readonly_fields(self, request: HttpRequest, obj: DeviceConfig | None = None) -> list[str]:
        # The address names the file that a device asks for: another address is another configuration.
        return [] if obj is None else ["mac_address", "download", "updated_at", "updated_by"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None:
            kwargs["help_texts"] = {"mac_address": "Fixed: for another device, add another configuration."}
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
        request.new_content = new  # type: ignore[attr-defined]
        try:
            yield
        finally:
            if new is not None and new.staged is not None:
                new.close()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ConfigList

    @admin.display(description="OTA", boolean=True, ordering="enable_ota")
    def ota(self, obj: DeviceConfig) -> bool | None:
        return obj.enable_ota

    @admin.display(description="Devices download")
    def download(self, obj: DeviceConfig) -> str:
        url = reverse("config-download", args=[obj.mac_address], urlconf="iotsupport.public_urls")
        return format_html('<a href="{}">{}</a>', url, url)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DeviceConfig], search_term: str
    ) -> tuple[QuerySet[DeviceConfig], bool]:
        found, may_have_duplicates = super().get_search_results(request, queryset, search_term)
        term = search_term.strip()
        part = base_mac_address(term) or (_as_stored(term) if MAC_ADDRESS_PART.fullmatch(term) else None)
        if part:
            found |= queryset.filter(mac_address__contains=part)
        return found, may_have_duplicates

    @track("delete")
    def delete_model(self, request: HttpRequest, obj: DeviceConfig) -> None:
        super().delete_model(request, obj)


def _as_stored(part: str) -> str:
    """Write a part of a MAC address as the database has it, as labels on boards and serial logs do not."""
    if re.search("[-:]", part):
        return part.replace(":", "-").lower()
    return "-".join(part[i : i + 2] for i in range(0, len(part), 2)).lower()
