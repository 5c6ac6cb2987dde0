"""A process that serves keeps its connections to SQLite between requests, wherever that is safe."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import django.db
import pytest
import requests
from django.db.utils import ConnectionHandler

from iotsupport.database import sqlite
from iotsupport.database.sqlite import PrivateConnection, kept
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.disk import Image, may_mount
from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.server import NEW, Server
from iotsupport.tests.support.waiting import LIMIT, poll

pytestmark = pytest.mark.sqlite("PostgreSQL's are in a pool")


def make(path: Path, *rows: int) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE a (b)")
        database.executemany("INSERT INTO a VALUES (?)", [[row] for row in rows])
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path / "db.sqlite3", 1)


@pytest.fixture(autouse=True)
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sqlite, "_is_serving", True)
    monkeypatch.setattr(sqlite, "_open", {})
    monkeypatch.setattr(kept, "_idle", [])
    yield
    for connection in [*kept._idle, *sqlite._open.values()]:
        connection.close()


@pytest.fixture
def connections(path: Path, django_db_blocker: Any) -> Iterator[Any]:
    """One for each thread, as the settings have them."""
    options = {
        "timeout": 0.05,
        "transaction_mode": "IMMEDIATE",
        "factory": PrivateConnection,
        "init_command": "PRAGMA journal_mode=WAL",
    }
    tried = {"ENGINE": "iotsupport.database.sqlite", "NAME": str(path), "OPTIONS": options}
    connections = ConnectionHandler({"default": {}, "tried": tried})
    with django_db_blocker.unblock():
        yield connections
        connections["tried"].close()


def rows(connections: Any) -> list[int]:
    with connections["tried"].cursor() as cursor:
        cursor.execute("SELECT b FROM a ORDER BY b")
        return [row for (row,) in cursor.fetchall()]


def opened(connections: Any) -> PrivateConnection:
    """The connection of a request, which is over when this returns."""
    connections["tried"].ensure_connection()
    connection: PrivateConnection = connections["tried"].connection
    connections["tried"].close()
    return connection


def test_the_next_request_has_the_same_and_so_has_another_thread(connections: Any) -> None:
    first = opened(connections)

    assert opened(connections) is first
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(opened, connections).result() is first


def test_there_are_no_more_than_requests_at_once_and_few_are_kept(
    connections: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", 1)
    connections["tried"].ensure_connection()
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(opened, connections).result()
    assert connections["tried"].connection is not other
    connections["tried"].close()

    assert kept._idle == [other]


@pytest.mark.processes
@pytest.mark.skipif(not may_mount(), reason="Only root may mount a disk, where mounting is allowed.")
def test_one_that_was_opened_while_it_could_not_be_written_is_not_the_next_request_s(
    connections: Any, path: Path, tmp_path: Path
) -> None:
    """SQLite opens such a file to be read alone; the request would be refused though the disk is repaired."""
    with Image(tmp_path / "disk") as disk:
        there = shutil.copy(path, disk.path)
        connections["tried"].settings_dict["NAME"] = there
        with closing(sqlite3.connect(there)) as other:  # as another request's
            other.execute("PRAGMA journal_mode=WAL")
            other.execute("SELECT * FROM a").fetchall()
            disk.make_read_only()
            assert rows(connections) == [1]
            connections["tried"].close()
            disk.make_writable()

            with connections["tried"].cursor() as cursor:
                cursor.execute("INSERT INTO a VALUES (2)")

            assert rows(connections) == [1, 2]
            connections["tried"].close()
        for connection in [*kept._idle, *sqlite._open.values()]:
            connection.close()
        kept._idle.clear()
        sqlite._open.clear()


def test_a_command_keeps_none(connections: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_is_serving", False)

    first = opened(connections)

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        first.execute("SELECT 1")


def test_a_file_that_is_replaced_is_seen_at_once(
    connections: Any, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", 1)
    assert rows(connections) == [1]
    connections["tried"].close()
    for name in [f"{path}-wal", f"{path}-shm"]:  # as whoever restores one does
        os.unlink(name)
    os.replace(make(tmp_path / "other", 2), path)

    assert rows(connections) == [2]
    connections["tried"].close()
    assert rows(connections) == [2]
    assert opened(connections) is opened(connections)


def test_what_was_not_read_to_its_end_shows_nothing_past_to_the_next_request(connections: Any, path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany("INSERT INTO a VALUES (?)", [[row] for row in range(2, 1000)])
    cursor = connections["tried"].cursor()
    cursor.execute("SELECT b FROM a")
    assert cursor.fetchone()
    connections["tried"].close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM a WHERE b > 2")

    assert rows(connections) == [1, 2]
    del cursor


def test_one_on_which_something_failed_is_not_kept(connections: Any) -> None:
    first = opened(connections)
    connections["tried"].ensure_connection()
    with pytest.raises(django.db.OperationalError), connections["tried"].cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")

    connections["tried"].close_if_unusable_or_obsolete()

    assert opened(connections) is not first


def test_one_that_failed_in_what_was_rolled_back_is_not_kept(connections: Any) -> None:
    first = opened(connections)
    database = connections["tried"]
    database.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    with pytest.raises(django.db.OperationalError), database.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")
    database.rollback()
    database.set_autocommit(True)

    assert opened(connections) is first
    assert opened(connections) is not first


def test_one_in_a_transaction_is_not_kept(connections: Any) -> None:
    database = connections["tried"]
    database.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)

    database.close()

    assert kept._idle == []


def test_one_that_is_closed_in_a_transaction_keeps_nobody_from_writing(connections: Any, path: Path) -> None:
    """Though somebody still has a cursor of it, as the traceback of what failed does."""
    database = connections["tried"]
    database.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    cursor = database.cursor()
    cursor.execute("INSERT INTO a VALUES (2)")
    cursor.execute("SELECT b FROM a")

    database.close()

    with closing(sqlite3.connect(path, timeout=0)) as other, other:
        other.execute("INSERT INTO a VALUES (3)")
    assert rows(connections) == [1, 3]
    del cursor


FORK = """
import os, sys
from iotsupport.database import sqlite
from iotsupport.database.sqlite import PrivateConnection, kept

