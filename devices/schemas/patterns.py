"""Patterns of schemas, matched in a time that is linear in the text.

Python's ``re`` tries one way after another, keeps all other threads waiting meanwhile, and cannot be stopped:
``^(a+)+$`` would take years for forty letters. The ``regex`` crate, which comes with pydantic-core, walks all ways at
once. It knows neither look-around nor references back, and spells some things in another way than ECMA 262, which JSON
Schema asks for: so each pattern is translated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

from devices.mistakes import shortened

PATTERN_MAX_CHARS = 1000
# About how many places of a pattern the engine may have to remember at once; and that, times the bytes of a text: so a
# match takes a tenth of a second at most.
MOST_PLACES = 2000
MOST_STEPS = 10_000_000

# How many places a class or a property takes, once it is spelled in bytes.
CLASS_PLACES, PROPERTY_PLACES = 10, 200

SPACES = r"\t\n\x0B\x0C\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}"
CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": SPACES}
CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}

TOKEN = re.compile(
    r"""
      (?P<look> \(\?<?[=!] )
    | (?P<group> \( (?: \?: | \?<[A-Za-z_$][\w$]*> | (?!\?) ) )
    | (?P<close> \) )
    | (?P<repeat> [*+?] | \{ [0-9]{1,9} (?: , [0-9]{0,9} )? \} )
    | (?P<either> \| )
    | (?P<edge> [\^$] | \\b )
    | (?P<backward> \\ (?: [1-9] | k ) )
    | (?P<set> \[ )
    | (?P<any> \. )
    | (?P<class> \\ [dDwWsS] )
    | (?P<property> \\ [pP] \{ [A-Za-z_]+ (?: = [A-Za-z_]+ )? \} )
    | (?P<pair> \\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2} )
    | (?P<hex> \\ (?: u[0-9a-fA-F]{4} | u\{[0-9a-fA-F]{1,6}\} | x[0-9a-fA-F]{2} ) )
    | (?P<control> \\ (?: c[A-Za-z] | [tnvfr] | 0(?![0-9]) ) )
    | (?P<escaped> \\ [^A-Za-z0-9] )
    | (?P<plain> [^\\(] )
    """,
    re.VERBOSE | re.DOTALL,
)
CHARACTERS = {"pair", "hex", "control", "escaped", "plain"}


class UnusablePattern(ValueError):
    """The message ends a sentence that begins with "The pattern …": what is wrong, and what to do."""


@dataclass(frozen=True)
class Pattern:
    """Says of a text whether the pattern is found in it."""

    places: int
    _validator: SchemaValidator

    def steps(self, text: str) -> int:
        """About how much work it is to look for it there: at most ``MOST_STEPS`` may be asked for."""
        return self.places * (len(text.encode(errors="surrogatepass")) + 1)

    def is_in(self, text: str) -> bool:
        return self._validator.isinstance_python(text)


@lru_cache(maxsize=1000)
def compile_pattern(source: str) -> Pattern:
    """Raises :class:`UnusablePattern`."""
    if len(source) > PATTERN_MAX_CHARS:
        raise UnusablePattern(f"has {len(source)} characters; {PATTERN_MAX_CHARS} are allowed. Shorten it.")
    translation = _Translation(source)
    translated = translation.read()
    if translation.places > MOST_PLACES:
        raise UnusablePattern("repeats too much. Write smaller numbers in its {…}, or use maxLength beside it.")
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=translated, regex_engine="rust-regex"))
    except SchemaError as error:
        raise UnusablePattern("cannot be read. Write it as ECMA 262 has it.") from error
    return Pattern(translation.places, validator)


class _Translation:
    """Reads a pattern as ECMA 262 has it (with the flag u), and writes it as the crate does."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self.places = 0

    def read(self) -> str:
        """Return it translated, and know its places."""
        written: list[str] = []
        # Of each open group, the places that were counted before it; last, those of what a repetition would repeat.
        open_groups: list[int] = []
        self._last: int | None = None
        while self._at < len(self._source):
            kind, token = self._take()
            match kind:
                case "group":
                    open_groups.append(self.places)
                    written.append("(?:")
                    self._last = None
                case "close":
                    if not open_groups:
                        raise UnusablePattern("has a ) that closes nothing. Write \\) for the sign itself.")
                    self._last = open_groups.pop()
                    written.append(")")
                case "repeat":
                    written.append(self._repeat(token))
                case "either":
                    written.append("|")
                    self._last = None
                case "edge":
                    written.append({"^": r"\A", "$": r"\z"}.get(token, r"(?-u:\b)"))
                    self._last = None
                case _:
                    before = self.places
                    written.append(self._atom(kind, token))
                    self._last = before
        if open_groups:
            raise UnusablePattern("has a ( that is never closed. Write \\( for the sign itself.")
        self.places += 1
        return "".join(written)

    def _take(self) -> tuple[str, str]:
        token = TOKEN.match(self._source, self._at)
        kind = token.lastgroup if token else None
        if token is None or kind is None:
            raise UnusablePattern(f"has {shortened(self._source[self._at : self._at + 3])}, which is unknown.")
        if kind == "look":
            raise UnusablePattern(
                f"looks around by {token[0]}…), which is not offered. Use allOf, not, or two patterns."
            )
        if kind == "backward":
            raise UnusablePattern(f"refers back by {token[0]}, which is not offered. Write out what may stand there.")
        self._at = token.end()
        return kind, token[0]

    def _repeat(self, token: str) -> str:
        if self._last is None:
            raise UnusablePattern(f"has {token} behind nothing that it could repeat. Write \\{token[0]} for the sign.")
        repeated, self._last = self.places - self._last, None
        if token[0] == "{":
            least, _, most = token[1:-1].partition(",")
            if most and int(most) < int(least):
                raise UnusablePattern(f"has {token}, whose numbers are the wrong way round.")
            self.places += repeated * (max(int(most or least), 1) - 1)
        if self.places > MOST_PLACES:
            raise UnusablePattern("repeats too much. Write smaller numbers in its {…}, or use maxLength beside it.")
        if self._source.startswith("?", self._at):  # as few as possible: which of them makes no difference here
            self._at += 1
        return token

    def _atom(self, kind: str, token: str) -> str:
        if kind == "set":
            return self._set()
        if kind == "any":
            self.places += CLASS_PLACES
            return r"[^\n\r\x{2028}\x{2029}]"
        if kind == "class":
            return f"[{self._class(token)}]"
        if kind == "property":
            self.places += PROPERTY_PLACES
            return token
        character = _character(kind, token)
        self.places += len(chr(character).encode(errors="surrogatepass"))
        return _spelled(character)

    def _class(self, token: str) -> str:
        """Return what stands inside of brackets for a class such as ``\\d``."""
        self.places += CLASS_PLACES if token[1] in "DWSs" else 1
        inside = CLASSES[token[1].lower()]
        return f"[^{inside}]" if token[1].isupper() else inside

    def _set(self) -> str:
        is_negated = self._source.startswith("^", self._at)
        self._at += is_negated
        written: list[str] = []
        self.places += CLASS_PLACES if is_negated else 1
        while not self._source.startswith("]", self._at):
            if self._at == len(self._source):
                raise UnusablePattern("has a [ that is never closed. Write \\[ for the sign itself.")
            written.append(self._in_set())
        self._at += 1
        if not written:
            return r"[\s\S]" if is_negated else r"[^\s\S]"
        return f"[{'^' if is_negated else ''}{''.join(written)}]"

    def _in_set(self) -> str:
        first = self._set_character()
        if isinstance(first, str):
            return first
        is_range = self._source.startswith("-", self._at) and not self._source.startswith("-]", self._at)
        if not is_range:
            return _spelled(first)
        self._at += 1
        last = self._set_character()
        if isinstance(last, str):
            return _spelled(first) + r"\-" + last
        if last < first:
            raise UnusablePattern("has a range in […] whose ends are the wrong way round.")
        return f"{_spelled(first)}-{_spelled(last)}"

    def _set_character(self) -> int | str:
        """Take one character, as its number; or a class, as it is written inside of brackets."""
        if self._source.startswith(r"\b", self._at):
            self._at += 2
            return 8
        token = TOKEN.match(self._source, self._at)
        kind = token.lastgroup if token else None
        if token is not None and kind in {"class", "property"}:
            self._at = token.end()
            if kind == "class":
                return self._class(token[0])
            self.places += PROPERTY_PLACES
            return token[0]
        if token is None or kind not in CHARACTERS:
            if self._source[self._at] == "\\":
                unknown = shortened(self._source[self._at : self._at + 2])
                raise UnusablePattern(f"has {unknown} in […], which is unknown.")
            kind, text = "plain", self._source[self._at]
        else:
            text = token[0]
        self._at += len(text)
        character = _character(kind, text)
        if character > 127:
            self.places += 8
        return character


def _character(kind: str, token: str) -> int:
    match kind:
        case "pair":
            return 0x10000 + ((int(token[2:6], 16) - 0xD800) << 10) + int(token[8:12], 16) - 0xDC00
        case "hex":
            character = int(token[2:].strip("{}"), 16)
            if character > 0x10FFFF or 0xD800 <= character < 0xE000:
                raise UnusablePattern(f"has {token}, which is no character.")
            return character
        case "control":
            return ord(token[2]) % 32 if token[1] == "c" else CONTROLS[token[1]]
        case "escaped":
            return ord(token[1])
    return ord(token)


def _spelled(character: int) -> str:
    sign = chr(character)
    return sign if sign.isascii() and sign.isalnum() else f"\\x{{{character:X}}}"
