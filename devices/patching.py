"""Change a configuration's text in place: what is not to be changed keeps its bytes.

Whoever parses, changes and writes JSON anew loses how numbers were spelled, in which order keys stood, and how lines
were indented. Here the text is edited at the places that :mod:`devices.documents` finds. What is inserted is written
as it was typed in the patch, and takes line ends and indentation from what stands around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from devices.documents import STRING, Member, Node, locate
from devices.parsing import parse_config

LINE_END = re.compile(r"\r\n|\n|\r")
INDENTATION = re.compile(r"[ \t]*+")
# A comma with the white space on its left and right.
SEPARATOR = re.compile(r"(?P<left>[ \t\n\r]*+),(?P<right>[ \t\n\r]*+)")
# What opens and closes, and strings, in which brackets are none.
BRACKETS = re.compile(rf"{STRING.pattern}|[\[{{]|[\]}}]", re.DOTALL)
CLOSERS = re.compile(r"[\]} \t]*+")
# What stands before the value of a member that begins a line.
LINE_OF_MEMBER = re.compile(rf"[ \t]*+{STRING.pattern}[ \t]*+:[ \t]*+", re.DOTALL)
NULL = "null"
DEFAULT_STEP = "  "


class Patch:
    """A JSON merge patch (RFC 7396), as it was typed. Raises ``InvalidConfig`` for what is not one JSON object."""

    def __init__(self, source: str) -> None:
        parse_config(source)
        self.source = source
        self.root = locate(source)


def merge_patch(text: str, patch: Patch) -> str:
    """Return the text of a configuration with a patch applied.

    A member whose value is what the patch says stays as it is spelled; only numbers are compared as they are typed, so
    that 0.0 can be made 0.
    """
    editor = _Editor(text)
    editor.merge(editor.root, patch.source, patch.root)
    return editor.result()


def insert_member(text: str, path: Sequence[str | int], source: str) -> str:
    """Return the text with a value, written in JSON, at the end of a path; objects on the way are made.

    What is there already stays. Raises ``ValueError`` where the path leads through something else than an object.
    """
    editor = _Editor(text)
    node = editor.root
    for index, step in enumerate(path):
        if isinstance(step, int) and node.items is not None and 0 <= step < len(node.items):
            node = node.items[step]
        elif isinstance(step, str) and node.members is not None:
            if step not in node.members:
                for outer in reversed(path[index + 1 :]):
                    source = f"{{{json.dumps(outer, ensure_ascii=False)}: {source}}}"
                editor.change_members(node, set(), [(json.dumps(step, ensure_ascii=False), source)])
                break
            node = node.members[step].value
        else:
            raise ValueError(f"Nothing can be inserted at {path}.")
    return editor.result()


class _Editor:
    """Collects what is to be replaced in one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.root = locate(text)
        self._edits: list[tuple[int, int, str]] = []
        line_end = LINE_END.search(text)
        self._line_end = line_end[0] if line_end else "\n"

    def result(self) -> str:
        parts, position = [], 0
        for start, end, replacement in sorted(self._edits):
            parts += [self._text[position:start], replacement]
            position = end
        return "".join([*parts, self._text[position:]])

    def merge(self, node: Node, source: str, patch: Node) -> None:
        """Merge an object of a patch, whose text is ``source``, into an object of this text."""
        members = node.members or {}
        removed: set[str] = set()
        inserted = []
        for key, wanted in (patch.members or {}).items():
            member, value = members.get(key), wanted.value
            if source.startswith(NULL, value.start):
                removed.add(key)
            elif member is None:
                inserted.append((source[wanted.start : wanted.end], _without_nulls(source, value)))
            elif value.members is not None and member.value.members is not None:
                self.merge(member.value, source, value)
            elif not _says_the_same(self._text, member.value, source, value):
                self._replace(node, member, _without_nulls(source, value))
        self.change_members(node, removed & members.keys(), inserted)

    def remove_nulls(self, node: Node) -> None:
        """Remove the members that are null, also of objects in objects; an array is a value as a whole."""
        members = node.members or {}
        for member in members.values():
            self.remove_nulls(member.value)
        nulls = {key for key, member in members.items() if self._text.startswith(NULL, member.value.start)}
        self.change_members(node, nulls, [])

    def change_members(self, node: Node, removed: set[str], inserted: Sequence[tuple[str, str]]) -> None:
        """Remove members of an object, and insert others, given as sources of key and value, behind the last."""
        if not removed and not inserted:
            return
        members = node.members or {}
        kept = [member for key, member in members.items() if key not in removed]
        if not members:
            self._fill(node, inserted)
        elif not kept:
            self._empty(node, list(members.values()), inserted)
        else:
            self._remove(members, removed)
            separator, end = self._separator(list(members.values()), node), kept[-1].value.end
            new = "".join(separator + written for written in self._written(node, inserted))
            self._edits.append((end, end, new))

    def _replace(self, node: Node, member: Member, source: str) -> None:
        new = self._fitted(source, None if self._is_on_one_line(node) else self._indentation(member.start))
        self._edits.append((member.value.start, member.value.end, new))

    def _remove(self, members: dict[str, Member], removed: set[str]) -> None:
        """Each goes with the comma before it; those that nothing stands before go with the comma behind them."""
        start, before = None, None
        for key, member in members.items():
            if key not in removed:
                if start is not None:
                    self._edits.append((start, member.start, ""))
                start, before = None, member
            elif before is None:
                start = member.start if start is None else start
            else:
                self._edits.append((before.value.end, member.value.end, ""))
                before = member

    def _empty(self, node: Node, members: list[Member], inserted: Sequence[tuple[str, str]]) -> None:
        """All members go; others take their place, or the object is empty."""
        if inserted:
            new = self._separator(members, node).join(self._written(node, inserted))
            self._edits.append((members[0].start, members[-1].value.end, new))
        else:
            self._edits.append((node.start + 1, node.end - 1, ""))

    def _fill(self, node: Node, inserted: Sequence[tuple[str, str]]) -> None:
        """Insert into an object that has no members."""
        outer = self._indentation(node.start)
        begin = self._line_end + outer + self._step if self._should_break(node) else ""
        new = f",{begin or ' '}".join(self._written(node, inserted))
        end = self._line_end + outer if begin else ""
        self._edits.append((node.start + 1, node.end - 1, begin + new + end))

    def _should_break(self, node: Node) -> bool:
        """Whether the members of an object that had none get lines of their own: where itself is a member that does."""
        line_start = self._line_start(node.start)
        has_line = line_start > 0 and LINE_OF_MEMBER.fullmatch(self._text, line_start, node.start)
        return bool(has_line) or not self._is_on_one_line(node)

    def _written(self, node: Node, inserted: Sequence[tuple[str, str]]) -> list[str]:
        members = list((node.members or {}).values())
        colon = self._text[members[-1].end : members[-1].value.start] if members else ": "
        if LINE_END.search(colon):
            colon = ": "
        if members:
            breaks = not self._is_on_one_line(node)
            indentation = self._indentation(members[-1].start)
        else:
            breaks = self._should_break(node)
            indentation = self._indentation(node.start) + self._step
        return [key + colon + self._fitted(value, indentation if breaks else None) for key, value in inserted]

    def _separator(self, members: list[Member], node: Node) -> str:
        """What stands between the last two members; of one alone, what would stand there."""
        last = members[-1]
        if len(members) == 1:
            blanks = self._text[node.start + 1 : last.start]
            if LINE_END.search(blanks):
                return "," + self._last_line(blanks)
            return ", " if self._text[last.value.start - 1] in " \t" else ","
        between = SEPARATOR.fullmatch(self._text, members[-2].value.end, last.start)
        if between is None:
            raise ValueError("No comma stands between two members: the text was to be parsed before.")
        return f"{self._last_line(between['left'])},{self._last_line(between['right'])}"

    def _last_line(self, blanks: str) -> str:
        """White space with its last line break alone: without the empty lines that it may have."""
        lines = LINE_END.split(blanks)
        return blanks if len(lines) == 1 else self._line_end + lines[-1]

    def _fitted(self, source: str, indentation: str | None) -> str:
        """A value that was typed elsewhere, with indentation as it is here; None: on one line."""
        lines = [line.strip(" \t") for line in LINE_END.split(source)]
        if len(lines) == 1:
            return source
        if indentation is None:
            return "".join(f"{line} " if line.endswith((",", ":")) else line for line in lines)
        written, level = [lines[0]], _levels_opened(lines[0])
        for line in lines[1:]:
            closers = CLOSERS.match(line)
            closing = _levels_opened(closers[0]) if closers else 0
            written.append(f"{indentation}{self._step * (level + closing)}{line}" if line else "")
            level += _levels_opened(line)
        return self._line_end.join(written)

    @property
    def _step(self) -> str:
        """By how much members are indented."""
        for member in (self.root.members or {}).values():
            if LINE_END.search(self._text, self.root.start, member.start):
                outer, inner = self._indentation(self.root.start), self._indentation(member.start)
                return inner.removeprefix(outer) or DEFAULT_STEP
        return DEFAULT_STEP

    def _indentation(self, position: int) -> str:
        """How the line is indented in which something stands."""
        found = INDENTATION.match(self._text, self._line_start(position))
        return found[0] if found else ""

    def _line_start(self, position: int) -> int:
        return max(self._text.rfind("\n", 0, position), self._text.rfind("\r", 0, position)) + 1

    def _is_on_one_line(self, node: Node) -> bool:
        return LINE_END.search(self._text, node.start, node.end) is None


def _levels_opened(line: str) -> int:
    brackets = [found[0] for found in BRACKETS.finditer(line)]
    return sum((bracket in {"[", "{"}) - (bracket in {"]", "}"}) for bracket in brackets)


def _without_nulls(source: str, value: Node) -> str:
    """The source of a value of a patch, without what it says to remove: nothing of that is there."""
    editor = _Editor(source[value.start : value.end])
    editor.remove_nulls(editor.root)
    return editor.result()


def _says_the_same(text: str, node: Node, source: str, value: Node) -> bool:
    """Whether two values are the same, however they are laid out and escaped, with numbers as they are typed."""
    if node.members is not None and value.members is not None:
        return node.members.keys() == value.members.keys() and all(
            _says_the_same(text, member.value, source, value.members[key].value) for key, member in node.members.items()
        )
    if node.items is not None and value.items is not None:
        return len(node.items) == len(value.items) and all(
            _says_the_same(text, item, source, other) for item, other in zip(node.items, value.items, strict=True)
        )
    mine, other = text[node.start : node.end], source[value.start : value.end]
    return mine == other or (mine[0] == other[0] == '"' and json.loads(mine) == json.loads(other))
