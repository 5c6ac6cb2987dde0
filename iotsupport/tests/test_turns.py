"""Those who write to an SQLite database wait in turn, in all processes; whoever dies holds nobody up."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import django.db
import pytest
import requests
from django.db.utils import ConnectionHandler

from iotsupport.database.sqlite import TURNS_SUFFIX, files_of, patience
from iotsupport.database.sqlite.turns import Queue, queue_of
from iotsupport.errors import as_api_error
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.marathons import WRITERS, WRITERS_KILLED, marathon
from iotsupport.tests.support.server import NEW, Client, Server
from iotsupport.tests.support.waiting import LIMIT, eventually, poll
from iotsupport.tests.support.writers import Process, Writers

LOCKED = "The database is kept locked by another process. Try again in a moment."


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A database with an empty table."""
    path = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE a (b)")
    return str(path)


# --- In one process --------------------------------------------------------------------------------------------------


def test_threads_write_in_the_order_in_which_they_come(path: str) -> None:
    writers = Writers(path)
    names = [str(number) for number in range(6)]
    for name in names:
        writers.come(name)

    eventually(lambda: writers.order)
    assert writers.order == ["0"]
    for name in names:
        writers.end(name)

    assert writers.order == names


def test_who_waits_too_long_is_told_and_the_next_one_is_not_held_up(path: str) -> None:
    queue = Queue(path)
    turn = queue.wait(LIMIT)
    # One polls, and two wait for that one.
    with ThreadPoolExecutor(3) as threads:
        for waiting in [threads.submit(queue.wait, 0.05) for _ in range(3)]:
            with pytest.raises(TimeoutError):
                waiting.result()

    turn.leave()

    queue.wait(LIMIT).leave()


def test_a_turn_that_nobody_has_any_more_is_over(path: str) -> None:
    queue = Queue(path)

    def die() -> None:
        queue.wait(LIMIT)
        raise ZeroDivisionError

    with ThreadPoolExecutor(1) as threads, pytest.raises(ZeroDivisionError):
        threads.submit(die).result()

    queue.wait(LIMIT).leave()


def test_where_no_file_can_be_locked_it_is_everybody_s_turn(tmp_path: Path) -> None:
    queue = Queue(str(tmp_path / "missing" / "db.sqlite3"))

    turns = [queue.wait(LIMIT), queue.wait(LIMIT)]

    assert not (tmp_path / "missing").exists()
    for turn in turns:
        turn.leave()


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root may give a file away.")
def test_the_file_is_the_database_s_owner_s_who_may_come_after_root(path: str) -> None:
    os.chown(path, 65534, 65534)
    os.chmod(path, 0o640)

    Queue(path).wait(LIMIT).leave()

    made = os.stat(path + TURNS_SUFFIX)
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (65534, 65534, 0o640)
    assert path + TURNS_SUFFIX in files_of(path)  # which a system check looks at


# --- In several processes --------------------------------------------------------------------------------------------


@pytest.fixture
def order() -> list[str]:
    return []


@pytest.fixture
def make_process(path: str, order: list[str]) -> Iterator[Callable[[], Process]]:
    processes: list[Process] = []

    def make() -> Process:
        processes.append(Process(path, order))
        return processes[-1]

    yield make
    for process in processes:
        if process.popen.poll() is None:
            process.close()


@pytest.mark.processes
class TestProcesses:
    def test_who_comes_first_writes_first(self, make_process: Callable[[], Process], order: list[str]) -> None:
        one, other = make_process(), make_process()
        coming = [(one, "a"), (other, "b"), (one, "c"), (other, "d"), (one, "e"), (one, "f"), (other, "g")]
        for process, name in coming:
            process.come(name)

        eventually(lambda: order)
        assert order == ["a"]
        for process, name in coming:
            process.end(name)

        assert order == list("abcdefg")

    def test_one_that_is_killed_while_it_writes_or_waits_holds_nobody_up(
        self, make_process: Callable[[], Process], order: list[str]
    ) -> None:
        writing, waiting, next_one, last = (make_process() for _ in range(4))
        for process, name in [(writing, "a"), (waiting, "b"), (next_one, "c"), (last, "d")]:
            process.come(name)
        eventually(lambda: order)

        waiting.kill()
        writing.kill()

        next_one.end("c")
        last.end("d")
        assert order == list("acd")

    def test_a_child_that_is_forked_meanwhile_has_no_turn_and_holds_none(self, path: str) -> None:
        code = (
            "import os, signal, sys\n"
            "from iotsupport.database.sqlite.turns import Queue\n"
            "turn = Queue(sys.argv[1]).wait(float(sys.argv[2]))\n"
            "begun, begin = os.pipe()\n"
            "if not os.fork():\n"
            "    os.write(begin, b'x')\n"
            "    os.read(0, 1)\n"
            "    os._exit(0)\n"
            "os.read(begun, 1)\n"
            "print('forked', flush=True)\n"
            "signal.pause()\n"
        )
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", code, path, str(LIMIT)]
        queue = Queue(path)
        with subprocess.Popen(command, cwd=BASE_DIR, stdin=pipe, stdout=pipe, text=True) as parent:
            assert parent.stdout and parent.stdin
            assert parent.stdout.readline() == "forked\n"
            with pytest.raises(TimeoutError):
                queue.wait(0)
            parent.kill()
            queue.wait(LIMIT).leave()  # its child lives, until its standard input is closed


