"""Why somebody changes something, in their words: kept with the version that the change makes."""

from __future__ import annotations

import re
import unicodedata
from typing import Any
from urllib.parse import unquote_to_bytes

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from iotsupport.characters import name_of_character
from iotsupport.editing import origins
from iotsupport.errors import ApiError

MOST_CHARACTERS = 500
HEADER = "X-Change-Reason"

# Categories of Unicode, and classes of its algorithm for both directions: what would change the look of other text.
UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}

PERCENT_ENCODED = re.compile(r"(?:[^%]|%[0-9a-fA-F]{2})*")

SCHEMA = {
    "type": "string",
    "maxLength": MOST_CHARACTERS,
    # UNSEEN and TURNING, as far as JSON can hold them.
    "pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]*$",
    "description": "Why it is changed: kept with the version.",
}

HEADER_PARAMETER = {
    "in": "header",
    "name": HEADER,
    "required": False,
    "description": f"Why it is changed: kept with the version. UTF-8, as it is or percent-encoded; at most"
    f" {MOST_CHARACTERS} characters.",
    "schema": {"type": "string"},
}


def check_reason(text: str) -> str:
    """Return a reason without blanks around it. Raises ``ValidationError`` for what a line of a list cannot show."""
    reason = text.strip()
    if len(reason) > MOST_CHARACTERS:
        raise ValidationError(
            f"The reason has {len(reason)} characters; {MOST_CHARACTERS} are allowed. Shorten it.",
            code="INVALID_REASON",
        )
    for character in reason:
        if unicodedata.category(character) in UNSEEN or unicodedata.bidirectional(character) in TURNING:
            message = f"The reason holds {name_of_character(character)}. Leave that out."
            raise ValidationError(message, code="INVALID_REASON")
    return reason


def read_header(request: HttpRequest) -> None:
    """Have what this request saves keep the reason that its header gives. Raises 400 for one that cannot be kept."""
    sent = request.headers.get(HEADER)
    if sent is None:
        return
    # As bytes they came; WSGI shows each as a character.
    octets = sent.encode("latin-1")
    if PERCENT_ENCODED.fullmatch(sent):
        octets = unquote_to_bytes(octets)
    try:
        origins.current().reason = check_reason(octets.decode())
    except UnicodeDecodeError as error:
        message = f"The header {HEADER} is not UTF-8. Send it in UTF-8, percent-encoded if need be."
        raise ApiError(400, "INVALID_REASON", message) from error


class ReasonField(forms.CharField):
    """A line on why it is changed; it may be left empty."""

    def __init__(self, **options: Any) -> None:
        # No limit in the field itself: browsers cut what is pasted without a word.
        shown = {
            "label": "Reason",
            "required": False,
            "help_text": "Why you change it, for the list of versions. May be left empty.",
            "widget": forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
        }
        super().__init__(**{**shown, **options})

    def has_changed(self, initial: Any, data: Any) -> bool:
        return False  # of what is saved, nothing is another with it

    def clean(self, value: Any) -> str:
        return check_reason(super().clean(value))
