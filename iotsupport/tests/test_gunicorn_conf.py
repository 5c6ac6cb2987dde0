"""What ``gunicorn.conf.py`` does, seen on a real gunicorn."""

from __future__ import annotations

import operator
import os
import re
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gunicorn
import pytest
import requests

from iotsupport import settings
from iotsupport.serving import only_one
from iotsupport.settings import BASE_DIR
from iotsupport.tests.owed.fleet import wait_until_announced
from iotsupport.tests.support.mosquitto import Subscriber
from iotsupport.tests.support.server import NEW, Installation, Server, clean_environ
from iotsupport.tests.support.waiting import LIMIT, poll

LISTS = r'^iot_config_operations_total\{operation="list",status="\w+"\} (\S+)'
DOWNLOADS = r'^iot_config_operations_total\{operation="get_raw",status="\w+"\} (\S+)'


@pytest.fixture(scope="module")
def running_server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="2").start()
    yield server
    server.remove()


@pytest.fixture
def server(running_server: Server) -> Server:
    """Two workers that count, neither of them on its way out. What they counted before is other tests'."""
    wait_until_both_count(running_server)
    return running_server


def wait_until_both_count(server: Server) -> None:
    def do_both_count(workers: list[int]) -> bool:
        return len(workers) == 2 and all(metrics_files(server, f"counter_{pid}.db") for pid in workers)

    poll(server.workers, do_both_count)


def metrics_files(server: Server, pattern: str = "*.db") -> list[str]:
    return sorted(path.name for path in (server.data_dir / "metrics").glob(pattern))


def count_downloads(server: Server) -> float:
    """Those that have ended by now, as the first scrape tells that knows of a later request."""
    with server.client() as client:
        client.get("/configs")
    asked[server.url] += 1

    def scrape() -> str:
        return requests.get(f"{server.url}/metrics", timeout=LIMIT).text

    text = poll(scrape, lambda text: total(LISTS, text) >= asked[server.url])
    return total(DOWNLOADS, text)


# How often each server was asked for its list.
asked: Counter[str] = Counter()


def total(pattern: str, text: str) -> float:
    return sum(float(value) for value in re.findall(pattern, text, re.MULTILINE))


def download(server: Server, times: int) -> None:
    for _ in range(times):
        requests.get(f"{server.url}/configs/02-00-00-00-00-01.json", timeout=LIMIT)


class Killed(NamedTuple):
    """A worker that was killed, what was allocated for its counts, and how many downloads were counted after it."""

    pid: int
    allocated: os.stat_result
    counted: float


@pytest.fixture(scope="module")
def killed(running_server: Server) -> Killed:
    """One of two, after twenty downloads; and a file has the bytes from before a commit. Another took its place."""
    server = running_server
    with server.client() as client:
        assert client.save_config("02-00-00-00-00-02", b'{"version": 2}').status_code == 200
    (server.directory("configs") / "02-00-00-00-00-02.json").write_bytes(b'{"version": 1}')
    wait_until_both_count(server)
    before = count_downloads(server)
    download(server, 20)
    pid = server.workers()[0]
    allocated = (server.data_dir / "metrics" / f"counter_{pid}.db").stat()
    # The other one may have answered all that was asked so far.
    poll(lambda: metrics_files(server, f"gauge_live*_{pid}.db"), bool)
    first_line = len(server.lines)
    os.kill(pid, signal.SIGKILL)
    server.wait_for_log("Booting worker with pid", after=first_line)
    return Killed(pid, allocated, count_downloads(server) - before)


@pytest.mark.processes
def test_files_equal_the_database_soon_after_a_worker_died(killed, server):
    """It may have been killed after a commit, and before the file had its bytes."""

    def download() -> bytes:
        return requests.get(f"{server.url}/configs/02-00-00-00-00-02.json", timeout=LIMIT).content

    poll(download, lambda content: content == b'{"version": 2}')


@pytest.mark.processes
def test_the_master_sets_up_nothing_that_belongs_to_the_workers(tmp_path):
    code = (
        "import runpy, sys; runpy.run_path('gunicorn.conf.py');"
        "print([name for name in ['django.db', 'django.apps', 'paho', 'prometheus_client'] if name in sys.modules])"
    )
    environ = clean_environ({"DATA_DIR": str(tmp_path), "METRICS_DIR": str(tmp_path / "metrics")})

    done = subprocess.run([sys.executable, "-c", code], cwd=BASE_DIR, env=environ, capture_output=True, text=True)

    assert done.stdout.strip() == "[]", done.stderr
    # gunicorn --check-config does no more.
    assert not (tmp_path / "metrics").exists()


