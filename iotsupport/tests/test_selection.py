"""Which tests run on which database and in which order, and that ``make quick`` starts no process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from iotsupport.tests.selection import belongs_to, rank


@pytest.mark.parametrize(
    ("marks", "on_sqlite", "on_postgresql"),
    [
        ("", True, False),
        ("both_databases", True, True),
        ("both_databases sqlite", True, False),
        ("postgresql", False, True),
        ("processes django_db", True, False),
    ],
)
def test_each_test_runs_on_at_least_one_database(marks: str, on_sqlite: bool, on_postgresql: bool) -> None:
    assert belongs_to("sqlite", set(marks.split())) is on_sqlite
    assert belongs_to("postgresql", set(marks.split())) is on_postgresql


def test_what_takes_long_begins_first() -> None:
    tests = [set(), {"processes"}, {"processes", "xdist_group"}, {"processes", "slow"}, {"marathon", "processes"}]

    assert sorted(tests, key=rank) == tests[::-1]


@pytest.mark.parametrize("start", [lambda: subprocess.run(["true"]), os.fork], ids=["subprocess", "fork"])
def test_a_test_that_is_not_marked_for_it_cannot_start_a_process(start: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match=r"starts a process: mark it with pytest\.mark\.processes"):
        start()
