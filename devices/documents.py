"""Where each value of a configuration stands in its text: what is changed in place is found by that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BLANKS = re.compile(r"[ \t\n\r]*+")
STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
# A number, or one of the three literals: what was parsed before has no other.
WORD = re.compile(r"[^ \t\n\r,\]}]++")


@dataclass(slots=True, eq=False)
class Node:
    """One value: ``text[start:end]`` is its source. It has members where it is an object, items where an array."""

    start: int
    end: int = 0
    members: dict[str, Member] | None = None
    items: list[Node] | None = None


@dataclass(slots=True, eq=False)
class Member:
    """A key of an object, in quotes at ``text[start:end]``, and its value."""

    start: int
    end: int
    value: Node


def locate(text: str) -> Node:
    """Return where everything stands in a text that :func:`devices.parsing.parse_config` takes."""
    return _value(text, _skip(text, 0))


def find(node: Node, path: Sequence[str | int]) -> Node | None:
    """Return what stands at the end of a path of keys and indexes; None where it leads nowhere."""
    for step in path:
        if isinstance(step, int):
            if node.items is None or not 0 <= step < len(node.items):
                return None
            node = node.items[step]
        else:
            if node.members is None or step not in node.members:
                return None
            node = node.members[step].value
    return node


def walk(node: Node) -> Iterator[Node]:
    """Yield the value and all within it, in the order of the text."""
    yield node
    for member in (node.members or {}).values():
        yield from walk(member.value)
    for item in node.items or []:
        yield from walk(item)


def _skip(text: str, position: int) -> int:
    blanks = BLANKS.match(text, position)
    return blanks.end() if blanks else position


def _value(text: str, start: int) -> Node:
    node = Node(start)
    if text[start] == "{":
        _read_members(text, node)
    elif text[start] == "[":
        _read_items(text, node)
    else:
        node.end = _end(STRING if text[start] == '"' else WORD, text, start)
    return node


def _read_members(text: str, node: Node) -> None:
    node.members = {}
    position = _skip(text, node.start + 1)
    while text[position] != "}":
        start = _skip(text, position + 1) if text[position] == "," else position
        end = _end(STRING, text, start)
        colon = _skip(text, end)
        value = _value(text, _skip(text, colon + 1))
        source = text[start:end]
        node.members[json.loads(source) if "\\" in source else source[1:-1]] = Member(start, end, value)
        position = _skip(text, value.end)
    node.end = position + 1


def _read_items(text: str, node: Node) -> None:
    node.items = []
    position = _skip(text, node.start + 1)
    while text[position] != "]":
        item = _value(text, _skip(text, position + 1) if text[position] == "," else position)
        node.items.append(item)
        position = _skip(text, item.end)
    node.end = position + 1


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    if found is None:
        raise ValueError(f"No JSON stands at {start}: the text was to be parsed before.")
    return found.end()
