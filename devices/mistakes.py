"""What is wrong with text that is nearly JSON: where, what stands there, and what to write instead.

:mod:`json` says what it expects, not what it has met, and not the same in every version of Python. So it only decides
whether text is JSON; if it is not, this walks through the text by the grammar of RFC 8259, and says why.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from iotsupport.characters import name_of_character

WHITE_SPACE = " \t\n\r"
BLANKS = re.compile(f"[{WHITE_SPACE}]*+")

# All of JSON's tokens, and NaN and Infinity, which json takes.
STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"')
NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|Infinity)|NaN")
SIGNS = "{}[],:"
# A string up to where it goes wrong, if it does.
BEGUN_STRING = re.compile(STRING.pattern.removesuffix('"'))

# What people write for them: longer, so that it is named as a whole.
WORD = re.compile(r"[^\W\d][\w$-]*+|\$[\w$-]*+")
NUMERAL = re.compile(r"[-+.]*+[0-9][\w.+-]*+")
COMMENT = re.compile(r"//|/\*|#|<!--")

LITERALS = {"true", "false", "null"}
WRITTEN = {word: word for word in LITERALS} | {
    "none": "null",
    "nil": "null",
    "undefined": "null",
    "yes": "true",
    "on": "true",
    "no": "false",
    "off": "false",
}

SINGLE_QUOTES = "'`\N{ACUTE ACCENT}"
TYPOGRAPHIC_QUOTES = (
    "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE LOW-9 QUOTATION MARK}"
    "\N{DOUBLE HIGH-REVERSED-9 QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"
    "\N{SINGLE LOW-9 QUOTATION MARK}\N{SINGLE HIGH-REVERSED-9 QUOTATION MARK}\N{PRIME}\N{DOUBLE PRIME}"
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
    "\N{LEFT CORNER BRACKET}\N{RIGHT CORNER BRACKET}"
)

QUOTES = SINGLE_QUOTES + TYPOGRAPHIC_QUOTES

A_VALUE = 'Write "text", a number, true, false, null, {…} or […].'
CLOSING = {"{": "}", "[": "]"}

# Longer ones are not repeated in a sentence.
SHOWN_CHARS = 40


class Mistake(NamedTuple):
    """A place in the text, counted from 0, and a sentence that begins with a small letter."""

    position: int
    sentence: str


def find_mistake(text: str) -> Mistake | None:
    """Return the first mistake of text that should be one JSON value; None for JSON, in json's wide sense."""
    return _Walk(text).find()


def strange_sign(text: str, position: int) -> Mistake | None:
    """Return what stands at a place where it cannot be JSON, whatever is expected there; None for anything else."""
    character = text[position]
    if COMMENT.match(text, position):
        return Mistake(position, "a comment stands here, and JSON has none. Remove it.")
    if character in QUOTES:
        name = character if character == "'" else f"{character} (U+{ord(character):04X})"
        return Mistake(position, f'{name} is no quote in JSON. Write " at both ends of the text.')
    if character not in WHITE_SPACE and unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Zs"}:
        name = name_of_character(character)
        return Mistake(position, f"{name} stands here, though nothing is to be seen. Remove it, or write a blank.")
    meant = unicodedata.normalize("NFKC", character)
    if meant != character and meant in [*SIGNS, '"']:
        return Mistake(position, f"{name_of_character(character)} only looks like {meant} here. Write {meant} instead.")
    return None


class _Found(Exception):
    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake)
        self.mistake = mistake