# --- With Django -----------------------------------------------------------------------------------------------------


@pytest.fixture
def database(path: str, django_db_blocker: Any) -> Iterator[Any]:
    """As the settings have it, but nobody waits long."""
    options = {**django.db.connections.settings["default"].get("OPTIONS", {}), "timeout": 0.05}
    options.setdefault("transaction_mode", "IMMEDIATE")
    connections = ConnectionHandler(
        {"default": {}, "tried": {"ENGINE": "iotsupport.database.sqlite", "NAME": path, "OPTIONS": options}}
    )
    with django_db_blocker.unblock():
        yield connections["tried"]
        connections["tried"].close()


def begin(database: Any) -> None:
    database.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)


def end(database: Any, *, commit: bool = True) -> None:
    database.commit() if commit else database.rollback()
    database.set_autocommit(True)


def write(database: Any) -> None:
    with database.cursor() as cursor:
        cursor.execute("INSERT INTO a (b) VALUES (%s)", [1])


def count(database: Any) -> int:
    with database.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM a")
        return int(cursor.fetchone()[0])


@contextmanager
def somebody_writes(path: str) -> Iterator[None]:
    turn = Queue(path).wait(LIMIT)
    try:
        yield
    finally:
        turn.leave()


@pytest.mark.sqlite("queues in front of its lock")
class TestABackend:
    @pytest.mark.parametrize("act", [begin, write])
    def test_who_waits_too_long_gets_the_sentence_of_a_locked_database(
        self, database: Any, path: str, act: Callable[[Any], None]
    ) -> None:
        with somebody_writes(path), pytest.raises(django.db.OperationalError) as error:
            act(database)

        refusal = as_api_error(error.value)
        assert (refusal.status, refusal.message) == (503, LOCKED)
        write(database)
        assert count(database) == 1

    def test_who_reads_does_not_wait(self, database: Any, path: str) -> None:
        with somebody_writes(path):
            assert count(database) == 0

    @pytest.mark.parametrize("commit", [True, False])
    def test_a_transaction_is_one_turn_until_it_ends(self, database: Any, path: str, commit: bool) -> None:
        queue = Queue(path)
        begin(database)
        write(database)
        write(database)
        with pytest.raises(TimeoutError):
            queue.wait(0)

        end(database, commit=commit)

        queue.wait(0).leave()
        assert count(database) == (2 if commit else 0)

    def test_a_statement_alone_is_a_turn(self, database: Any, path: str) -> None:
        write(database)

        Queue(path).wait(0).leave()
        with database.cursor() as cursor:
            cursor.executemany("INSERT INTO a (b) VALUES (%s)", [[1], [2]])
        Queue(path).wait(0).leave()

    def test_a_connection_that_is_closed_gives_its_turn_up(self, database: Any, path: str) -> None:
        begin(database)

        database.close()

        Queue(path).wait(0).leave()

    def test_a_transaction_that_does_not_begin_has_no_turn(self, database: Any, path: str) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:  # which knows nothing of turns
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(django.db.OperationalError):
                begin(database)

        Queue(path).wait(0).leave()

    def test_who_has_waited_for_a_turn_waits_so_much_less_for_others(
        self, database: Any, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("iotsupport.database.sqlite.base.NOTICED_SECONDS", 0)
        seen: list[int] = []
        database.ensure_connection()
        database.connection.set_trace_callback(
            lambda sql: seen.append(timeout_of(database)) if "BEGIN" in sql else None
        )

        begin(database)
        end(database)

        assert 0 <= seen[0] < 50
        database.connection.set_trace_callback(None)
        assert timeout_of(database) == 50

    def test_patience_is_for_turn_and_lock(self, database: Any, path: str) -> None:
        database.ensure_connection()
        database._usual_seconds = LIMIT
        with closing(sqlite3.connect(path, isolation_level=None)) as other, somebody_writes(path):
            other.execute("BEGIN IMMEDIATE")
            with patience(database, 0.02), pytest.raises(django.db.OperationalError, match="locked"):
                write(database)
            other.rollback()
            # Where many write, the turn of somebody with little patience would never come.
            with patience(database, 0.02):
                write(database)

        assert count(database) == 1
        assert timeout_of(database) == LIMIT * 1000


def timeout_of(database: Any) -> int:
    """Milliseconds."""
    return int(database.connection.execute("PRAGMA busy_timeout").fetchone()[0])


def test_one_database_has_one_queue_in_a_process(path: str) -> None:
    assert queue_of(path) is queue_of(path)


# --- With a server ---------------------------------------------------------------------------------------------------


@pytest.mark.sqlite("queues in front of its lock")
def test_while_somebody_writes_others_read_and_download_and_saves_wait(make_server: Callable[..., Server]) -> None:
    server = make_server(WEB_CONCURRENCY="2").start(*NEW)
    with server.client() as client, ThreadPoolExecutor(4) as threads:
        assert client.save_config("aa-bb-cc-dd-ee-00", b"{}").status_code == 200
        with somebody_writes(str(server.data_dir / "db.sqlite3")):
            saves = [threads.submit(_save, server, number) for number in range(4)]
            assert client.get("/configs").json()["count"] == 1
            assert client.get("/configs/aa-bb-cc-dd-ee-00.json").content == b"{}"
            assert not any(save.done() for save in saves)

        assert [save.result() for save in saves] == [200] * 4


def _save(server: Server, number: int) -> int:
    with server.client() as client:
        return client.save_config(f"aa-bb-cc-dd-ff-{number:02x}", b"{}").status_code


@pytest.mark.sqlite("queues in front of its lock")
def test_a_command_and_a_server_write_in_turn(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server(WEB_CONCURRENCY="2").start(*NEW)
    folder = tmp_path / "imported"
    folder.mkdir()
    for number in range(100):
        (folder / f"02-00-00-00-00-{number:02x}.json").write_text("{}")
    is_over = threading.Event()

    def save(number: int) -> list[int]:
        statuses = []
        while not is_over.wait(0.02):  # the command needs the processor, too
            statuses.append(_save(server, number))
        return statuses

    with ThreadPoolExecutor(4) as threads:
        saving = [threads.submit(save, number) for number in range(4)]
        try:
            server.manage("import_configs", str(folder))
        finally:
            is_over.set()

    assert {status for each in saving for status in each.result()} == {200}
    assert len(server.configs()) == 104
    assert server.files("configs") == server.configs()


@marathon
@pytest.mark.sqlite("queues in front of its lock")
def test_workers_that_are_killed_in_the_middle_of_writing_hold_nobody_up(make_server: Callable[..., Server]) -> None:
    server = make_server(WEB_CONCURRENCY=str(WRITERS)).start(*NEW)
    is_over = threading.Event()
    counts = [0] * 6
    saved: dict[str, set[bytes]] = {}

    def save_on(number: int) -> None:
        mac_address, version = f"aa-bb-cc-dd-ee-{number:02x}", 0
        while not is_over.is_set():
            version += 1
            content = b'{"version": %d}' % version
            possible = saved.setdefault(f"{mac_address}.json", set())
            possible.add(content)
            try:
                with Client(server.url, server.token) as client:
                    answer = client.save_config(mac_address, content)
            except requests.RequestException:  # its worker was killed
                continue
            assert answer.status_code == 200, answer.text
            possible.intersection_update({content})
            counts[number] += 1

    def have_gone_on(before: list[int]) -> bool:
        return all(now > then + 1 for now, then in zip(counts, before, strict=True)) or any(map(Future.done, saving))

    with ThreadPoolExecutor(len(counts)) as threads:
        saving = [threads.submit(save_on, number) for number in range(len(counts))]
        try:
            for number in range(WRITERS_KILLED):
                before = counts.copy()
                workers = poll(server.workers, lambda found: len(found) == WRITERS)
                os.kill(workers[number % WRITERS], signal.SIGKILL)
                # Each of them saves again, twice: the first may have been on its way before.
                eventually(partial(have_gone_on, before))
        finally:
            is_over.set()
        for each in saving:
            each.result()

    configs = server.configs()
    assert configs.keys() == saved.keys()
    assert all(content in saved[name] for name, content in configs.items())
    server.environ["WEB_CONCURRENCY"] = "1"
    server.restart()
    assert server.files("configs") == server.configs() == configs
