"""What an asset may be called."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from django.core.exceptions import ValidationError

FILENAME_MAX_BYTES = 200

# What nobody sees, beside the format characters (Cf, such as U+202E, which turns the text after it around): the rest of
# Unicode's Default_Ignorable_Code_Point, and a blank that is none.
UNSEEN = [
    *[(0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065), (0x2800, 0x2800)],
    *[(0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF)],
]


def normalise_filename(filename: str) -> str:
    """Return a name in the one form that it has here: Unicode's composed one (NFC). macOS sends the other."""
    return unicodedata.normalize("NFC", filename)


def name_of_upload(filename: str) -> str:
    """Return what a file that arrives under this name is called here. Raises ``ValidationError``."""
    name = normalise_filename(filename)
    validate_filename(name)
    return name


def find_filename(filename: str, is_there: Callable[[str], bool]) -> str:
    """Return the name that is meant by one that somebody asks for, whatever its form.

    Raises ``ValidationError`` for one that no asset can have. One that is there as it is may have kept what no new name
    may have: see the migration that mended the others.
    """
    name = normalise_filename(filename)
    is_as_new = name == filename and filename_problem(name) is None
    if not is_as_new and _path_problem(filename) is None and is_there(filename):
        return filename
    validate_filename(name)
    return name


def validate_filename(filename: str) -> None:
    """Raise ``ValidationError`` for a name that no new file may have.

    That is one that cannot stand in a URL and a directory on every system, and one that looks like another, or ends
    otherwise than it seems to.
    """
    problem = filename_problem(filename)
    if problem:
        raise ValidationError(f"The file name {problem}. Rename the file, then try again.", code="INVALID_FILENAME")


def filename_problem(filename: str) -> str | None:
    """Return what is wrong with a new file's name, as in "The file name is empty", or None."""
    return _path_problem(filename) or _look_problem(filename)


def _look_problem(filename: str) -> str | None:
    if filename != filename.strip():
        return "begins or ends with a blank"
    unseen = next((character for character in filename if is_unseen(character)), None)
    if unseen is None:
        return None
    name = unicodedata.name(unseen, "")
    return f"holds a character that nobody sees, U+{ord(unseen):04X}{f' ({name})' if name else ''}"


def is_unseen(character: str) -> bool:
    """Whether it changes how other characters look, or nothing that can be seen."""
    return unicodedata.category(character) == "Cf" or any(first <= ord(character) <= last for first, last in UNSEEN)


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
