"""What an asset may be called."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from django.core.exceptions import ValidationError

FILENAME_MAX_BYTES = 200


def normalise_filename(filename: str) -> str:
    """Return a name in the one form that it has here: Unicode's composed one (NFC). macOS sends the other."""
    return unicodedata.normalize("NFC", filename)


def find_filename(filename: str, is_there: Callable[[str], bool]) -> str:
    """Return the name that is meant by one that somebody asks for, whatever its form.

    Raises ``ValidationError`` for one that no asset can have. One that is there as it is has kept what names may not
    have any more, because another has its right name: see the migration that mended the others.
    """
    name = normalise_filename(filename)
    if name.strip() != filename and _path_problem(filename) is None and is_there(filename):
        return filename
    validate_filename(name)
    return name


def validate_filename(filename: str) -> None:
    """Raise ``ValidationError`` for a name that cannot stand in a URL and a directory on every system."""
    problem = filename_problem(filename)
    if problem:
        raise ValidationError(f"The file name {problem}. Rename the file, then try again.", code="INVALID_FILENAME")


def filename_problem(filename: str) -> str | None:
    problem = _path_problem(filename)
    if problem is None and filename != filename.strip():
        return "begins or ends with a blank"
    return problem


def _path_problem(filename: str) -> str | None:
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
