"""The page where somebody chooses a zip of configurations; what it would change is shown before anything is written."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from devices.transfer.beginning import plan_import
from devices.transfer.uploads import UploadedZip
from devices.transfer.zips import open_configs
from iotsupport.editing.reasons import ReasonField
from iotsupport.mirror.files import MirrorError
from iotsupport.transfer.admin import ExportingAdmin

# Of what was left out, a message names so many.
NAMED = 10


class ImportForm(forms.Form):
    file = forms.FileField(
        label="Zip",
        help_text="Of files called <MAC address>.json, as the export makes it.",
        widget=forms.FileInput(attrs={"accept": ".zip,application/zip"}),
    )
    reason = ReasonField()

    def clean_file(self) -> UploadedZip:
        found: Any = self.cleaned_data["file"]
        if isinstance(found, UploadedZip) and found.problem is None:
            return found
        problem = getattr(found, "problem", None) or "The file did not arrive. Choose it once more."
        raise problem if isinstance(problem, ValidationError) else ValidationError(str(problem))


class TransferringAdmin(ExportingAdmin):
    """A list of configurations, from which they are exported, and into which they are imported."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.import_view)
        return [path("import/", view, name="devices_deviceconfig_import"), *super().get_urls()]

    def may_import(self, request: HttpRequest) -> bool:
        return bool(self.has_add_permission(request) or self.has_change_permission(request))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        context = {"import_url": "import/"} if self.may_import(request) else {}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def import_view(self, request: HttpRequest) -> HttpResponseBase:
        if not self.may_import(request):
            raise PermissionDenied
        form = ImportForm(request.POST, request.FILES) if request.method == "POST" else ImportForm()
        if form.is_valid():
            try:
                return self._begin(request, form)
            except (ValidationError, MirrorError) as error:
                text = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
                form.add_error("file", text)
        context = {**self.admin_site.each_context(request), "title": "Import a zip", "opts": self.opts, "form": form}
        return TemplateResponse(request, "admin/devices/deviceconfig/import.html", context)

    def _begin(self, request: HttpRequest, form: ImportForm) -> HttpResponseBase:
        upload, user = form.cleaned_data["file"], cast(User, request.user)
        with upload, open_configs(upload.file) as zipped:
            begun = plan_import(zipped, user, name=str(upload.name), reason=form.cleaned_data["reason"])
        for name, reason in begun.left_out[:NAMED]:
            self.message_user(request, f"Left out: {name}: {reason}", messages.WARNING)
        if more := len(begun.left_out[NAMED:]):
            self.message_user(request, f"{more} more of the zip's files were left out.", messages.WARNING)
        return HttpResponseRedirect(reverse("admin:devices_change_change", args=[begun.change.pk]))
