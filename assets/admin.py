from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from assets.exporting import answer_assets
from assets.facts import compare
from assets.forms import NO_VERSION, AssetForm
from assets.metrics import SIZE, count_upload
from assets.models import Asset, DeletedAsset, PendingUpload
from assets.panels import panels, path_of
from assets.uploads import StagedBlob, UploadedAsset
from assets.versions import changes_meanwhile
from iotsupport.admin import AsksFirst
from iotsupport.editing.deleted import DeletedAdmin
from iotsupport.editing.meanwhile import Change
from iotsupport.mirror.files import MirrorError
from iotsupport.transfer.admin import ExportingAdmin

IMAGE_FIELDS = ["chip", "project", "version", "idf_version", "built", "signed", "elf_sha256", "image_sha256"]
BUTTONS = ["_save", "_continue", "_addanother"]


@admin.register(Asset)
class AssetAdmin(ExportingAdmin):
    form = AssetForm
    change_form_template = "admin/assets/asset/change_form.html"
    saved_by = "uploaded_by"
    count_save = staticmethod(count_upload)
    answer_export = staticmethod(answer_assets)
    list_display = ["filename", "firmware", "readable_size", "uploaded_at", "uploaded_by"]
    list_filter = ["chip", "uploaded_at"]
    list_select_related = ["uploaded_by"]
    search_fields = ["folded__contains", "sha256", "md5", "image_sha256", "elf_sha256"]
    deleted_model = DeletedAsset
    comparison_template = "admin/includes/facts.html"

    def get_fieldsets(self, request: HttpRequest, obj: Asset | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ["file", "reason"]})]
        # Whoever may only look has no use for fields that take something.
        file, reason = (["file", "based_on"], ["reason"]) if self.has_change_permission(request, obj) else ([], [])
        found = [(None, {"fields": [*file, "unchanged_where_running", *reason, *self._of_file(obj)]})]
        return [*found, ("Firmware image", {"fields": IMAGE_FIELDS})] if obj.image is not None else found

    def get_readonly_fields(self, request: HttpRequest, obj: Asset | None = None) -> list[str]:
        return [] if obj is None else [*self._of_file(obj), *IMAGE_FIELDS]

    def _of_file(self, obj: Asset) -> list[str]:
        doubtful = ["doubtful"] if obj.warnings else []
        return ["download", *doubtful, "size", "sha256", "md5", "uploaded_at", "uploaded_by"]

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        form = super().get_form(request, *args, **kwargs)
        form.user, form.ahead = request.user, vars(request).get("ahead")
        return form

    @contextmanager
    def prepared(self, request: HttpRequest) -> Iterator[None]:
        """Copy an upload that was asked about for the mirror. What is wrong with it, the form says."""
        pending = None
        if self.has_add_permission(request) or self.has_change_permission(request):
            pending = PendingUpload.objects.of(cast(User, request.user), request.POST.get("pending", ""))
        if pending is not None:
            with suppress(MirrorError):
                pending.prepare()
                request.ahead = pending.ahead  # type: ignore[attr-defined]
        try:
            yield
        finally:
            if pending is not None and pending.ahead is not None:
                pending.ahead.close()

    def compare(self, old: Any, new: Any) -> dict[str, Any]:
        return {"facts": compare(old, new)}

    def warnings_of(self, row: Any) -> list[str]:
        return list(row.warnings)

    @admin.display(description="size", ordering="size")
    def readable_size(self, obj: Any) -> str:
        return filesizeformat(obj.size)

    @admin.display(description="firmware", ordering="project")
    def firmware(self, obj: Any) -> str:
        """Of an asset, or of a version of one."""
        what = f"{obj.project} {obj.version}".strip()
        said = format_html("{} <small>{}</small>", what, obj.chip) if obj.chip else ""
        doubtful = format_html('<span class="doubtful">{}</span>', "doubtful") if obj.warnings else ""
        return format_html("{} {}", said, doubtful) if said or doubtful else "-"

    @admin.display(description="Doubtful")
    def doubtful(self, obj: Asset) -> str:
        items = format_html_join("", "<li>{}</li>", ((warning,) for warning in obj.warnings))
        return format_html('<ul class="doubts">{}</ul>', items)

    @admin.display(description="Devices download")
    def download(self, obj: Asset) -> str:
        url = path_of(obj)
        return format_html('<a href="{}">{}</a>', url, url)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {"title": "Assets", **(extra_context or {})})

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        asset = context.get("original")
        if asset is not None:
            context.update(panels(request, asset))
        return super().render_change_form(request, context, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Asset, form: Any, change: bool) -> None:
        is_next_version = not change and bool(obj.pk)
        if is_next_version and not self.has_change_permission(request, obj):
            raise PermissionDenied
        if form.blob is None:
            request.is_not_counted = True  # type: ignore[attr-defined]
            obj.save_choice()
            return
        self._take(obj, form, form.blob)
        super().save_model(request, obj, form, change)
        if is_next_version:
            sentence = f"The file is the new version of {obj.filename}. The history keeps the one before."
            self.message_user(request, sentence)
        for warning in obj.warnings:
            self.message_user(request, f"{obj.filename}: {warning}", messages.WARNING)

    def _take(self, obj: Asset, form: AssetForm, blob: StagedBlob | PendingUpload) -> None:
        changes: list[Change] = []
        if form.would_overwrite:
            changes = changes_meanwhile(obj, form.cleaned_data["based_on"])
        # Of one that was asked about before, only what came since.
        if isinstance(blob, StagedBlob) or changes:
            warnings = obj.judge(blob.sha256, blob.inspection)
            if warnings or changes:
                raise AsksFirst(partial(self._ask, asset=obj, blob=blob, warnings=warnings, changes=changes))
        obj.set_bytes(blob)
        transaction.on_commit(partial(SIZE.observe, obj.size))

    def _ask(
        self,
        request: HttpRequest,
        *,
        asset: Asset,
        blob: StagedBlob | PendingUpload,
        warnings: list[str],
        changes: list[Change],
        action: str = "",
    ) -> HttpResponseBase:
        """Ask whether an upload is meant; its bytes are kept meanwhile."""
        pending = blob
        if isinstance(pending, StagedBlob):
            pending = PendingUpload.objects.keep(pending, asset.filename, cast(User, request.user))
        is_new = asset.pk is None
        context = {
            **self.admin_site.each_context(request),
            "title": f"Save {asset.filename} all the same?",
            "opts": self.opts,
            "asset": asset,
            "size": pending.size,
            "image": pending.inspection.image,
            "warnings": warnings,
            "changes": changes,
            # What is saved next was sent in sight of what is there now.
            "fields": [("pending", pending.pk), ("based_on", asset.sha256 or NO_VERSION), *self._kept_fields(request)],
            "action": action,
            "back": self._url("changelist") if is_new else self._change_url(asset),
        }
        return TemplateResponse(request, "admin/assets/asset/ask.html", context)

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> Any:
        last = Asset.history.filter(id=object_id).first() if object_id.isdecimal() else None
        blob = self._sent(request)
        if last is None or blob is None:
            return super()._get_obj_does_not_exist_redirect(request, opts, object_id)
        successor = Asset.objects.filter(filename=last.filename).first()
        if successor is not None:
            return self._changeform_view(request, str(successor.pk), self._change_url(successor), None)
        self.require_add_permission(request)
        asset = Asset(filename=last.filename)
        changes = changes_meanwhile(asset, request.POST.get("based_on", ""))
        warnings = asset.judge(blob.sha256, blob.inspection)
        ask = partial(self._ask, asset=asset, blob=blob, warnings=warnings, changes=changes, action=self._url("add"))
        raise AsksFirst(ask)

    def _sent(self, request: HttpRequest) -> StagedBlob | PendingUpload | None:
        """The bytes of a form about an asset that is gone; None where it had none."""
        upload = request.FILES.get("file")
        if isinstance(upload, UploadedAsset):
            return upload.blob
        return PendingUpload.objects.of(cast(User, request.user), request.POST.get("pending", ""))

    def _kept_fields(self, request: HttpRequest) -> list[tuple[str, str]]:
        kept = ["unchanged_where_running", "reason", *BUTTONS]
        return [(name, request.POST[name]) for name in kept if name in request.POST]

    def _change_url(self, asset: Asset) -> str:
        return reverse("admin:assets_asset_change", args=[asset.pk])


@admin.register(DeletedAsset)
class DeletedAssetAdmin(DeletedAdmin):
    search_fields = ["filename", "project", "version"]
    search_help_text = "Name of the file, project or version of the firmware"
