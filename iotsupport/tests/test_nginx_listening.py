"""The socket to which nginx tells of downloads, and who reads it."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest

from iotsupport.boards import listening
from iotsupport.boards.checkins import CheckIn
from iotsupport.boards.listening import Listener
from iotsupport.boards.pending import Said
from iotsupport.serving import systemd
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.fixtures import *  # noqa: F403
from iotsupport.tests.support.waiting import LIMIT, eventually

MAC = "aa-bb-cc-dd-ee-ff"


class Heard:
    """In place of the collector, which would write it."""

    def __init__(self) -> None:
        self.check_ins: Queue[CheckIn] = Queue()
        self.repeated: Queue[Said] = Queue()
        self.is_known = False
        self.dropped = 0
        self.trouble: Exception | None = None

    def note(self, check_in: CheckIn) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.check_ins.put(check_in)

    def repeats(self, way: str, said: Said, at: float, *, is_download: bool) -> bool:
        self.repeated.put(said)
        return self.is_known

    def drop(self) -> None:
        self.dropped += 1

    def next_address(self) -> str:
        return self.check_ins.get(timeout=LIMIT).remote


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    heard = Heard()
    monkeypatch.setattr(listening, "collector", heard)
    return heard


@pytest.fixture
def path(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(systemd, "_descriptors", [])
    settings.DATA_DIR = tmp_path
    settings.CHECKINS_SOCKET = tmp_path / "checkins.sock"
    return Path(settings.CHECKINS_SOCKET)


@pytest.fixture
def listen(path: Path, heard: Heard) -> Iterator[Callable[[], Listener]]:
    listeners: list[Listener] = []

    def listen() -> Listener:
        listeners.append(Listener())
        listeners[-1].start()
        return listeners[-1]

    yield listen
    for listener in listeners:
        end(listener, path)


def tell(path: Path, datagram: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(datagram, str(path))


def is_sent(path: Path, datagram: bytes) -> bool:
    with suppress(OSError):
        tell(path, datagram)
        return True
    return False


def end(listener: Listener, path: Path) -> None:
    ended = Thread(target=listener.stop)
    ended.start()
    while ended.is_alive():
        with suppress(OSError):
            tell(path, b"")  # it looks up
        ended.join(0.01)


def line(address: str) -> bytes:
    told = {"uri": f"/configs/{MAC}.json", "method": "GET", "status": "200", "completed": "OK", "address": address}
    return json.dumps(told).encode()


def tell_until_heard(path: Path, heard: Heard, address: str) -> None:
    def is_told() -> bool:
        with suppress(OSError):
            tell(path, line(address))
        while not heard.check_ins.empty():
            if heard.next_address() == address:  # else it is one that was told twice before
                return True
        return False

    eventually(is_told)


def test_what_nginx_tells_is_noted(listen, path, heard):
    listen()

    tell_until_heard(path, heard, "192.168.1.7")


def test_nginx_runs_as_another_user_and_may_write_whatever_the_umask(listen, path, heard):
    umask = os.umask(0o077)
    try:
        listen()
        tell_until_heard(path, heard, "192.168.1.7")
    finally:
        os.umask(umask)

    assert path.stat().st_mode & 0o777 == 0o666


def test_a_socket_that_a_dead_reader_left_is_replaced(listen, path, heard):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    listen()

    tell_until_heard(path, heard, "192.168.1.7")


def test_a_socket_that_was_removed_is_made_again(listen, path, heard):
    listen()
    tell_until_heard(path, heard, "192.168.1.7")
    path.unlink()

    tell_until_heard(path, heard, "192.168.1.8")


def test_a_file_that_is_in_the_way_is_kept_until_somebody_removes_it(listen, path, heard, caplog):
    path.write_text("somebody's notes")
    with caplog.at_level(logging.WARNING, "iotsupport"):
        listen()
        eventually(lambda: caplog.messages)

    assert path.read_text() == "somebody's notes"
    path.unlink()
    tell_until_heard(path, heard, "192.168.1.7")
    assert caplog.messages == [
        f"Downloads from nginx are not noted until that is repaired: '{path}' is there, and no socket."
    ]


def test_one_listens_and_the_next_one_when_that_ends(listen, path, heard):
    first = listen()
    tell_until_heard(path, heard, "192.168.1.7")
    before = path.stat()
    listen()
    tell_until_heard(path, heard, "192.168.1.8")
    assert path.stat().st_mtime_ns == before.st_mtime_ns

    end(first, path)

    tell_until_heard(path, heard, "192.168.1.9")
    assert path.stat().st_mtime_ns != before.st_mtime_ns


def test_a_line_that_says_nothing_new_is_not_read_again(listen, path, heard):
    listen()
    eventually(path.exists)
    heard.is_known = True
    lines = [line("192.168.1.7"), line("192.168.1.8"), b"<190>Nov 27 02:16:33 nginx: " + line("192.168.1.7")]
    for datagram in lines:
        eventually(partial(is_sent, path, datagram))

    assert heard.repeated.get(timeout=LIMIT) == Said.of(heard.check_ins.get(timeout=LIMIT))
    assert heard.next_address() == "192.168.1.8"
    assert heard.check_ins.empty()


def test_what_cannot_be_read_is_dropped_and_said_once(listen, path, heard, caplog):
    listen()
    tell_until_heard(path, heard, "192.168.1.7")

    with caplog.at_level(logging.WARNING, "iotsupport"):
        for datagram in [b"", b"{", b"\xff" * 100, b"x" * 100_000]:
            tell(path, datagram)
        tell_until_heard(path, heard, "192.168.1.8")
    assert heard.dropped == 4
    assert len(caplog.messages) == 1


def test_a_fault_does_not_end_it(listen, path, heard, caplog):
    heard.trouble = RuntimeError("a fault")
    listen()
    eventually(path.exists)
    tell(path, line("192.168.1.7"))
    eventually(lambda: "Noting downloads from nginx was interrupted; it goes on" in caplog.messages)
    heard.trouble = None

    tell_until_heard(path, heard, "192.168.1.8")


def test_a_socket_that_systemd_owns_is_read_in_its_place(listen, path, heard, tmp_path, monkeypatch):
    elsewhere = tmp_path / "systemd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as owned:
        owned.bind(str(elsewhere))
        owned.setblocking(False)
        monkeypatch.setattr(systemd, "_descriptors", [owned.fileno()])
        listener = listen()

        tell_until_heard(elsewhere, heard, "192.168.1.7")
        # As systemd's NonBlocking= leaves it: it would never wait.
        assert os.get_blocking(owned.fileno())
        end(listener, elsewhere)

    assert not path.exists()


INHERITED = """
import os, socket, sys
datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
datagrams.bind(sys.argv[1])
stream = socket.create_server(("127.0.0.1", 0))
for place, sock in enumerate([datagrams, stream], 3):
    assert sock.fileno() == place
    sock.set_inheritable(True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2], sys.argv[1]])
