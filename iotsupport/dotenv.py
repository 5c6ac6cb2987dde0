"""The file ``.env``: one ``NAME=value`` on a line. A value is what stands there, and nothing in it means anything else.

Whatever is wrong with a line is told by its number alone: any line may hold a password, also one that cannot be read.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import NamedTuple

from iotsupport import access

# Where a name ends, a blank on either side of "=" is no part of name or value.
ASSIGNMENT = re.compile(r"(?:export[ \t]+)?([A-Za-z0-9_]+)([ \t]*)=([ \t]*)(.*)", re.DOTALL)
LINE_END = re.compile(rb"\r\n|\n|\r")
# As in a shell: in double quotes these stand for the character, and any other backslash for itself.
ESCAPED = re.compile(r'\\(["\\$`])')
QUOTED_AND_COMMENT = re.compile(r"""((['"]).*\2)[ \t]+#.*""", re.DOTALL)

BLANKS = " \t"


class Trouble(NamedTuple):
    """Something about the file that a person should know. Never holds a value."""

    sentence: str
    hint: str
    is_taken: bool = False
    """Whether what it tells of was taken all the same."""


class Dotenv(NamedTuple):
    values: dict[str, str]
    troubles: list[Trouble]


class _NotTaken(Exception):
    """A line cannot be taken: ``reason`` completes "it …", ``hint`` is a sentence."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


def read(path: Path) -> Dotenv:
    """Read the file, as far as that can be done. A missing one is an empty one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Dotenv({}, [])
    except OSError as error:
        hint = "Give it to the user that runs the server, or make a file of it; until then, nothing of it is taken."
        return Dotenv({}, [Trouble(f"'{path}' cannot be read{access.describe(error)}", hint)])
    content, encoding = _as_utf_8(content)
    values, troubles = _parse(content, path)
    if encoding:
        sentence = f"'{path}' is text in {encoding}. It is read, but most other programs cannot."
        troubles.insert(0, Trouble(sentence, "Save it as UTF-8.", is_taken=True))
    return Dotenv(values, troubles)


def _as_utf_8(content: bytes) -> tuple[bytes, str]:
    """Return the content in UTF-8 without a byte order mark, and the name of its encoding where that is another."""
    if content.startswith(codecs.BOM_UTF8):
        return content.removeprefix(codecs.BOM_UTF8), ""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        codec = "utf-16"
    elif b"\0" in content[:2]:  # without a mark: every other byte of what is ASCII is zero
        codec = "utf-16-be" if content.startswith(b"\0") else "utf-16-le"
    else:
        return content, ""
    try:
        return content.decode(codec).encode(), "UTF-16"
    except UnicodeError:
        return content, ""


def _parse(content: bytes, path: Path) -> Dotenv:
    values: dict[str, str] = {}
    troubles: list[Trouble] = []
    line_of: dict[str, int] = {}
    for number, raw in enumerate(LINE_END.split(content), start=1):
        where = f"Line {number} of '{path}'"
        try:
            found = _parse_line(raw)
        except _NotTaken as error:
            troubles.append(Trouble(f"{where} is not taken: it {error.reason}.", error.hint))
            continue
        if found is None:
            continue
        name, value, remark = found
        if name in line_of:
            sentence = f"Line {line_of[name]} of '{path}' is not taken: its variable stands again in line {number}."
            troubles.append(Trouble(sentence, "Remove one of the two lines.", is_taken=True))
        if remark:
            troubles.append(Trouble(f"{where} {remark[0]}", remark[1], is_taken=True))
        values[name], line_of[name] = value, number
    return Dotenv(values, troubles)


def _parse_line(raw: bytes) -> tuple[str, str, tuple[str, str] | None] | None:
    """Return name, value and what is to be remarked; None for an empty line or a comment."""
    try:
        line = raw.decode().strip(BLANKS)
    except UnicodeDecodeError as error:
        raise _NotTaken("is not text in UTF-8", "Save the file as UTF-8.") from error
    if not line or line.startswith("#"):
        return None
    if "\0" in line:
        raise _NotTaken("holds a null character", "Remove it: no variable can hold one.")
    match = ASSIGNMENT.fullmatch(line)
    if match is None:
        hint = "Write NAME=value on a line of its own, or begin the line with # to make it a comment."
        raise _NotTaken("is not NAME=value", hint)
    name, before, after, text = match.groups()
    remark = None
    if before or after:
        remark = (
            "has a blank beside its '='. It is taken without, but a shell and systemd would not take it.",
            "Write NAME=value. A value that begins or ends with a blank stands in quotes.",
        )
    elif " #" in text and text[0] not in "'\"":
        remark = (
            "holds ' #', and what follows is taken as part of the value.",
            "Put a comment on a line of its own, or quotes around the value.",
        )
    return name, _unquote(text), remark


def _unquote(text: str) -> str:
    if text[:1] not in {"'", '"'}:
        return text
    if text[-1] != text[0] and (commented := QUOTED_AND_COMMENT.fullmatch(text)):
        text = commented[1]
    if len(text) < 2 or text[-1] != text[0]:
        hint = "Close it; or put the other kind of quotation mark around the whole value, if it is part of the value."
        raise _NotTaken("begins with a quotation mark that is not closed", hint)
    return ESCAPED.sub(r"\1", text[1:-1]) if text[0] == '"' else text[1:-1]
