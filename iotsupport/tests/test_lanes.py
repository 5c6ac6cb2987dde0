"""Requests that are begun in turn, a few at a time."""

from __future__ import annotations

import pytest

from iotsupport.serving.lanes import Lane


@pytest.fixture
def begun() -> list[str]:
    return []


@pytest.fixture
def lane(begun: list[str]) -> Lane[str]:
    """Two are under way, and two wait."""
    lane: Lane[str] = Lane(2)
    for name in "abcd":
        lane.enter(name, begun.append)
    return lane


def test_those_who_wait_begin_in_order_when_others_leave(lane, begun):
    assert (begun, lane.waiting()) == (["a", "b"], ["c", "d"])

    lane.leave("b")
    assert (begun, lane.waiting()) == (["a", "b", "c"], ["d"])
    lane.leave("a")
    lane.leave("c")
    assert (begun, lane.waiting()) == (["a", "b", "c", "d"], [])


def test_one_that_gives_up_takes_no_turn(lane, begun):
    lane.leave("c")
    lane.leave("a")

    assert begun == ["a", "b", "d"]


def test_one_that_is_not_there_leaves_nothing(lane, begun):
    lane.leave("e")
    lane.leave("a")
    lane.leave("a")

    assert begun == ["a", "b", "c"]


def test_one_that_ends_at_once_makes_room_for_the_next(begun):
    lane: Lane[str] = Lane(1)

    def begin(name: str) -> None:
        begun.append(name)
        if name != "a":
            lane.leave(name)

    for name in "abc":
        lane.enter(name, begin)
    lane.leave("a")
    lane.enter("d", begin)

    assert begun == ["a", "b", "c", "d"]
