"""The form in which an administrator edits a configuration."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django_ace import AceWidget

from devices.models import DeviceConfig, NewContent
from iotsupport.editing.reasons import ReasonField

EXAMPLE = '{\n  "deviceName": "",\n  "deviceEntityId": "",\n  "enableOTA": true\n}\n'


class DeviceConfigForm(forms.ModelForm):  # type: ignore[type-arg]
    """Keeps the text as it is stored, and does not let one person overwrite another's change unseen.

    To save, the instance must be locked: it is what there is to be overwritten.
    """

    content = forms.CharField(
        label="Configuration",
        strip=False,
        initial=EXAMPLE,
        help_text="One JSON object. Kept byte for byte, as it is typed. Tab indents; Esc, then Tab, goes on.",
        # Sizes come from a style sheet: the content security policy takes no inline style.
        widget=AceWidget(
            mode="json", width=None, height=None, tabsize=2, toolbar=False, showprintmargin=False, useStrictCSP=True
        ),
    )
    reason = ReasonField()
    based_on = forms.CharField(required=False, widget=forms.HiddenInput)

    new: NewContent | None = None
    """What was made ready before the row was locked: used if it is what is to be saved."""

    class Media:
        # In this order: the first makes the editor that the second changes.
        js = ["django_ace/widget.js", "devices/editor.js"]

    class Meta:
        model = DeviceConfig
        fields = ["mac_address", "content"]
        error_messages = {
            "mac_address": {
                "unique": "This device has a configuration already. Find it in the list, and change that one."
            }
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._current = self.instance if self.instance.pk else None
        if self._current is not None:
            self.initial["based_on"] = self._current.etag

    def clean(self) -> dict[str, Any] | None:
        cleaned_data = super().clean()
        if "content" in self.cleaned_data:
            self.cleaned_data["content"] = self._with_line_ends(self.cleaned_data["content"])
        if self._current is not None and self._would_overwrite(self._current):
            self._warn_of_change(self._current)
        if self.new is not None and self.new.value == self.cleaned_data.get("content"):
            self.instance.set_content(self.new)
        return cleaned_data

    def _with_line_ends(self, typed: str) -> str:
        """Undo what browsers do to line ends: they send CRLF, whatever was there."""
        typed = typed.replace("\r\n", "\n")
        stored: str = self.instance.content
        if typed == stored.replace("\r\n", "\n").replace("\r", "\n"):
            return stored
        if "\r\n" in stored and "\n" not in stored.replace("\r\n", ""):
            return typed.replace("\n", "\r\n")
        return typed

    def _would_overwrite(self, current: DeviceConfig) -> bool:
        """Whether somebody else's change would be lost; a double click on "Save" loses nothing."""
        based_on = self.cleaned_data.get("based_on")
        return bool(based_on) and based_on != current.etag and self.cleaned_data.get("content") != current.content

    def _warn_of_change(self, current: DeviceConfig) -> None:
        who = f"{current.updated_by}" if current.updated_by else "Somebody else"
        message = (
            f"{who} changed this configuration while you were editing. Nothing was saved. Below is your text; "
            "the history shows the other. Save once more to replace it with yours."
        )
        self.add_error(None, ValidationError(message, code="CONFLICT"))
        data = self.data.copy()  # type: ignore[attr-defined]
        data[self.add_prefix("based_on")] = current.etag
        self.data = data
