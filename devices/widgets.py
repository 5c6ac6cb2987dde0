"""The field in which a configuration is typed: an editor, and above it the lines in which something is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django_ace import AceWidget

# What is wrong begins there: a text, a word, a number, else one character.
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\w.+-]+|.', re.DOTALL)

# Of a line, so many characters before and behind it.
SHOWN_CHARS = 60


class MarkedLine(NamedTuple):
    """A line in which something is wrong, counted from 1 as its column is; ``mark`` is what stands there."""

    line: int
    column: int
    sentence: str
    before: str
    mark: str
    after: str


def marked_lines(errors: Iterable[ValidationError], text: str) -> list[MarkedLine]:
    """Return the lines of a text that errors name; each says its place, or has ``errors`` that do."""
    lines = text.replace("\r\n", "\n").split("\n")
    places = [place for error in errors for place in getattr(error, "errors", [error])]
    return [
        _marked(lines[place.line - 1], place, place.sentence if len(places) > 1 else "")
        for place in places
        if getattr(place, "line", None) is not None and place.line <= len(lines)
    ]


def _marked(line: str, place: Any, sentence: str) -> MarkedLine:
    start = place.column - 1
    token = TOKEN.match(line, start)
    end = token.end() if token else start
    before, after = line[:start], line[end:]
    return MarkedLine(
        place.line,
        place.column,
        sentence,
        before if len(before) <= SHOWN_CHARS else f"…{before[-SHOWN_CHARS:]}",
        line[start:end][:SHOWN_CHARS],
        after if len(after) <= SHOWN_CHARS else f"{after[:SHOWN_CHARS]}…",
    )


class ConfigEditor(AceWidget):
    """Sizes come from a style sheet: the content security policy takes no inline style."""

    marked: list[MarkedLine]

    def __init__(self) -> None:
        super().__init__(
            mode="json", width=None, height=None, tabsize=2, toolbar=False, showprintmargin=False, useStrictCSP=True
        )
        self.marked = []

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        editor = super().render(name, value, attrs, renderer)
        context = {"marked": self.marked, "id": (attrs or {}).get("id")}
        return SafeString(render_to_string("devices/marked_lines.html", context) + editor)
