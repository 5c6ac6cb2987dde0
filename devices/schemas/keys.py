"""The keys that a schema knows, for people who write a configuration: what each is for, and a value to begin with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from devices import documents
from devices.documents import Node
from devices.schemas.errors import path_in_words

# Objects within objects, and keys in all: a panel of more helps nobody.
MOST_LEVELS = 4
MOST_KEYS = 200

# References that lead to references.
MOST_STEPS = 10

# What a value begins with where the schema names none.
BEGINNINGS = {"string": '""', "number": "0", "integer": "0", "boolean": "false", "array": "[]", "object": "{}"}


@dataclass(frozen=True)
class Key:
    """One key that a schema names, and what of it a text has."""

    path: tuple[str, ...]
    title: str
    description: str
    default: str
    """As the schema has it; empty where it has none."""
    source: str
    """What is inserted: the default, or a value to begin with."""
    is_required: bool
    is_present: bool
    is_open: bool
    """Whether it can be inserted: nothing else than objects stands on the way there."""

    @property
    def name(self) -> str:
        return path_in_words(self.path)

    @property
    def value(self) -> str:
        """What its button sends."""
        return json.dumps(self.path)


def keys_of(schema: str, text: str | None) -> list[Key]:
    """Return the keys of a schema in its order, those of inner objects behind their own.

    ``text`` is one that :func:`devices.parsing.parse_config` takes; None where it is not known what is there.
    """
    keys = _Keys(schema, None if text is None else (text, documents.locate(text)))
    found = []
    for key in keys.of(keys.root, ()):
        found.append(key)
        if len(found) == MOST_KEYS:
            break
    return found


class _Keys:
    def __init__(self, schema: str, document: tuple[str, Node] | None) -> None:
        self._schema = schema
        self.root = documents.locate(schema)
        self._document = document

    def of(self, node: Node, path: tuple[str, ...]) -> Iterator[Key]:
        node = self._resolved(node)
        properties = _member(node, "properties")
        if properties is None or len(path) == MOST_LEVELS:
            return
        required = self._parsed(_member(node, "required")) or []
        for name, member in (properties.members or {}).items():
            inner = (*path, name)
            yield self._key(member.value, inner, is_required=name in required)
            yield from self.of(member.value, inner)

    def _key(self, node: Node, path: tuple[str, ...], *, is_required: bool) -> Key:
        is_present, is_open = self._found(path)
        default = self._found_in(node, "default")
        return Key(
            path,
            title=self._words(node, "title"),
            description=self._words(node, "description"),
            default="" if default is None else self._source(default),
            source=self._beginning(node, MOST_LEVELS),
            is_required=is_required,
            is_present=is_present,
            is_open=is_open,
        )

    def _found(self, path: tuple[str, ...]) -> tuple[bool, bool]:
        """Whether the text has it, and whether it could be inserted."""
        if self._document is None:
            return False, True
        node = self._document[1]
        for step in path:
            if node.members is None:
                return False, False
            if step not in node.members:
                return False, True
            node = node.members[step].value
        return True, False

    def _beginning(self, node: Node, levels: int) -> str:
        """A value that the schema may take: its default, or the least that there is."""
        for keyword in ["default", "const"]:
            if (named := self._found_in(node, keyword)) is not None:
                return self._source(named)
        node = self._resolved(node)
        choices = _member(node, "enum")
        if choices is not None and choices.items:
            return self._source(choices.items[0])
        kind = self._kind(node)
        if kind in {"number", "integer"} and (least := _member(node, "minimum")) is not None:
            return self._source(least)
        if kind == "object" and levels:
            return self._required_of(node, levels)
        return BEGINNINGS.get(kind, "null")

    def _required_of(self, node: Node, levels: int) -> str:
        properties = _member(node, "properties")
        named = (properties.members if properties else None) or {}
        required = [name for name in self._parsed(_member(node, "required")) or [] if name in named]
        members = [
            f"{json.dumps(name, ensure_ascii=False)}: {self._beginning(named[name].value, levels - 1)}"
            for name in required
        ]
        return "{" + ", ".join(members) + "}"

    def _kind(self, node: Node) -> str:
        kind = self._parsed(_member(node, "type"))
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind is None and _member(node, "properties") is not None:
            return "object"
        return str(kind)

    def _words(self, node: Node, keyword: str) -> str:
        words = self._parsed(self._found_in(node, keyword))
        return words if isinstance(words, str) else ""

    def _found_in(self, node: Node, keyword: str) -> Node | None:
        """What stands beside a reference goes before what it leads to."""
        return _member(node, keyword) or _member(self._resolved(node), keyword)

    def _resolved(self, node: Node) -> Node:
        """Follow references to places within the schema: ``#/$defs/pin``."""
        for _ in range(MOST_STEPS):
            reference = self._parsed(_member(node, "$ref"))
            if not isinstance(reference, str) or not reference.startswith("#/"):
                break
            steps = [step.replace("~1", "/").replace("~0", "~") for step in reference[2:].split("/")]
            found = documents.find(self.root, steps)
            if found is None:
                break
            node = found
        return node

    def _source(self, node: Node) -> str:
        return self._schema[node.start : node.end]

    def _parsed(self, node: Node | None) -> Any:
        return None if node is None else json.loads(self._source(node))


def _member(node: Node, name: str) -> Node | None:
    member = (node.members or {}).get(name)
    return None if member is None else member.value
