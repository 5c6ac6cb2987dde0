"""``make test`` fails with whatever it runs, says what that is, and shows all that was said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.on_both_databases import main
from iotsupport.tests.support.waiting import LIMIT

pytestmark = pytest.mark.processes

SAY = "echo tested $TEST_DATABASE"


def run(capfd: pytest.CaptureFixture[str], command: str) -> tuple[int, str, str]:
    code = main(["sh", "-c", command])
    said = capfd.readouterr()
    return code, said.out, said.err


def test_all_goes_well(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, SAY)

    assert (code, err) == (0, "")
    assert {"tested sqlite", "tested postgresql"} <= set(out.splitlines())


@pytest.mark.parametrize(("database", "name"), [("sqlite", "On SQLite"), ("postgresql", "On PostgreSQL")])
def test_one_half_fails(capfd: pytest.CaptureFixture[str], database: str, name: str) -> None:
    code, out, err = run(capfd, f"{SAY}; test $TEST_DATABASE != {database}")

    assert (code, err) == (1, f"Failed: {name}.\n")
    assert {"tested sqlite", "tested postgresql"} <= set(out.splitlines())


# Of what is installed for tests. Those of Python that run the halves are real.
PROGRAMS = {
    "djade": "",
    "lint-imports": "",
    "mypy": "echo types are right",
    "pytest": 'case "$*" in *--collect-only*) echo read >>reads ;; *) echo tested $TEST_DATABASE ;; esac',
    "python": f'case "$*" in *on_both_databases*) exec {sys.executable} "$@" ;; esac',
    "ruff": "",
}


@pytest.fixture
def make_test(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``make test`` of this Makefile, where everything is installed, and some program does something else."""
    shutil.copy(BASE_DIR / "Makefile", tmp_path)
    for directory in [".ci", ".venv/bin"]:
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / ".ci/install-system-packages").touch()
    for requirements in ["requirements.txt", "requirements-dev.txt"]:
        (tmp_path / requirements).touch()
    for stamp in [".made", ".installed-run", ".installed-dev"]:
        (tmp_path / ".venv" / stamp).touch()

    def make_test(**programs: str) -> subprocess.CompletedProcess[str]:
        for name, script in (PROGRAMS | programs).items():
            path = tmp_path / ".venv/bin" / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        environ = {**os.environ, "PYTHONPATH": str(BASE_DIR)}
        for name in ["MAKEFLAGS", "MFLAGS"]:  # of a make that runs these tests
            environ.pop(name, None)
        command = ["make", "test"]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=LIMIT)

    return make_test


def test_tests_are_read_once_and_run_on_both(
    make_test: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = make_test()

    assert done.returncode == 0, done.stderr
    assert {"tested sqlite", "tested postgresql", "types are right"} <= set(done.stdout.splitlines())
    assert (tmp_path / "reads").read_text() == "read\n"


def test_lint_fails(make_test: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = make_test(mypy="echo a mistake; exit 1")

    assert done.returncode
    assert "lint] Error 1" in done.stderr
    assert {"tested sqlite", "tested postgresql", "a mistake"} <= set(done.stdout.splitlines())


def test_what_cannot_be_read_is_said_and_nothing_runs(
    make_test: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = make_test(pytest='case "$*" in *--collect-only*) echo a mistake; exit 2 ;; *) echo tested ;; esac')

    assert done.returncode
    assert {"a mistake", "types are right"} <= set(done.stdout.splitlines())
    assert "tested" not in done.stdout


def test_a_test_fails(make_test: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = make_test(pytest='test "$TEST_DATABASE" != postgresql')

    assert done.returncode
    assert "Failed: On PostgreSQL." in done.stderr
