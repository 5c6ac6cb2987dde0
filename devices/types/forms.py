"""The form in which an administrator edits a type of devices."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from devices.line_ends import as_stored
from devices.types.models import DeviceType
from devices.widgets import ConfigEditor, marked_lines

EXAMPLE = """{
  "type": "object",
  "properties": {
    "deviceName": {"type": "string", "title": "Name", "minLength": 1},
    "enableOTA": {"type": "boolean", "default": true}
  },
  "required": ["deviceName"]
}
"""

EDITED = ["schema", "starting_content"]


class DeviceTypeForm(forms.ModelForm):  # type: ignore[type-arg]
    """Keeps the texts as they are stored, and does not let one person overwrite another's change unseen."""

    schema = forms.CharField(
        strip=False,
        initial=EXAMPLE,
        help_text="A JSON Schema (2020-12). Kept byte for byte, as it is typed. Tab indents; Esc, then Tab, goes on.",
        widget=ConfigEditor,
    )
    starting_content = forms.CharField(
        strip=False,
        required=False,
        help_text="What a new configuration of this type begins with; it must fit the schema. It may be empty.",
        widget=ConfigEditor,
    )
    based_on = forms.CharField(required=False, widget=forms.HiddenInput)

    class Media:
        # In this order: the first makes the editors that the second changes.
        js = ["django_ace/widget.js", "devices/editor.js"]

    class Meta:
        model = DeviceType
        fields = ["name", "description", "schema", "starting_content"]
        help_texts = {"name": "Such as “gate” or “kitchen sensor 2”. Capital letters make no other name."}
        widgets = {"description": forms.Textarea(attrs={"rows": 3})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial.setdefault("based_on", self.instance.based_on or self.instance.fingerprint)

    def full_clean(self) -> None:
        super().full_clean()
        for name in EDITED:
            if name in self.errors:
                marked = marked_lines(self.errors.as_data()[name], self[name].value() or "")
                self.fields[name].widget.marked = marked

    def clean(self) -> dict[str, Any] | None:
        cleaned_data = super().clean()
        for name in EDITED:
            if name in self.cleaned_data:
                self.cleaned_data[name] = as_stored(self.cleaned_data[name], getattr(self.instance, name))
        if self.instance.pk and self.cleaned_data.get("based_on") not in {None, "", self.instance.fingerprint}:
            self._warn_of_change()
        return cleaned_data

    def _warn_of_change(self) -> None:
        message = (
            f"{self.instance.updated_by or 'Somebody else'} changed this type while you were editing. Nothing was"
            " saved. Below is your text; the history shows the other. Save once more to replace it with yours."
        )
        self.add_error(None, ValidationError(message, code="CONFLICT"))
        data = self.data.copy()  # type: ignore[attr-defined]
        data[self.add_prefix("based_on")] = self.instance.fingerprint
        self.data = data
