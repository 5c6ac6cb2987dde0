from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html

from assets.forms import AssetForm
from assets.metrics import SIZE, count_upload
from assets.models import Asset
from iotsupport.admin import MirroredAdmin


@admin.register(Asset)
class AssetAdmin(MirroredAdmin):
    form = AssetForm
    saved_by = "uploaded_by"
    count_save = staticmethod(count_upload)
    list_display = ["filename", "readable_size", "short_sha256", "uploaded_at", "uploaded_by"]
    list_filter = ["uploaded_at"]
    list_select_related = ["uploaded_by"]
    search_fields = ["folded__contains", "sha256", "md5"]
    history_list_display = ["size", "sha256"]

    def get_fields(self, request: HttpRequest, obj: Asset | None = None) -> list[str]:
        if obj is None:
            return ["file"]
        about = self.get_readonly_fields(request, obj)
        # Whoever may only look has no use for a field that takes a file.
        return ["file", *about] if self.has_change_permission(request, obj) else about

    def get_readonly_fields(self, request: HttpRequest, obj: Asset | None = None) -> list[str]:
        return [] if obj is None else ["download", "size", "sha256", "md5", "uploaded_at", "uploaded_by"]

    @admin.display(description="size", ordering="size")
    def readable_size(self, obj: Asset) -> str:
        return filesizeformat(obj.size)

    @admin.display(description="SHA-256", ordering="sha256")
    def short_sha256(self, obj: Asset) -> str:
        return f"{obj.sha256[:16]}…"

    @admin.display(description="Devices download")
    def download(self, obj: Asset) -> str:
        url = reverse("asset-download", args=[obj.filename], urlconf="iotsupport.public_urls")
        return format_html('<a href="{}">{}</a>', url, url)

    def save_model(self, request: HttpRequest, obj: Asset, form: Any, change: bool) -> None:
        upload = form.cleaned_data["file"]
        if not change and obj.pk:
            self._replace(request, obj)
        if upload is not None:
            obj.set_bytes(upload.blob)
            transaction.on_commit(partial(SIZE.observe, obj.size))
        super().save_model(request, obj, form, change)

    def _replace(self, request: HttpRequest, obj: Asset) -> None:
        if not self.has_change_permission(request, obj):
            raise PermissionDenied
        self.message_user(request, f"The file is the new version of {obj.filename}. The history keeps the one before.")