"""
TAKING = """
import os, socket, sys
from iotsupport.boards.pending import Said
from iotsupport.serving import systemd
systemd.take_datagram_socket()
systemd.take_datagram_socket()
sock = socket.socket(fileno=3)
assert sock.type == socket.SOCK_STREAM and sock.family == socket.AF_INET
assert os.environ["LISTEN_FDS"] == "1"
environ = dict(os.environ)
systemd.leave_to(environ)
os.execve(sys.executable, [sys.executable, "-c", sys.argv[2], *sys.argv[1:]], environ)
"""
TAKING_OVER = """
import os, socket, sys
from iotsupport.boards.pending import Said
from iotsupport.serving import systemd
systemd.take_datagram_socket()
with systemd.datagram_socket() as sock:
    sock.sendto(b"for me", sys.argv[1])
    print(sock.recv(100).decode())
"""


@pytest.mark.processes
def test_of_the_sockets_that_systemd_opened_gunicorn_gets_those_of_http_and_the_next_master_the_other(tmp_path):
    taking = TAKING.replace("sys.argv[2]", repr(TAKING_OVER))
    command = [sys.executable, "-c", INHERITED, str(tmp_path / "checkins.sock"), taking]

    done = subprocess.run(command, cwd=BASE_DIR, capture_output=True, text=True, timeout=LIMIT)

    assert done.stdout == "for me\n", done.stderr
