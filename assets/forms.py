"""The form in which an administrator uploads an asset, new or again."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from assets.models import Asset
from assets.names import name_of_upload
from assets.uploads import UploadedAsset
from iotsupport.mirror.files import MirrorError


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

    class Meta:
        model = Asset
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["file"].help_text = (
            f"Becomes the new version of {self.instance.filename}, whatever it is called."
            if self.instance.pk
            else "Keeps its name. A file that has this name already gets a new version."
        )

    def clean(self) -> dict[str, Any] | None:
        cleaned_data = super().clean()
        upload = self.cleaned_data.get("file")
        if upload is None and "file" not in self.errors and not self._is_revert():
            self.add_error("file", ValidationError("Choose a file to upload.", code="NO_FILE"))
        if upload is not None and self.instance.pk is None:
            self._take_name(upload)
        return cleaned_data

    def _take_name(self, upload: UploadedAsset) -> None:
        try:
            filename = name_of_upload(upload.full_name)
        except ValidationError as error:
            self.add_error("file", error)
        else:
            self.instance = Asset.objects.filter(filename=filename).first() or self.instance
            self.instance.filename = filename

    def _is_revert(self) -> bool:
        """Whether the form holds a version of the history that is not the current one, and can be restored."""
        return (
            bool(self.instance.pk)
            and not Asset.objects.filter(pk=self.instance.pk, sha256=self.instance.sha256).exists()
        )
