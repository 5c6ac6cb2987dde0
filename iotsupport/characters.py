"""Characters that look like others, or like nothing."""

from __future__ import annotations

import unicodedata


def name_of_character(character: str) -> str:
    """Name one character for a sentence: ``ZERO WIDTH SPACE (U+200B)``."""
    name = unicodedata.name(character, None)
    if name is None:
        name = "a control character" if unicodedata.category(character) == "Cc" else "a character without a name"
    return f"{name} (U+{ord(character):04X})"
