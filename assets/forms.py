"""The form in which an administrator uploads an asset, new or again."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from assets.models import Asset, PendingUpload
from assets.names import name_of_upload
from assets.uploads import StagedBlob, UploadedAsset
from iotsupport.editing.reasons import ReasonField
from iotsupport.mirror.files import MirrorError
from iotsupport.mirror.rows import Ahead

# What a page has shown that asked about a file of which there was none.
NO_VERSION = "none"


class AssetFileField(forms.FileField):
    """A file of any size up to the limit, the empty one included."""

    def to_python(self, data: Any) -> UploadedAsset | None:
        if data in self.empty_values:
            return None
        upload: UploadedAsset = data
        try:
            upload.require_blob()
        except MirrorError as error:
            raise ValidationError(str(error), code="STORAGE_UNAVAILABLE") from error
        return upload


class AssetForm(forms.ModelForm):  # type: ignore[type-arg]
    file = AssetFileField(label="File", required=False)
    reason = ReasonField()
    # The key of an upload that somebody was asked about, in place of the file: in the page that asks alone.
    pending = forms.CharField(label="Upload", required=False, widget=forms.HiddenInput)
    # SHA-256 of the version that the page showed; or NO_VERSION.
    based_on = forms.CharField(required=False, widget=forms.HiddenInput)

    # Who sent it; the admin says so.
    user: User
    # The bytes to be saved; None where there are no new ones.
    blob: StagedBlob | PendingUpload | None = None
    # What was made ready of an upload that somebody was asked about, before the row was locked.
    ahead: Ahead | None = None

    class Meta:
        model = Asset
        fields = ["unchanged_where_running"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["based_on"] = self.instance.sha256
        self.fields["file"].help_text = (
            f"Becomes the new version of {self.instance.filename}, whatever it is called."
            if self.instance.pk
            else "Keeps its name. A file that has this name already gets a new version."
        )

    def clean(self) -> dict[str, Any] | None:
        cleaned_data = super().clean()
        upload, key = self.cleaned_data.get("file"), self.cleaned_data.get("pending")
        if upload is not None:
            self.blob = upload.require_blob()
        elif key and "file" not in self.errors:
            self.blob = self._find_pending(key)
        elif "file" not in self.errors and not self._has_choice():
            self.add_error("file", ValidationError("Choose a file to upload.", code="NO_FILE"))
        if self.blob is not None and self.instance.pk is None:
            self._take_name(upload.full_name if upload is not None else self.blob.filename)  # type: ignore[union-attr]
        return cleaned_data

    def _find_pending(self, key: str) -> PendingUpload | None:
        pending = PendingUpload.objects.of(self.user, key)
        if pending is None or self.instance.pk and pending.filename != self.instance.filename:
            message = "This upload is saved already, or was not answered for too long. Choose the file again."
            self.add_error("file", ValidationError(message, code="NO_FILE"))
            return None
        if self.ahead is not None and self.ahead.value == pending.sha256:
            pending.ahead = self.ahead
        return pending

    @property
    def would_overwrite(self) -> bool:
        """Whether somebody else's version would be replaced that the page did not show."""
        based_on, current = self.cleaned_data["based_on"], self.instance.sha256
        return bool(based_on and current) and self.blob is not None and current not in {based_on, self.blob.sha256}

    def _take_name(self, name: str) -> None:
        try:
            filename = name_of_upload(name)
        except ValidationError as error:
            self.add_error("file", error)
        else:
            self.instance = Asset.objects.filter(filename=filename).first() or self.instance
            self.instance.filename = filename

    def _has_choice(self) -> bool:
        return bool(self.instance.pk) and "unchanged_where_running" in self.changed_data
