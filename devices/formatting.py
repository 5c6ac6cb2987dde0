"""The indentation of a configuration: written anew, and nothing else of its text."""

from __future__ import annotations

import re

from devices.documents import Node, locate
from devices.line_ends import has_crlf
from devices.parsing import check_size, parse_config

INDENTATION = "  "

# How the first member stands where it has a line of its own.
FIRST_LINE = re.compile(r"[ \t\r\n]*\{[ \t]*\r?\n(?:[ \t]*\r?\n)*(?P<indentation>\t+|[ ]+)(?=\")")

# An object or array that has one line stays there up to this width.
WIDTH = 100


def format_text(text: str) -> str:
    """Return the text with each member and item in a line of its own, indented as its first member is.

    What has one line and is short stays in it, but for the outermost object. All tokens stay as they are, in their
    order. Raises ``InvalidConfig`` for what is no configuration, and for what would be too large.
    """
    parse_config(text)
    first = FIRST_LINE.match(text)
    document = _Document(text, first["indentation"] if first else INDENTATION)
    formatted = document.in_lines(locate(text), 0) + "\n"
    if has_crlf(text):
        formatted = formatted.replace("\n", "\r\n")
    check_size(formatted)
    return formatted


class _Document:
    def __init__(self, text: str, indentation: str) -> None:
        self._text = text
        self._indentation = indentation

    def in_lines(self, node: Node, level: int) -> str:
        """Write an object or array, each part of it in a line of its own; it is within ``level`` others."""
        parts = self._parts(node)
        if not parts:
            return self._in_line(node)
        begin = "\n" + self._indentation * (level + 1)
        width = WIDTH - len(self._indentation.expandtabs(4)) * (level + 1)
        lines = [begin + key + self._part(value, level + 1, width - len(key)) for key, value in parts]
        opening, closing = self._brackets(node)
        return f"{opening}{','.join(lines)}\n{self._indentation * level}{closing}"

    def _part(self, node: Node, level: int, width: int) -> str:
        in_line = self._in_line(node)
        is_scalar = node.members is None and node.items is None
        if is_scalar or (len(in_line) <= width and "\n" not in self._text[node.start : node.end]):
            return in_line
        return self.in_lines(node, level)

    def _in_line(self, node: Node) -> str:
        if node.members is None and node.items is None:
            return self._text[node.start : node.end]
        opening, closing = self._brackets(node)
        return opening + ", ".join(key + self._in_line(value) for key, value in self._parts(node)) + closing

    def _parts(self, node: Node) -> list[tuple[str, Node]]:
        """The members, each with its key and colon ahead, or the items."""
        if node.members is not None:
            return [(f"{self._text[each.start : each.end]}: ", each.value) for each in node.members.values()]
        return [("", item) for item in node.items or []]

    def _brackets(self, node: Node) -> tuple[str, str]:
        return ("{", "}") if node.members is not None else ("[", "]")