def test_a_second_server_on_the_same_data_is_refused_and_leaves_the_metrics_of_the_one_that_runs(server):
    before = count_downloads(server)
    download(server, 3)

    second = subprocess.run(
        [sys.executable, "-m", "gunicorn", "iotsupport.wsgi"],
        cwd=BASE_DIR,
        env=clean_environ({**server.environ, "PORT": "0"}),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )

    assert second.returncode == 1
    [master, *_] = server.processes()
    assert f"Another server serves DATA_DIR '{server.data_dir}': process {master} at {server.url}" in second.stderr
    assert "Traceback" not in second.stderr
    assert count_downloads(server) == before + 3


def test_the_page_on_the_state_names_the_master_and_each_worker(server):
    master, *workers = server.processes()

    with server.administrator() as browser:
        shown = browser.get(f"{server.url}/admin/state/", timeout=LIMIT).text

    assert f"process {master} at {server.url}, started " in shown
    assert all(f"Worker {pid}</span>" in shown for pid in workers)
    assert shown.count(f" of {settings.WORKER_THREADS} threads at work") == 2
    assert "all were equal" in shown or "were made equal" in shown
    assert "There is no answer in time" not in shown


def test_a_killed_worker_takes_its_gauges_with_it_and_leaves_its_counts_in_no_more_memory_than_they_need(
    killed, server
):
    assert killed.allocated.st_blocks * 512 >= killed.allocated.st_size >= 64 * 1024
    assert metrics_files(server, f"gauge_live*_{killed.pid}.db") == []
    [counted] = (server.data_dir / "metrics").glob(f"counter_{killed.pid}.db")
    poll(lambda: counted.stat().st_size, lambda size: size < killed.allocated.st_size)
    assert killed.counted == 20


def test_counts_survive_reload_and_more_and_fewer_workers(server):
    first = count_downloads(server)

    for number, said, times in [
        (signal.SIGHUP, "Worker exiting", 2),
        (signal.SIGTTIN, "Booting worker", 1),
        (signal.SIGTTOU, "Worker exiting", 1),
    ]:
        before = len(server.lines)
        counted = count_downloads(server) + 5
        download(server, 5)
        server.signal(number)
        server.wait_for_log(said, after=before, count=times)

        poll(lambda: count_downloads(server), partial(operator.eq, counted))

    assert count_downloads(server) == first + 15


def test_a_start_forgets_the_metrics_of_the_server_before_but_not_where_it_takes_over_from_one_that_runs(make_server):
    """The old one's workers go on serving until it is told to end."""
    server = make_server()
    directory = server.data_dir / "metrics"
    directory.mkdir()
    (directory / "counter_1.db").write_bytes(b"not even a file of metrics")
    (directory / "notes.txt").write_text("mine")

    server.start()

    assert "counter_1.db" not in metrics_files(server)
    assert (directory / "notes.txt").exists()
    assert count_downloads(server) == 0
    download(server, 5)
    # Of a worker that died, without a count: the living write theirs anew.
    (directory / "counter_4194305.db").write_bytes(bytes(8))
    first_line = len(server.lines)

    server.signal(signal.SIGUSR2)

    [booting] = server.wait_for_log("Booting worker", after=first_line)
    pid = booting.rpartition(" ")[2]
    poll(lambda: metrics_files(server, f"counter_{pid}.db"), bool)  # it has loaded the application, and counts
    assert "counter_4194305.db" in metrics_files(server)
    assert count_downloads(server) == 5

    first = server.processes()[0]
    second = only_one.running_server(server.data_dir)
    assert second is not None and second.pid not in {first, int(pid)}
    assert second.address == server.url

    # The directory is that of the new one, until that ends: be it killed, and its worker left.
    server.signal(signal.SIGTERM)
    server._process.wait(LIMIT)
    assert only_one.running_server(server.data_dir) == second
    os.kill(int(pid), signal.SIGSTOP)
    os.kill(second.pid, signal.SIGKILL)
    poll(lambda: only_one.running_server(server.data_dir), lambda running: running is None)


