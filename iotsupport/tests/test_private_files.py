"""What other users of the machine must not read: the database, with what passwords are checked against."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from iotsupport.database.sqlite import PrivateConnection, keep_private
from iotsupport.environment import Environment
from iotsupport.tests.support.server import manage
from iotsupport.tests.support.waiting import LIMIT


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """One that lets everybody read what is made."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.processes
def test_a_new_database_is_its_user_s_alone(tmp_path: Path):
    # Looked at while it is open: the last one to close it removes what SQLite puts beside it.
    write = (
        "import os; from pathlib import Path; from django.conf import settings; from django.db import connection;"
        "connection.cursor().execute('CREATE TABLE a (b)');"
        "print(sorted((path.name, oct(path.stat().st_mode)[-3:]) for path in settings.DATA_DIR.glob('db.*')))"
    )

    seen = manage({"DATA_DIR": str(tmp_path)}, "shell", "--verbosity=0", "-c", write).stdout.strip()

    assert seen == str([("db.sqlite3", "600"), ("db.sqlite3-shm", "600"), ("db.sqlite3-wal", "600")])


@pytest.mark.processes
def test_another_connection_drops_no_lock(tmp_path: Path):
    path = str(tmp_path / "db.sqlite3")
    with closing(sqlite3.connect(path, factory=PrivateConnection, isolation_level=None)) as first:
        first.execute("BEGIN IMMEDIATE")
        sqlite3.connect(path, factory=PrivateConnection).close()

        write = f"import sqlite3; sqlite3.connect({path!r}, timeout=0).execute('BEGIN IMMEDIATE')"
        done = subprocess.run([sys.executable, "-c", write], capture_output=True, text=True, timeout=LIMIT)

    assert "database is locked" in done.stderr


@pytest.mark.processes
def test_a_command_that_asks_nothing_of_the_database_makes_none(tmp_path: Path):
    manage({"DATA_DIR": str(tmp_path)}, "help")

    assert not (tmp_path / "db.sqlite3").exists()


def test_the_secret_key_is_its_user_s_alone(tmp_path: Path):
    Environment().secret("NO_SUCH_VARIABLE", tmp_path / "secret_key")

    assert mode(tmp_path / "secret_key") == 0o600


def test_a_database_that_everybody_could_read_is_closed_to_others(tmp_path: Path):
    database, log = tmp_path / "db.sqlite3", tmp_path / "db.sqlite3-wal"
    for path in [database, log]:
        path.write_bytes(b"x")
        path.chmod(0o644)

    keep_private(str(database))

    # A group is somebody's choice, such as for backups.
    assert (mode(database), mode(log)) == (0o640, 0o640)
    assert database.read_bytes() == b"x"


@pytest.mark.parametrize("name", [":memory:", "file:shared?mode=memory"])
def test_a_database_in_memory_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)

    keep_private(name)

    assert list(tmp_path.iterdir()) == []


def test_a_database_that_cannot_be_made_stops_nothing(tmp_path: Path):
    keep_private(str(tmp_path / "missing" / "db.sqlite3"))

    assert list(tmp_path.iterdir()) == []
