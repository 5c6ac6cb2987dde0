"""The form in which an administrator edits a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.urls import reverse
from django.utils.html import format_html

from devices.conflicts import Conflict, shown_of
from devices.line_ends import as_stored
from devices.models import DeviceConfig, DoesNotFit, NewContent
from devices.widgets import ConfigEditor, marked_lines
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
        widget=ConfigEditor,
    )
    although_it_does_not_fit = forms.BooleanField(
        label="Save it although it does not fit",
        required=False,
        help_text="It is marked as not fitting, and is found in the list by that.",
        widget=forms.HiddenInput,  # until it does not
    )
    reason = ReasonField()
    based_on = forms.CharField(required=False, widget=forms.HiddenInput)

    new: NewContent | None = None
    """What was made ready before the row was locked: used if it is what is to be saved."""
    conflict: Conflict | None = None
    """What somebody else has saved of the same device, where that is why the form does not pass."""
    known_mac_address = ""
    """The device, where what is added is a configuration that was deleted while somebody changed it."""

    class Media:
        # In this order: the first makes the editor that the second changes.
        js = ["django_ace/widget.js", "devices/editor.js", "devices/tools.js"]

    class Meta:
        model = DeviceConfig
        fields = ["mac_address", "type", "content"]
        help_texts = {"type": "Its schema says what the configuration must be like."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._current = self.instance if self.instance.pk else None
        if self._current is not None:
            self.initial.setdefault("based_on", shown_of(self._current))
        if self.instance.fits is False:
            self.offer_although()
        if self.is_bound and self.known_mac_address:
            self._send("mac_address", self.known_mac_address)

    def full_clean(self) -> None:
        super().full_clean()
        if "content" in self.errors:
            errors = self.errors.as_data()["content"]
            self.mark(errors)
            if any(isinstance(error, DoesNotFit) for error in errors):
                self.offer_although()

    def offer_although(self) -> None:
        """Show the field by which a text is saved that does not fit its type."""
        if "although_it_does_not_fit" in self.fields:
            self.fields["although_it_does_not_fit"].widget = forms.CheckboxInput()

    def mark(self, errors: Iterable[ValidationError]) -> None:
        """Have the editor show the lines that errors name, in the text as it was sent."""
        self.fields["content"].widget.marked = marked_lines(errors, self["content"].value() or "")

    def clean(self) -> dict[str, Any] | None:
        cleaned_data = super().clean()
        self.instance.although_it_does_not_fit = bool(self.cleaned_data.get("although_it_does_not_fit"))
        if "type" in self.cleaned_data and self.add_prefix("type") not in self.data:
            self.cleaned_data["type"] = self.instance.type  # of a page from before there were types
        if "content" in self.cleaned_data:
            self.cleaned_data["content"] = as_stored(self.cleaned_data["content"], self.instance.content)
        if self._current is not None:
            based_on = self.cleaned_data.get("based_on") or ""
            etag, _, type_shown = based_on.partition(" ")
            self._settle_type(self._current, type_shown)
            if self._would_overwrite(self._current, etag):
                self._refuse_to_overwrite(self._current, based_on)
        if self.new is not None and self.new.value == self.cleaned_data.get("content"):
            self.instance.set_content(self.new)
        return cleaned_data

    def _settle_type(self, current: DeviceConfig, shown: str) -> None:
        """Keep a type that somebody else chose meanwhile; ask where this form has another one than it was shown."""
        if not shown or "type" not in self.cleaned_data or shown == str(current.type_id or 0):
            return
        chosen = self.cleaned_data["type"]
        if shown == str(chosen.pk if chosen else 0):
            self.cleaned_data["type"] = current.type
            self._send("type", str(current.type_id or ""))
        elif chosen != current.type:
            theirs = f"the type “{current.type}”" if current.type else "no type"
            message = f"Somebody else gave it {theirs} while you were editing. Choose once more, then save."
            self.add_error("type", ValidationError(message, code="CONFLICT"))
        self._send("based_on", shown_of(current))

    def _would_overwrite(self, current: DeviceConfig, etag: str) -> bool:
        """Whether somebody else's change would be lost; a double click on "Save" loses nothing."""
        return bool(etag) and etag != current.etag and self.cleaned_data.get("content") != current.content

    def _refuse_to_overwrite(self, current: DeviceConfig, shown: str) -> None:
        self.conflict = Conflict.of(current, self._typed(), shown)
        message = (
            f"{self.conflict.who} changed this configuration while you were editing. Nothing of yours is saved yet,"
            " and nothing of it is lost: look at both changes, then choose."
        )
        self.add_error(None, ValidationError(message, code="CONFLICT"))
        # Whatever is saved next was typed in sight of what is there now.
        self._send("based_on", shown_of(current))

    def _typed(self) -> str:
        return as_stored(self["content"].value() or "", self.instance.content)

    def _send(self, name: str, value: str) -> None:
        """Show a value as if it had been sent."""
        data = self.data.copy()  # type: ignore[attr-defined]
        data[self.add_prefix(name)] = value
        self.data = data

    def take_suggestion(self) -> None:
        """Have the editor begin with both changes, where that can be: for a page that shows them."""
        if self.conflict is not None:
            self._send("content", self.conflict.suggestion)

    def validate_unique(self) -> None:
        if "mac_address" not in self.cleaned_data:
            return  # nothing else has to be unique
        # As it is spelled by now.
        same = DeviceConfig.objects.filter(mac_address=self.instance.mac_address)
        existing = same.exclude(pk=self.instance.pk).first()
        if existing is None:
            return
        self.conflict = Conflict.of_new(existing, self._typed())
        message = format_html(
            'This device has a configuration already, and nothing of it is overwritten: <a href="{}">{}</a>.'
            " Change that one, or type the MAC address of another device.",
            reverse("admin:devices_deviceconfig_change", args=[existing.pk]),
            existing,
        )
        self.add_error("mac_address", ValidationError(message, code="unique"))


class ShownAgain(forms.ModelForm):  # type: ignore[type-arg]
    """A form with what somebody sent, to go on with: nothing of it is judged or saved."""

    content_shown: str
    """The text in place of the one that was sent."""
    note: str
    """What was done, or why it was not."""
    refusals: Iterable[ValidationError] = ()
    """What is wrong with the text, where that is why."""
    is_copy = False
    """For another device."""

    def __init__(self, data: QueryDict, files: Any = None, **kwargs: Any) -> None:
        super().__init__(initial={**data.dict(), "content": self.content_shown}, **kwargs)
        if self.refusals:
            self.mark(self.refusals)  # type: ignore[attr-defined]
        if self.is_copy:
            self.fields["mac_address"].widget.attrs["autofocus"] = True
