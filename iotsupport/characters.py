"""Characters that are written in several ways, or look like nothing."""

from __future__ import annotations

import unicodedata


def name_of_character(character: str) -> str:
    """Name one character for a sentence: ``ZERO WIDTH SPACE (U+200B)``."""
    name = unicodedata.name(character, None)
    if name is None:
        name = "a control character" if unicodedata.category(character) == "Cc" else "a character without a name"
    return f"{name} (U+{ord(character):04X})"


def fold(text: str) -> str:
    """Return what searches compare: the same for letters of either case, and for all forms of one character.

    Databases fold in ways of their own: SQLite knows ASCII alone, PostgreSQL what its locale says.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
