"""Downloads while all threads of the application compute, and many strangers have connected before."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from gunicorn.config import Config
from gunicorn.glogging import Logger

from iotsupport.serving import worker
from iotsupport.serving.worker import Worker
from iotsupport.tests.support.server import NEW_CONF, Server
from iotsupport.tests.support.waiting import LIMIT, eventually

MAC = "aa-bb-cc-dd-ee-ff"
THREADS, DOWNLOADS = 24, 10
# A quarter of that where nothing else runs, and half as much again with the interval that Python has by itself.
MOST_SECONDS = 0.4


@pytest.mark.processes
def test_a_download_waits_not_for_each_thread_in_turn(make_server: Callable[..., Server], tmp_path: Path) -> None:
    busy, count = tmp_path / "busy", tmp_path / "count"
    os.mkfifo(busy)
    conf = tmp_path / "conf.py"
    conf.write_text(
        "import pathlib, runpy, threading\n"
        f"globals().update(runpy.run_path({str(NEW_CONF)!r}))\n"
        "def compute():\n"
        f"    open({str(busy)!r}).close()  # waits until somebody opens it to write\n"
        f"    open({str(count)!r}, 'a').write('x')\n"
        f"    while pathlib.Path({str(busy)!r}).exists():\n"
        "        for _ in range(1_000_000):\n"
        "            pass\n"
        "def post_worker_init(worker):\n"
        f"    for _ in range({THREADS}):\n"
        "        threading.Thread(target=compute, daemon=True).start()\n"
    )
    server = make_server().start("--config", str(conf), "--workers", "1")
    [pid] = server.workers()
    with server.client() as client:
        assert client.save_config(MAC, b"{}").status_code == 200
    with open(busy, "w"):
        eventually(lambda: count.exists() and count.stat().st_size == THREADS)

        # Not by the clock: another process may have the processor meanwhile.
        before = cpu_seconds(pid)
        for _ in range(DOWNLOADS):
            assert requests.get(f"{server.url}/configs/{MAC}.json", timeout=LIMIT).content == b"{}"
        seconds = (cpu_seconds(pid) - before) / DOWNLOADS

        busy.unlink()
    assert seconds < MOST_SECONDS


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(("room", "taken"), [(1000, [3, 6, 7, 7]), (5, [3, 5, 5])])
def test_some_of_those_who_wait_are_taken_at_once(monkeypatch: pytest.MonkeyPatch, room: int, taken: list[int]) -> None:
    monkeypatch.setattr(worker, "ACCEPTED_AT_ONCE", 3)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        config = Config()
        config.set("worker_connections", room)
        config.set("threads", 1)
        accepting = Worker(0, os.getpid(), [listener], None, 30, config, Logger(config))
        accepting.poller = stack.enter_context(selectors.DefaultSelector())
        for _ in range(7):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        seen = []
        for _ in taken:
            accepting.accept(listener)
            seen.append(accepting.nr_conns)
        for conn in list(accepting._polled):
            accepting._drop(conn)
        accepting.tmp.close()
    assert seen == taken
