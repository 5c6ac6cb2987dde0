"""What an asset may be called."""

from __future__ import annotations

import unicodedata

from django.core.exceptions import ValidationError

FILENAME_MAX_BYTES = 200


def validate_filename(filename: str) -> None:
    """Raise ``ValidationError`` for a name that cannot stand in a URL and a directory on every system."""
    problem = filename_problem(filename)
    if problem:
        raise ValidationError(f"The file name {problem}. Rename the file, then try again.", code="INVALID_FILENAME")


def filename_problem(filename: str) -> str | None:
    if not filename:
        return "is empty"
    if filename.startswith("."):
        return "starts with a dot"
    if "/" in filename or "\\" in filename:
        return "holds a slash or a backslash"
    if ".." in filename:
        return "holds two dots in a row"
    # Cs: lone surrogates, which have no UTF-8 form. Zl, Zp: line and paragraph separators, which break lists of names.
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in filename):
        return "holds a control character"
    if len(filename.encode()) > FILENAME_MAX_BYTES:
        return f"is longer than {FILENAME_MAX_BYTES} bytes"
    return None
