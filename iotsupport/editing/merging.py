"""Two changes of one text, put together line by line: three ways, from the text that both began with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from iotsupport.editing.differences import Steps, compare


class Conflict(NamedTuple):
    """Lines of the merged text, counted from 1, where both changed the same: ``last`` is before ``first`` for none."""

    first: int
    last: int


class Merged(NamedTuple):
    """Both changes in one text. Where they are at odds, it has ours, and ``conflicts`` says where."""

    text: str
    conflicts: list[Conflict]


class _Edit(NamedTuple):
    """Lines ``start`` to ``end`` of the base, counted from 0, become others."""

    start: int
    end: int
    lines: list[str]


@dataclass
class _Stretch:
    """Lines of the base that either side changed, with the edits of both."""

    start: int
    end: int
    ours: list[_Edit] = field(default_factory=list)
    theirs: list[_Edit] = field(default_factory=list)

    def overlaps(self, edit: _Edit) -> bool:
        return edit.start < self.end or (self.start, self.end) == (edit.start, edit.end)


def merge(base: str, ours: str, theirs: str) -> Merged:
    """Return what both made of the base. Lines end with a line feed.

    Changes of lines that stand side by side are not at odds; two texts put in at the same place are, unless they are
    the same.
    """
    lines = base.split("\n")
    merged: list[str] = []
    conflicts = []
    position = 0
    for stretch in _stretches(_edits(lines, ours), _edits(lines, theirs)):
        merged += lines[position : stretch.start]
        position = stretch.end
        before = lines[stretch.start : stretch.end]
        mine, other = _applied(lines, stretch, stretch.ours), _applied(lines, stretch, stretch.theirs)
        if mine not in (before, other) and other != before:
            conflicts.append(Conflict(len(merged) + 1, len(merged) + len(mine)))
        merged += other if mine == before else mine
    return Merged("\n".join([*merged, *lines[position:]]), conflicts)


def _edits(lines: list[str], side: str) -> Iterator[_Edit]:
    new = side.split("\n")
    for stretch in compare(lines, new, Steps()):
        added = new[stretch.new_start : stretch.new_end]
        if stretch.is_equal:
            continue
        if stretch.old_end - stretch.old_start == len(added):
            # Each by itself: the other may have changed one of them.
            yield from (_Edit(place, place + 1, [line]) for place, line in enumerate(added, stretch.old_start))
        else:
            yield _Edit(stretch.old_start, stretch.old_end, added)


def _stretches(ours: Iterable[_Edit], theirs: Iterable[_Edit]) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    for edit, is_ours in sorted([*((edit, True) for edit in ours), *((edit, False) for edit in theirs)]):
        if not stretches or not stretches[-1].overlaps(edit):
            stretches.append(_Stretch(edit.start, edit.end))
        stretch = stretches[-1]
        stretch.end = max(stretch.end, edit.end)
        (stretch.ours if is_ours else stretch.theirs).append(edit)
    return stretches


def _applied(lines: list[str], stretch: _Stretch, edits: list[_Edit]) -> list[str]:
    applied: list[str] = []
    position = stretch.start
    for edit in edits:
        applied += [*lines[position : edit.start], *edit.lines]
        position = edit.end
    return [*applied, *lines[position : stretch.end]]
