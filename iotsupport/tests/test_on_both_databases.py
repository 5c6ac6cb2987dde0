"""``make test`` fails with whatever it runs, says what that is, and shows all that was said."""

from __future__ import annotations

from pathlib import Path

import pytest

from iotsupport.tests.support.on_both_databases import main

pytestmark = pytest.mark.processes

SAY = "echo tested $TEST_DATABASE"


def run(capfd: pytest.CaptureFixture[str], command: str, *options: str) -> tuple[int, str, str]:
    code = main([*options, "sh", "-c", command])
    said = capfd.readouterr()
    return code, said.out, said.err


def test_all_goes_well(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, SAY, "--beside", "sh -c 'echo linted'")

    assert (code, err) == (0, "")
    assert {"tested sqlite", "tested postgresql", "linted"} <= set(out.splitlines())


@pytest.mark.parametrize(("database", "name"), [("sqlite", "On SQLite"), ("postgresql", "On PostgreSQL")])
def test_one_half_fails(capfd: pytest.CaptureFixture[str], database: str, name: str) -> None:
    code, out, err = run(capfd, f"{SAY}; test $TEST_DATABASE != {database}")

    assert (code, err) == (1, f"Failed: {name}.\n")
    assert {"tested sqlite", "tested postgresql"} <= set(out.splitlines())


def test_what_runs_beside_them_fails(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, SAY, "--beside", "sh -c 'echo a mistake; exit 2'")

    assert (code, err) == (2, "Failed: sh -c 'echo a mistake; exit 2'.\n")
    assert "a mistake" in out.splitlines()
    assert {"tested sqlite", "tested postgresql"} <= set(out.splitlines())


def test_what_both_need_is_made_first(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capfd, f"cat {tmp_path}/made", "--first", f"sh -c 'echo made once >> {tmp_path}/made'")

    assert (code, err) == (0, "")
    assert out.splitlines().count("made once") == 2


def test_without_what_both_need_neither_runs(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, SAY, "--first", "sh -c 'echo a mistake; exit 3'")

    assert (code, err) == (3, "Failed: sh -c 'echo a mistake; exit 3'.\n")
    assert "a mistake" in out.splitlines()
    assert "tested" not in out
