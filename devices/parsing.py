"""The one parser for configuration text: every way in uses it.

It is stricter than :mod:`json`, which takes ``NaN``, duplicate keys, numbers that overflow and half characters without
a word, and answers deep nesting with ``RecursionError``. What it refuses, it refuses with the place and the remedy.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError

from devices.mistakes import (
    QUOTES,
    WHITE_SPACE,
    Mistake,
    find_mistake,
    line_and_column,
    shortened,
    strange_sign,
)

# Of objects and arrays; the outermost object is level 1.
MAX_LEVELS = 100

# What of JSON has to be looked at. Possessive: text made of quotes and backslashes must not cost any backtracking.
TOKEN = re.compile(
    r"""
      (?P<string> " (?: [^"\\]++ | \\. )*+ "? ) (?P<key> [ \t\n\r]*+ : )?
    | (?P<opening> [\[{] )
    | (?P<closing> [\]}] )
    | (?P<number> -? (?: [0-9][0-9.eE+-]*+ | Infinity ) | NaN )
    """,
    re.VERBOSE | re.DOTALL,
)

MEMBER = re.compile(
    r'[ \t\n\r]*+ ,? [ \t\n\r]*+ (?P<name> " (?: [^"\\]++ | \\. )*+ " ) [ \t\n\r]*+ : [ \t\n\r]*+',
    re.VERBOSE | re.DOTALL,
)

# A pair of escapes is one character, so pairs and all other escapes are stepped over.
ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(?P<lone>u[dD][89a-fA-F]..)|.)")

SURROGATE = re.compile("[\ud800-\udfff]")


class InvalidConfig(ValidationError):
    """Text that no device could read. The message is a sentence: where, what, and what to do.

    ``line`` and ``column`` count characters from 1; None where the whole text is meant. ``code`` is a constant.
    """

    def __init__(self, message: str, code: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message, code=code)
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return str(self.message)


# How compressed files begin.
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "ZIP",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}


def decode_config(data: bytes) -> str:
    """Return the text of UTF-8 bytes without a byte order mark. Raises :class:`InvalidConfig`."""
    if packed := next((name for begin, name in COMPRESSED.items() if data.startswith(begin)), None):
        raise InvalidConfig(f"This is compressed ({packed}), not text. Unpack it first.", "COMPRESSED")
    if data.startswith(codecs.BOM_UTF8):
        raise _byte_order_mark()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        sentence = f"the byte 0x{data[error.start]:02x} is not UTF-8. Save the file with the encoding UTF-8."
        raise _refusal(data[: error.start].decode(), error.start, "NOT_UTF8", sentence) from error


def parse_config(text: str) -> dict[str, Any]:
    """Return what the text of one configuration says. All numbers come out as floats.

    Raises :class:`InvalidConfig` for anything but one JSON object that every device can read (RFC 8259, I-JSON's
    unique names and whole characters, at most ``MAX_LEVELS`` levels, ``CONFIG_MAX_BYTES`` bytes).
    """
    check_size(text)
    return _parse(text, MAX_LEVELS)


def parse_object(text: str) -> dict[str, Any]:
    """Return what a text says, as :func:`parse_config` does; the caller bounds its size."""
    return _parse(text, MAX_LEVELS)


class Member(NamedTuple):
    """Of a JSON object: the text that stands there, and what it says, as :func:`parse_config` has it."""

    source: str
    value: Any


def parse_members(text: str) -> dict[str, Member]:
    """Return the members of one JSON object.

    The object may be one level deeper than a configuration, which it may hold. The caller bounds the size.
    Raises :class:`InvalidConfig` as :func:`parse_config` does.
    """
    _parse(text, MAX_LEVELS + 1)
    decoder = json.JSONDecoder(parse_int=float)
    members = {}
    position = text.index("{") + 1
    while member := MEMBER.match(text, position):
        value, position = decoder.raw_decode(text, member.end())
        members[json.loads(member["name"])] = Member(text[member.end() : position], value)
    return members


def _parse(text: str, levels: int) -> dict[str, Any]:
    _check_characters(text)
    _check_start(text)
    _check_levels(text, levels)
    try:
        # As floats, since Python refuses integers of more than 4300 digits.
        parsed: dict[str, Any] = json.loads(text, parse_int=float)
    except json.JSONDecodeError as error:
        mistake = find_mistake(text) or Mistake(error.pos, "this is not JSON. Write it anew from here.")
        raise _refusal(text, mistake.position, "INVALID_JSON", mistake.sentence) from error
    _check_tokens(text)
    return parsed


def check_size(text: str) -> None:
    """Raise :class:`InvalidConfig` for more than ``CONFIG_MAX_BYTES``."""
    size = len(text.encode(errors="surrogatepass"))
    if size > settings.CONFIG_MAX_BYTES:
        message = (
            f"The configuration has {size} bytes; {settings.CONFIG_MAX_BYTES} are allowed."
            " Shorten it, or raise CONFIG_MAX_BYTES on the server."
        )
        raise InvalidConfig(message, "TOO_LARGE")


def _check_characters(text: str) -> None:
    if text.startswith("\ufeff"):
        raise _byte_order_mark()
    if half := SURROGATE.search(text):
        sentence = f"half a character (U+{ord(half[0]):04X}) stands here. Remove it, or write the whole character."
        raise _refusal(text, half.start(), "LONE_SURROGATE", sentence)


def _check_start(text: str) -> None:
    start = len(text) - len(text.lstrip(WHITE_SPACE))
    if start == len(text):
        raise _refusal(text, start, "EMPTY", "nothing is here. Write one JSON object; the smallest is {}.")
    if text[start] == "{":
        return
    if text[start] not in QUOTES and (strange := strange_sign(text, start)):
        raise _refusal(text, start, "INVALID_JSON", strange.sentence)
    raise _refusal(text, start, "NOT_AN_OBJECT", "write one JSON object, which begins with { and ends with }.")


def _check_levels(text: str, levels: int) -> None:
    level = 0
    for token in TOKEN.finditer(text):
        if token.lastgroup == "opening":
            level += 1
            if level > levels:
                sentence = f"brackets are nested more than {levels} deep. Make the object flatter."
                raise _refusal(text, token.start(), "TOO_DEEP", sentence)
        elif token.lastgroup == "closing":
            level -= 1


def _check_tokens(text: str) -> None:
    """Refuse what :mod:`json` lets through, in text of which it has found the syntax right."""
    names: list[set[str]] = []
    for token in TOKEN.finditer(text):
        if token.lastgroup == "opening":
            names.append(set())
        elif token.lastgroup == "closing":
            names.pop()
        elif token.lastgroup == "number":
            _check_number(text, token)
        else:
            _check_string(text, token)
            if token.lastgroup == "key":
                _check_name(text, token, names[-1])


def _check_number(text: str, token: re.Match[str]) -> None:
    number = float(token[0])
    if math.isfinite(number):
        return
    if token[0] in {"NaN", "Infinity", "-Infinity"}:
        sentence = f"{token[0]} is no number in JSON. Write a number, null, or text in double quotes."
        raise _refusal(text, token.start(), "NOT_A_NUMBER", sentence)
    sentence = f"the number {shortened(token[0])} is too large: it overflows to infinity. Write a smaller one."
    raise _refusal(text, token.start(), "NUMBER_OVERFLOW", sentence)


def _check_string(text: str, token: re.Match[str]) -> None:
    for escape in ESCAPE.finditer(token["string"]):
        if escape["lone"]:
            sentence = f"{escape[0]} is half a character. Write both of its halves, or the character itself."
            raise _refusal(text, token.start() + escape.start(), "LONE_SURROGATE", sentence)


def _check_name(text: str, token: re.Match[str], names: set[str]) -> None:
    source = token["string"]
    name = json.loads(source) if "\\" in source else source[1:-1]
    if name in names:
        sentence = f"the key {shortened(source)} is in this object already. Remove or rename one of the two."
        raise _refusal(text, token.start(), "DUPLICATE_KEY", sentence)
    names.add(name)


def _byte_order_mark() -> InvalidConfig:
    sentence = "the text begins with a byte order mark. Save it as UTF-8 without one."
    return _refusal("", 0, "BYTE_ORDER_MARK", sentence)


def _refusal(text: str, position: int, code: str, sentence: str) -> InvalidConfig:
    line, column = line_and_column(text, position)
    return InvalidConfig(f"Line {line}, column {column}: {sentence}", code, line, column)