class _Walk:
    """One pass through the text. ``_brackets`` are the places of those that are open."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._brackets: list[int] = []
        self._comma: int | None = None
        self._last_end = -1

    def find(self) -> Mistake | None:
        try:
            self._value()
            while self._brackets:
                self._member()
            self._skip_blanks()
            if self._position < len(self._text):
                self._look()
                self._fail("the object has ended before. Remove what follows it.")
        except _Found as found:
            return found.mistake
        return None

    def _member(self) -> None:
        """Take a comma, a member or a closing bracket of the innermost object or array."""
        is_object = self._text[self._brackets[-1]] == "{"
        sign = self._look()
        if sign in {"}", "]"}:
            self._close(sign)
            return
        is_first = self._last_end == self._brackets[-1] + 1
        if not is_first and self._comma is None:
            if sign != ",":
                self._fail(self._about_comma(sign))
            self._comma = self._position
            self._position += 1
            return
        if sign == ",":
            self._fail("a comma stands here, and nothing before it. Remove it.")
        comma, self._comma = self._comma, None
        if is_object:
            self._key(comma)
        self._value()

    def _close(self, sign: str) -> None:
        if sign != CLOSING[self._text[self._brackets[-1]]]:
            self._fail(f"{sign} closes nothing here: {self._open_bracket()}.")
        if self._comma is not None:
            last = "member" if sign == "}" else "value"
            raise _Found(Mistake(self._comma, f"no comma may stand behind the last {last}. Remove it."))
        self._brackets.pop()
        self._advance(self._position + 1)

    def _key(self, comma: int | None) -> None:
        if self._look() != '"':
            raise _Found(self._about_key(comma))
        self._string()
        sign = self._look()
        if sign in {"=", ";"}:
            self._fail(f"{sign} stands here instead of a colon. Write : between the key and its value.")
        if sign != ":":
            self._fail("a colon is missing here, between the key and its value.")
        self._position += 1

    def _value(self) -> None:
        """Take a value, or the bracket with which it begins."""
        sign = self._look()
        if sign in {"{", "["}:
            self._brackets.append(self._position)
            self._advance(self._position + 1)
        elif sign == '"':
            self._string()
        elif numeral := NUMERAL.match(self._text, self._position):
            if not NUMBER.fullmatch(numeral[0]):
                self._fail(_about_number(numeral[0]))
            self._advance(numeral.end())
        elif number := NUMBER.match(self._text, self._position):
            self._word_ends(number)
        elif word := WORD.match(self._text, self._position):
            if word[0] not in LITERALS:
                self._fail(_about_word(word[0]))
            self._advance(word.end())
        elif sign in {*SIGNS, ""}:
            self._fail(f"a value is missing here. {A_VALUE}")
        else:
            self._fail(f"{_shown(sign)} stands here, where a value is missing. {A_VALUE}")

    def _word_ends(self, number: re.Match[str]) -> None:
        """Take ``NaN`` or ``Infinity``, but not ``NaNs``."""
        word = WORD.match(self._text, number.end() - 1)
        if word and word.end() > number.end():
            self._fail(_about_word(self._text[number.start() : word.end()]))
        self._advance(number.end())

    def _string(self) -> None:
        string = STRING.match(self._text, self._position)
        if string is None:
            raise _Found(_about_string(self._text, self._position))
        self._advance(string.end())

    def _about_comma(self, sign: str) -> str:
        """Say what is wrong where a comma or a closing bracket is missing."""
        if sign == ";":
            return "; stands here instead of a comma. Write ,"
        if sign == ":":
            return "a colon stands here, but no key before it. Keys stand in {…}, and in double quotes."
        is_behind_text = self._last_end == self._position and self._text[self._position - 1] == '"'
        if is_behind_text and WORD.match(self._text, self._position):
            return r"the text ends before this. Write a quote inside of text as \", or add the comma that is missing."
        return "a comma or a closing bracket is missing here."

    def _about_key(self, comma: int | None) -> Mistake:
        """Say what is wrong where a key is missing."""
        if comma is not None and re.compile("[0-9],[0-9]").match(self._text, comma - 1):
            return Mistake(comma, "a comma stands between digits. Write the point of a number as .")
        if bare := WORD.match(self._text, self._position) or NUMERAL.match(self._text, self._position):
            key = shortened(bare[0])
            return Mistake(self._position, f'the key {key} stands here without quotes. Write "{key}".')
        return Mistake(self._position, 'a key in "double quotes" is missing here.')

    def _open_bracket(self) -> str:
        """Say which bracket is still open, and how it is closed."""
        place = self._brackets[-1]
        opening = self._text[place]
        line, column = line_and_column(self._text, place)
        return f"the {opening} in line {line}, column {column}, is still open. Add {CLOSING[opening]}"

    def _look(self) -> str:
        """Go to the next token, and return its first sign; empty at the end. Fails for what is never one."""
        self._skip_blanks()
        if self._position == len(self._text):
            if self._brackets:
                self._fail(f"everything ends here, but {self._open_bracket()}.")
            return ""
        if strange := strange_sign(self._text, self._position):
            raise _Found(strange)
        return self._text[self._position]

    def _skip_blanks(self) -> None:
        blanks = BLANKS.match(self._text, self._position)
        self._position = blanks.end() if blanks else self._position

    def _advance(self, position: int) -> None:
        self._position = self._last_end = position

    def _fail(self, sentence: str) -> None:
        raise _Found(Mistake(self._position, sentence))


def _about_string(text: str, start: int) -> Mistake:
    """Say why no string can be read here."""
    begun = BEGUN_STRING.match(text, start)
    end = begun.end() if begun else start
    character, escaped = text[end : end + 1], text[end + 1 : end + 2]
    if not character or (character == "\\" and not escaped):
        return Mistake(start, "this text is never closed. Add the double quote at its end.")
    if character in "\r\n":
        _, column = line_and_column(text, start)
        sentence = (
            f"the line ends here, and the text that begins in column {column} is not closed."
            r" Add the double quote, or write a line break inside of text as \n."
        )
    elif character == "\t":
        sentence = r"a tab stands in this text. Write it as \t."
    elif character != "\\":
        sentence = f"{name_of_character(character)} stands in this text. Remove it, or write \\u{ord(character):04x}."
    elif escaped == "u":
        sentence = r"four hexadecimal digits must follow \u. Write a backslash itself as \\."
    else:
        sentence = rf"the escape \{_shown(escaped)} is unknown to JSON. Write a backslash itself as \\."
    return Mistake(end, sentence)


def _about_word(word: str) -> str:
    shown = shortened(word)
    if written := WRITTEN.get(word.lower()):
        return f'{shown} is written {written} in JSON, or "{shown}" where it is text.'
    return f'{shown} stands here without quotes. Write "{shown}", or true, false, null or a number.'


def _about_number(numeral: str) -> str:
    shown = shortened(numeral)
    written, why = _as_number(numeral)
    if not NUMBER.fullmatch(written):
        return f"{shown} is no number. Write one such as 1.5, or text in double quotes."
    return f"{shown} is no number in JSON: {why}. Write {written}."


def _as_number(numeral: str) -> tuple[str, str]:
    """Write what other languages take for a number as JSON does, and say what is different."""
    sign = "-" if numeral.startswith("-") else ""
    digits = numeral.removeprefix("-")
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|0[oO][0-7]{1,20}|0[bB][01]{1,64}", digits):
        return f"{sign}{int(digits, 0)}", "it has decimal ones only"
    if digits.startswith("+"):
        return f"{sign}{digits[1:]}", "none begins with +"
    if "_" in digits:
        return f"{sign}{digits.replace('_', '')}", "no _ stands between digits"
    if digits.startswith("."):
        return f"{sign}0{digits}", "a digit must stand before the point"
    if re.search(r"\.(?![0-9])", digits):
        return f"{sign}{re.sub(r'[.](?![0-9])', '.0', digits, count=1)}", "a digit must stand behind the point"
    return f"{sign}{digits.lstrip('0')}", "none begins with 0 and another digit"


def line_and_column(text: str, position: int) -> tuple[int, int]:
    """Count both from 1, in characters."""
    before = text[:position]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def shortened(source: str) -> str:
    """Show at most :data:`SHOWN_CHARS` of a source, and nothing that a terminal would obey."""
    shown = source if len(source) <= SHOWN_CHARS else f"{source[:30]}…{source[-9:]}"
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in shown)


def _shown(character: str) -> str:
    return character if "!" <= character <= "~" else name_of_character(character)
