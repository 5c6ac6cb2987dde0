"""Two changes of one text, put together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotsupport.editing.merging import Conflict, merge
from iotsupport.tests.support.properties import PATIENT

BASE = '{\n  "a": 1,\n  "b": 2,\n  "c": 3\n}\n'


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"),
    [
        (("1", "10"), ("3", "30"), '{\n  "a": 10,\n  "b": 2,\n  "c": 30\n}\n'),
        (("1", "10"), ("2", "20"), '{\n  "a": 10,\n  "b": 20,\n  "c": 3\n}\n'),
        (('  "a": 1,\n', ""), ('  "c"', '  "x": 0,\n  "c"'), '{\n  "b": 2,\n  "x": 0,\n  "c": 3\n}\n'),
        (('  "a"', '  "x": 0,\n  "a"'), ('  "a": 1,\n', ""), '{\n  "x": 0,\n  "b": 2,\n  "c": 3\n}\n'),
        (("1", "10"), ("1", "10"), '{\n  "a": 10,\n  "b": 2,\n  "c": 3\n}\n'),
    ],
    ids=["far apart", "side by side", "one removes, one adds", "at the same line", "the same"],
)
def test_both_are_in_it(ours: Any, theirs: Any, merged: str):
    assert merge(BASE, BASE.replace(*ours), BASE.replace(*theirs)) == (merged, [])


@pytest.mark.parametrize(
    ("ours", "theirs", "merged", "conflict"),
    [
        (("2", "20"), ("2", "21"), BASE.replace("2", "20"), Conflict(3, 3)),
        (('  "b": 2,\n', ""), ("2", "21"), BASE.replace('  "b": 2,\n', ""), Conflict(3, 2)),
        (("3\n", '3,\n  "x": 1\n'), ("3\n", '3,\n  "y": 1\n'), BASE.replace("3\n", '3,\n  "x": 1\n'), Conflict(4, 5)),
        (("{\n", '{\n  "x": 1,\n'), ("{\n", '{\n  "y": 1,\n'), BASE.replace("{\n", '{\n  "x": 1,\n'), Conflict(2, 2)),
    ],
    ids=["one value", "removed and changed", "two last members", "two first members"],
)
def test_where_both_changed_the_same_it_has_ours_and_says_where(
    ours: Any, theirs: Any, merged: str, conflict: Conflict
):
    assert merge(BASE, BASE.replace(*ours), BASE.replace(*theirs)) == (merged, [conflict])


def test_a_place_at_odds_does_not_keep_the_rest_apart():
    ours, theirs = BASE.replace("1", "10").replace("2", "20"), BASE.replace("2", "21").replace("}\n", "}\n\n")

    assert merge(BASE, ours, theirs) == (ours + "\n", [Conflict(3, 3)])


# Few different lines: which of them was changed is not always plain to see.
LINES = st.lists(st.sampled_from(["{", "}", '"a": 1,', '"b": 2,', ""]), max_size=12)
TEXTS = LINES.map("\n".join)


@PATIENT
@given(TEXTS, TEXTS)
def test_whoever_changes_alone_is_right(base: str, changed: str):
    assert merge(base, changed, base) == merge(base, base, changed) == merge(base, changed, changed) == (changed, [])


def _change(lines: list[str], places: set[int], mark: str) -> str:
    return "\n".join(f"{mark}{place}" if place in places else line for place, line in enumerate(lines))


@PATIENT
@given(st.integers(1, 12).flatmap(lambda count: st.lists(st.sampled_from("omn"), min_size=count, max_size=count)))
def test_changes_of_different_lines_are_all_in_it(changed: list[str]):
    base = [f"line {place}" for place in range(len(changed))]
    ours, theirs = ({place for place, who in enumerate(changed) if who == mark} for mark in "om")

    merged = merge("\n".join(base), _change(base, ours, "o"), _change(base, theirs, "m"))

    both = [_change(base, ours, "o").split("\n"), _change(base, theirs, "m").split("\n")]
    expected = [both[0][place] if place in ours else both[1][place] for place in range(len(base))]
    assert merged == ("\n".join(expected), [])


@PATIENT
@given(TEXTS, TEXTS.map(lambda text: text.replace('"', "'")), TEXTS)
def test_no_line_that_we_added_is_lost(base: str, ours: str, theirs: str):
    merged = merge(base, ours, theirs)

    assert {line for line in ours.split("\n") if "'" in line} <= set(merged.text.split("\n"))
    assert len(merged.conflicts) == len(merge(base, theirs, ours).conflicts)
