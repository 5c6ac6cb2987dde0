"""What is different between two texts, line by line: for ``admin/includes/difference.html``, which shows the rows.

Lines are compared with how they end. What nobody sees on a screen is told: tabs, line ends, characters without a look.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import Match, SequenceMatcher
from enum import StrEnum
from itertools import accumulate, groupby, zip_longest
from typing import NamedTuple

# A line ends as it does in a browser's text field.
LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
WORD = re.compile(r"\w+|[^\S\r\n]+|[^\w\s]")
ENDS = {"\r\n": "ends with CRLF", "\n": "ends with LF", "\r": "ends with CR", "": "no line break at the end"}

# How often an element may be compared: in one difference for lines, and for the words of all its lines. What is not
# compared counts as changed.
MOST_STEPS = 1_000_000

# A page would not show more: beyond these, it says how many there are.
MOST_ROWS = 2000


class Kind(StrEnum):
    EQUAL = "equal"
    REMOVED = "removed"
    ADDED = "added"
    CHANGED = "changed"
    FOLDED = "folded"
    """Equal lines that are not shown."""
    CUT = "cut"
    """Whatever follows: too much to be shown."""


class Piece(NamedTuple):
    text: str
    is_marked: bool = False
    """Whether it is what is different in a changed line."""


@dataclass(frozen=True)
class Row:
    """One line of both texts, or of one of them, or as many as are left out."""

    kind: Kind
    old_number: int | None = None
    new_number: int | None = None
    old: list[Piece] = field(default_factory=list)
    new: list[Piece] = field(default_factory=list)
    old_note: str = ""
    """How the line ends, where the other one ends in another way."""
    new_note: str = ""
    count: int = 0
    """The lines that are folded, or the rows that are cut."""


# Places of a line in both texts; None where it is in one alone.
Pair = tuple[int | None, int | None]


class Steps:
    """What may still be compared: two texts can be made so that comparing all would take hours."""

    def __init__(self) -> None:
        self.left = MOST_STEPS

    def take(self, count: int) -> bool:
        if count > self.left:
            return False
        self.left -= count
        return True


class BoundedMatcher(SequenceMatcher[str]):
    """difflib's, which takes what it has no more steps for as having nothing in common."""

    def __init__(self, old: Sequence[str], new: Sequence[str], steps: Steps) -> None:
        super().__init__(None, old, new, autojunk=False)
        self._steps = steps
        places: dict[str, list[int]] = self.b2j  # type: ignore[attr-defined]
        self._costs = [0, *accumulate(1 + len(places.get(element, ())) for element in old)]

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        last = len(self._costs) - 1 if ahi is None else ahi
        if not self._steps.take(self._costs[last] - self._costs[alo]):
            return Match(alo, blo, 0)
        return super().find_longest_match(alo, ahi, blo, bhi)


class Stretch(NamedTuple):
    """Places of both sequences that belong together: ``old[old_start:old_end]`` and ``new[new_start:new_end]``."""

    is_equal: bool
    old_start: int
    old_end: int
    new_start: int
    new_end: int


def difference(old: str, new: str, *, context: int = 3) -> list[Row]:
    """Compare two texts line by line; equal lines farther than ``context`` from a change are folded.

    Empty where they are the same, byte for byte. Takes less than a second for texts of 64 KB, whatever is in them.
    """
    if old == new:
        return []
    lines = _Lines(LINE.findall(old), LINE.findall(new))
    shown = list(_folded(lines, context))
    rows = [Row(Kind.FOLDED, count=each) if isinstance(each, int) else lines.row(each) for each in shown[:MOST_ROWS]]
    return rows if len(shown) <= MOST_ROWS else [*rows, Row(Kind.CUT, count=len(shown) - MOST_ROWS)]


def _folded(lines: _Lines, context: int) -> Iterator[Pair | int]:
    """Yield the pairs that are shown, and how many equal ones are not."""
    runs = [(is_equal, list(run)) for is_equal, run in groupby(lines.pairs(), key=lines.is_equal)]
    for place, (is_equal, run) in enumerate(runs):
        # Those after the change before, and before the change after.
        start = context if place else 0
        stop = len(run) - (context if place < len(runs) - 1 else 0)
        if is_equal and stop - start > 1:
            yield from run[:start]
            yield stop - start
            yield from run[stop:]
        else:
            yield from run


