"""What is to be done with many configurations, as somebody types it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from devices.changes.models import Kind
from devices.models import DeviceType
from devices.patching import Patch
from devices.widgets import ConfigEditor, marked_lines
from iotsupport.editing.reasons import ReasonField

EXAMPLE = "{\n  \n}\n"
KINDS = [
    (Kind.PATCH, "Patch their texts"),
    (Kind.TYPE, "Set their type"),
    (Kind.ANNOUNCE, "Announce them again, as they are"),
]


class NewChangeForm(forms.Form):
    """Says which configurations (a hidden field, as the list chose them), what is to be done, and why."""

    kind = forms.ChoiceField(label="What", choices=KINDS, initial=Kind.PATCH, widget=forms.RadioSelect)
    patch = forms.CharField(
        label="Patch",
        required=False,
        strip=False,
        initial=EXAMPLE,
        help_text=(
            "A JSON merge patch: a member that it names gets the value written here, and null removes it. Objects are"
            " merged; all else in the texts stays as it was typed. Only where texts are to be patched. Tab indents;"
            " Esc, then Tab, goes on."
        ),
        widget=ConfigEditor,
    )
    type = forms.ModelChoiceField(
        label="Type",
        queryset=DeviceType.objects.all(),
        required=False,
        empty_label="None: without a type",
        help_text="Only where the type is to be set. Each text must fit it.",
    )
    reason = ReasonField(help_text="Why they are changed, for the list of versions of each. May be left empty.")
    # Addresses, or the query string of the list.
    mac_addresses = forms.CharField(required=False, widget=forms.HiddenInput)
    query = forms.CharField(required=False, widget=forms.HiddenInput)

    class Media:
        # In this order: the first makes the editor that the second changes.
        js = ["django_ace/widget.js", "devices/editor.js"]

    def full_clean(self) -> None:
        super().full_clean()
        if "patch" in self.errors:
            self.fields["patch"].widget.marked = marked_lines(self.errors.as_data()["patch"], self["patch"].value())

    @property
    def is_of_list(self) -> bool:
        """Whether all that the list found is chosen."""
        return "query" in (self.data if self.is_bound else self.initial)

    def clean_patch(self) -> str:
        # Browsers send CRLF, whatever was typed.
        typed: str = self.cleaned_data["patch"].replace("\r\n", "\n")
        if self.cleaned_data.get("kind") != Kind.PATCH:
            return ""
        if not Patch(typed).root.members:
            raise ValidationError("This patch changes nothing. Write between { and } what is to be changed.")
        return typed

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if not self.cleaned_data.get("mac_addresses") and not self.is_of_list:
            raise ValidationError("No configuration is chosen. Go back to the list, and choose some.")
        return cleaned