def test_under_systemd_one_that_takes_over_is_the_main_process_before_the_old_one_ends(make_server, memory):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(memory / "notify"))
        notified.settimeout(LIMIT)
        server = make_server(NOTIFY_SOCKET=str(memory / "notify")).start(*NEW)
        assert notified.recv(100).startswith(b"READY=1")
        old = server.processes()[0]

        server.signal(signal.SIGUSR2)

        assert notified.recv(100).startswith(b"READY=1")
        new = int(notified.recv(100).removeprefix(b"MAINPID="))
        assert new != old
        server.wait_for_log("Handling signal: term")
        [ended] = server.wait_for_log("Master has been promoted")
        assert f"[{new}]" in ended
        assert requests.get(f"{server.url}/health", timeout=LIMIT)


def test_recycled_workers_keep_the_counts(make_server):
    server = make_server().start(*NEW, "--max-requests", "10")

    download(server, 25)

    server.wait_for_log("Autorestarting worker", count=2)
    assert count_downloads(server) == 25


def test_servers_share_no_metrics_and_one_that_ends_gives_back_their_memory(on_disk, server, make_server, memory):
    other = make_server(on_disk / "server", METRICS_DIR="", RUNTIME_DIRECTORY=str(memory)).start(*NEW)
    (directory,) = memory.iterdir()
    assert list(directory.glob("*.db"))
    before = count_downloads(server)

    download(server, 4)

    assert count_downloads(server) == before + 4
    assert count_downloads(other) == 0

    other.stop()

    assert list(memory.iterdir()) == []


@pytest.fixture
def memory() -> Iterator[Path]:
    """A runtime directory on another disk than the data of tests."""
    with tempfile.TemporaryDirectory(prefix="iotsupport-tests-", dir="/dev/shm") as path:  # noqa: S108
        yield Path(path)


def test_files_equal_the_database_before_the_first_request_is_answered_and_devices_with_old_bytes_are_called_back(
    make_server, broker
):
    """What a power cut may leave: the file's new name was not on the disk yet."""
    server = make_server(MQTT_URL=broker.url).start(*NEW)
    path = server.directory("configs") / "02-00-00-00-00-01.json"
    with server.client() as client:
        client.save_config(path.stem, b'{"version": 1}')
        old = path.read_bytes()
        client.save_config(path.stem, b'{"version": 2}')
    wait_until_announced(server)
    server.stop()
    path.write_bytes(old)

    with Subscriber(broker.port) as subscriber:
        server.start()

        answer = requests.get(f"{server.url}/configs/{path.name}", timeout=LIMIT)
        assert answer.content == path.read_bytes() == b'{"version": 2}'
        assert subscriber.next().payload == b'{"filename": "02-00-00-00-00-01.json"}'


def test_workers_say_goodbye_to_the_broker_though_a_download_does_not_end(make_server, broker):
    """The worker stops waiting for slow clients before the master stops waiting for the worker."""
    server = make_server(MQTT_URL=broker.url).start(*NEW)
    client_id = f"iotsupport-.*-{server.workers()[0]}-"
    broker.wait_for_log(f"New client connected .* as {client_id}")
    with server.client() as client:
        client.upload("firmware.bin", bytes(32 * 1024 * 1024))

    with requests.get(f"{server.url}/assets/firmware.bin", stream=True, timeout=LIMIT) as slow:
        assert slow.raw.read(1)
        server.stop()

    broker.wait_for_log(f"Received DISCONNECT from {client_id}")


def test_no_module_is_looked_for_in_gunicorns_own_directory(tmp_path, monkeypatch):
    """Python puts it first after SIGUSR2, as it was named: through a link, where the environment is reached by one."""
    (tmp_path / "link").symlink_to(os.path.dirname(gunicorn.__file__))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "link"), *sys.path])
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # which the file sets

    runpy.run_path(str(BASE_DIR / "gunicorn.conf.py"))

    assert str(tmp_path / "link") not in sys.path
    assert os.path.dirname(gunicorn.__path__[0]) in sys.path


def test_a_server_may_have_a_file_open_for_each_client_and_one_for_each_download(monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # which the file sets
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        conf = runpy.run_path(str(BASE_DIR / "gunicorn.conf.py"))

        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == hard or raised > 2 * conf["worker_connections"]
        assert raised > 1024
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