def compare(old: Sequence[str], new: Sequence[str], steps: Steps) -> Iterator[Stretch]:
    """Yield what is equal and what is not, in turn, from the first element to the last."""
    start = _common_start(old, new)
    end = _common_start(old[start:][::-1], new[start:][::-1])
    old_end, new_end = len(old) - end, len(new) - end
    if start:
        yield Stretch(True, 0, start, 0, start)
    matcher = BoundedMatcher(old[start:old_end], new[start:new_end], steps)
    for tag, *places in matcher.get_opcodes():
        yield Stretch(tag == "equal", *(start + place for place in places))
    if end:
        yield Stretch(True, old_end, len(old), new_end, len(new))


def _common_start(old: Iterable[str], new: Iterable[str]) -> int:
    count = 0
    for one, other in zip(old, new, strict=False):
        if one != other:
            break
        count += 1
    return count


class _Lines:
    """The lines of both texts, each with how it ends."""

    def __init__(self, old: list[str], new: list[str]) -> None:
        self._old, self._new = old, new
        [(self._usual_end, _)] = Counter(map(_end, [*old, *new])).most_common(1)
        self._word_steps = Steps()

    def pairs(self) -> Iterator[Pair]:
        # Lines that are the same but for how they end stand beside each other.
        old_texts, new_texts = ([line.rstrip("\r\n") for line in lines] for lines in [self._old, self._new])
        for stretch in compare(old_texts, new_texts, Steps()):
            old, new = range(stretch.old_start, stretch.old_end), range(stretch.new_start, stretch.new_end)
            yield from zip_longest(old, new)

    def is_equal(self, pair: Pair) -> bool:
        # Also where that was not found, among too many.
        old, new = pair
        return old is not None and new is not None and self._old[old] == self._new[new]

    def row(self, pair: Pair) -> Row:
        old, new = pair
        if new is None:
            assert old is not None  # noqa: S101 - one of them is
            line = self._old[old]
            return Row(Kind.REMOVED, old_number=old + 1, old=_pieces(line), old_note=self._note(line))
        if old is None:
            line = self._new[new]
            return Row(Kind.ADDED, new_number=new + 1, new=_pieces(line), new_note=self._note(line))
        before, after = self._old[old], self._new[new]
        if before == after:
            return Row(Kind.EQUAL, old + 1, new + 1, _pieces(before), _pieces(after))
        ends = ("", "") if _end(before) == _end(after) else (ENDS[_end(before)], ENDS[_end(after)])
        return Row(Kind.CHANGED, old + 1, new + 1, *_marked(before, after, self._word_steps), *ends)

    def _note(self, line: str) -> str:
        end = _end(line)
        return "" if end == self._usual_end else ENDS[end]


def _end(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def _pieces(line: str) -> list[Piece]:
    text = line.rstrip("\r\n")
    return [Piece(_visible(text))] if text else []


def _marked(before: str, after: str, steps: Steps) -> tuple[list[Piece], list[Piece]]:
    """Return both lines with the words marked that are different."""
    old, new = WORD.findall(before), WORD.findall(after)
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    for stretch in compare(old, new, steps):
        one, other = (
            "".join(old[stretch.old_start : stretch.old_end]),
            "".join(new[stretch.new_start : stretch.new_end]),
        )
        is_alike = not stretch.is_equal and _look(one) == _look(other)
        for side, text in zip(pieces, [one, other], strict=True):
            if text:
                side.append(Piece(_exact(text) if is_alike else _visible(text), not stretch.is_equal))
    return pieces


def _look(text: str) -> str:
    return unicodedata.normalize("NFKC", "".join(text.split()))


def _visible(text: str) -> str:
    """Return the text with code points instead of what has no look, or changes that of others."""
    if text.isprintable():
        return text
    return "".join(char if char == "\t" or char.isprintable() else _code_point(char) for char in text)


def _exact(text: str) -> str:
    """Return the text with all of it told that may look like something else: it is all that is different."""
    return "".join(BLANKS.get(char) or (_code_point(char) if _is_unseen(char) else char) for char in text)


BLANKS = {" ": "·", "\t": "⇥"}


def _is_unseen(char: str) -> bool:
    return not char.isprintable() or bool(unicodedata.combining(char))


def _code_point(char: str) -> str:
    return f"⟨U+{ord(char):04X}⟩"