sqlite.serve()
connection = PrivateConnection(sys.argv[1])
assert kept.keep(connection)
if not os.fork():
    os._exit(0 if kept.take(sys.argv[1]) is None else 1)
assert os.wait()[1] == 0
assert kept.take(sys.argv[1]) is connection
"""


@pytest.mark.processes
def test_a_child_that_is_forked_uses_none_of_its_parent(path: Path) -> None:
    subprocess.run([sys.executable, "-c", FORK, str(path)], cwd=BASE_DIR, check=True, timeout=LIMIT)


@pytest.mark.processes
class TestAServer:
    def test_a_database_that_is_replaced_is_the_next_request_s(
        self, make_server: Callable[..., Server], broker: Mosquitto, tmp_path: Path
    ) -> None:
        server = make_server(WEB_CONCURRENCY="2", MQTT_URL=broker.url)
        server.start_connected(broker, *NEW)
        database = server.data_dir / "db.sqlite3"
        copy = tmp_path / "copy.sqlite3"
        with closing(sqlite3.connect(database)) as now, closing(sqlite3.connect(copy)) as later:
            now.backup(later)
        with server.client() as client:
            assert client.save_config("aa-bb-cc-dd-ee-ff", b"{}").status_code == 200
        assert counts(server) == {1}

        for name in [f"{database}-wal", f"{database}-shm"]:
            os.unlink(name)
        os.replace(copy, database)

        assert counts(server) == {0}
        with server.client() as client:
            assert client.save_config("aa-bb-cc-dd-ee-00", b"{}").status_code == 200
        assert counts(server) == {1}
        assert list(server.configs()) == ["aa-bb-cc-dd-ee-00.json"]
        # The relay, too, notes there what the broker has acknowledged.
        announced = "SELECT owed_since, announced_at IS NOT NULL FROM notifications_debt"
        poll(lambda: server.query(announced), lambda rows: rows == [(None, 1)])

    def test_a_token_that_another_process_revokes_is_refused_at_once(self, make_server: Callable[..., Server]) -> None:
        server = make_server(WEB_CONCURRENCY="2").start(*NEW)
        for change, undo in [
            (
                "UPDATE iotsupport_apitoken SET revoked_at = CURRENT_TIMESTAMP",
                "UPDATE iotsupport_apitoken SET revoked_at = NULL",
            ),
            ("UPDATE auth_user SET is_active = false", "UPDATE auth_user SET is_active = true"),
            ("DELETE FROM iotsupport_apitoken", ""),
        ]:
            assert counts(server) == {0}

            server.database.change(change)

            assert {ask(server).status_code for _ in range(20)} == {401}, change
            if undo:
                server.database.change(undo)


def ask(server: Server) -> requests.Response:
    """With a connection of its own: any worker answers."""
    with server.client() as client:
        return client.get("/configs")


def counts(server: Server) -> set[int]:
    return {ask(server).json()["count"] for _ in range(20)}
