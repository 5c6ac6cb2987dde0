"""Which tests run on which database and in which order, and that ``make quick`` starts no process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from iotsupport.tests.support import marathons
from iotsupport.tests.support.selection import TOGETHER, belongs_to, marks_of, names_a_mark, rank, scope_of


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


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("letter", ["a", "b"])
def test_where_a_database_sees_the_same_of_all_parameters_the_first_alone_run_on_both(
    request: pytest.FixtureRequest, number: int, letter: str
) -> None:
    assert ("both_databases" in marks_of(request.node)) is ((number, letter) == (1, "a"))


@pytest.mark.parametrize(
    ("line", "is_read"),
    [
        ("pytestmark = pytest.mark.both_databases", True),
        ("@pytest.mark.postgresql", True),
        ("@marathon", True),
        ("@pytest.mark.processes", False),
    ],
)
def test_on_postgresql_only_modules_are_read_that_say_so(tmp_path: Path, line: str, is_read: bool) -> None:
    module = tmp_path / "test_module.py"
    module.write_text(f"import pytest\n\n{line}\n")

    assert names_a_mark(module) is is_read


@pytest.mark.parametrize("is_whole", [False, True])
def test_on_postgresql_a_marathon_runs_whole_or_where_it_says_so(
    is_whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marathons, "IS_WHOLE", is_whole)

    def run() -> None: ...

    marks = {mark.name for mark in marathons.marathon(run).pytestmark}  # type: ignore[attr-defined]

    assert belongs_to("postgresql", marks) is is_whole
    assert belongs_to("postgresql", marks | {"both_databases"})


def test_what_takes_long_begins_first() -> None:
    tests: list[tuple[str, set[str]]] = [
        ("other.py", set()),
        ("other.py", {"processes"}),
        ("other.py", {"marathon", "processes"}),
        (TOGETHER[1], {"processes"}),
        (TOGETHER[0], set()),
    ]

    assert sorted(tests, key=lambda test: rank(*test)) == tests[::-1]


def test_tests_that_share_a_server_go_to_one_worker_and_others_anywhere() -> None:
    assert scope_of(f"{TOGETHER[0]}::test_a[x::y]") == scope_of(f"{TOGETHER[0]}::TestB::test_b")
    assert scope_of("other.py::test_a") != scope_of("other.py::test_b")


@pytest.mark.parametrize("start", [lambda: subprocess.run(["true"]), os.fork], ids=["subprocess", "fork"])
def test_a_test_that_is_not_marked_for_it_cannot_start_a_process(start: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match=r"starts a process: mark it with pytest\.mark\.processes"):
        start()
