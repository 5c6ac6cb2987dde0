"""All that an installation keeps on one disk that fills up, becomes read-only or goes away: no process dies of it.

Devices go on downloading, what is read is answered, changes are refused with a sentence; and when it is over,
everything works again without a restart.
"""

from __future__ import annotations

import operator
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests

from iotsupport.tests.owed.fleet import wait_until_announced
from iotsupport.tests.support.databases import is_on_postgresql
from iotsupport.tests.support.disk import Disk, Image, may_mount
from iotsupport.tests.support.module_broker import *  # noqa: F403
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.noting import ask_while_nothing_is_noted, dropped, wait_until_noted
from iotsupport.tests.support.server import NEW, NEW_CONF, Installation, Server
from iotsupport.tests.support.waiting import LIMIT, poll

MAC, BY_HAND = "aa-bb-cc-dd-ee-ff", "00-00-00-00-00-02"
OLD_CONFIG, NEW_CONFIG = b'{"version": 1}', b'{"version": 2}'
OLD_ASSET, NEW_ASSET = b"old" * 5_000, b"new" * 5_000
NO_ROOM, READ_ONLY, MISSING = "No room is left on the disk of", "cannot be written", "is missing|cannot be opened"

# Of the server of all tests, in place of a thousand: boards without a configuration that a worker remembers.
MOST_ASKING = 200

DOWNLOADS = 'iot_config_operations_total{operation="get_raw",status="success"}'
REFUSED = DOWNLOADS.replace("success", "error")

needs_mounts = pytest.mark.skipif(not may_mount(), reason="Only root may mount a disk, where mounting is allowed.")
pytestmark = pytest.mark.processes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Image]:
    with Image(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture(scope="module")
def installed(
    template: Installation, broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Image]]:
    """A server with all that it keeps on the disk, but its metrics, as systemd's services have it that set nothing.

    All tests have it, since nothing of their trouble stays.
    """
    with (
        tempfile.TemporaryDirectory(prefix="iotsupport-tests-", dir="/dev/shm") as memory,  # noqa: S108
        Image(tmp_path_factory.mktemp("installed") / "disk") as disk,
    ):
        conf = tmp_path_factory.mktemp("conf") / "forgetful.py"
        conf.write_text(
            "import runpy\n"
            f"globals().update(runpy.run_path({str(NEW_CONF)!r}))\n"
            "begin = post_worker_init\n"
            "def post_worker_init(worker):\n"
            "    from iotsupport.boards import pending\n"
            f"    pending.MOST_ASKING = {MOST_ASKING}\n"
            "    begin(worker)\n"
        )
        variables = {"MQTT_URL": broker.url, "METRICS_DIR": "", "RUNTIME_DIRECTORY": memory, "WEB_CONCURRENCY": "2"}
        server = Server(template, disk.path / "data", **variables)
        server.start_connected(broker, "--config", str(conf))
        yield server, disk
        server.kill()
        assert list(Path(memory).glob("iotsupport-*/counter_*.db"))
        server.remove()


@pytest.fixture
def disk(installed: tuple[Server, Image]) -> Iterator[Image]:
    server, disk = installed
    yield disk
    disk.make_writable()  # where the test failed
    disk.free()
    if not server.data_dir.exists():
        (disk.path / "elsewhere").rename(server.data_dir)


@pytest.fixture
def server(installed: tuple[Server, Image], disk: Image) -> Iterator[Server]:
    """It has one configuration, and one asset, and owes nothing; at the end, no worker has died."""
    server, _ = installed
    workers = server.workers()
    with server.client() as client:
        client.delete(f"/configs/{BY_HAND}")
        assert client.save_config(MAC, OLD_CONFIG).status_code == 200
        assert client.upload("firmware.bin", OLD_ASSET).status_code == 200
    wait_until_announced(server)
    # What was seen a moment before is told again.
    poll(lambda: metrics(server), lambda samples: samples.get("iot_config_files_count") == 1)
    yield server
    assert server.workers() == workers, server.log


@pytest.fixture(scope="module")
def pair_of_workers(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("pair"), WEB_CONCURRENCY="2").start(*NEW)
    yield server
    server.remove()


def health(server: Server) -> requests.Response:
    return requests.get(f"{server.url}/health", timeout=LIMIT)


def metrics(server: Server) -> dict[str, float]:
    """Samples by name and labels."""
    response = requests.get(f"{server.url}/metrics", timeout=LIMIT)
    assert response.status_code == 200
    lines = [line.rpartition(" ") for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def assert_downloads_work(server: Server) -> None:
    assert requests.get(f"{server.url}/configs/{MAC}.json", timeout=LIMIT).content == OLD_CONFIG
    assert requests.get(f"{server.url}/assets/firmware.bin", timeout=LIMIT).content == OLD_ASSET


def assert_reads_work(server: Server, browser: requests.Session) -> None:
    with server.client() as client:
        assert client.get("/configs").json()["count"] == 1
        assert client.get(f"/configs/{MAC}").json()["content"] == {"version": 1}
    assert MAC in browser.get(f"{server.url}/admin/devices/deviceconfig/", timeout=LIMIT).text
    assert metrics(server)["iot_config_files_count"] == 1


def assert_changes_are_refused(server: Server, browser: requests.Session, reason: str) -> None:
    with server.client() as client:
        for refused in [client.save_config(MAC, NEW_CONFIG), client.upload("firmware.bin", NEW_ASSET)]:
            assert refused.status_code == 503, refused.text
            assert any(part in refused.json()["error"] for part in reason.split("|")), refused.text
    if reason != MISSING:
        form = f"{server.url}/admin/devices/deviceconfig/add/"
        typed = {"mac_address": "00-00-00-00-00-01", "content": '{"typed": "by hand"}'}
        answer = browser.post(form, {**typed, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}, timeout=LIMIT)
        assert reason in answer.text
        assert "by hand" in answer.text


def assert_unhealthy(server: Server, reason: str) -> None:
    answer = poll(lambda: health(server), lambda response: response.status_code == 503).json()
    assert answer["status"] == "unhealthy"
    assert any(part in answer["reason"] for part in reason.split("|")), answer


def assert_everything_works(server: Server, broker: Mosquitto) -> None:
    with Subscriber(broker.port) as subscriber, server.client() as client:
        assert client.save_config(MAC, NEW_CONFIG).status_code == 200
        assert subscriber.next().payload == b'{"filename": "%s.json"}' % MAC.encode()
        assert client.get(f"/configs/{MAC}.json").content == NEW_CONFIG
        uploaded = client.upload("firmware.bin", NEW_ASSET)
        assert uploaded.status_code == 200, uploaded.text
        assert subscriber.next().payload == b'{"filename": "firmware.bin"}'
        assert client.get("/assets/firmware.bin").content == NEW_ASSET
        server.sign_in()
        with server.administrator() as browser:
            typed = {"mac_address": BY_HAND, "content": '{"typed": "by hand"}'}
            form = f"{server.url}/admin/devices/deviceconfig/add/"
            answer = browser.post(form, {**typed, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}, timeout=LIMIT)
            assert answer.history, answer.text
        assert subscriber.next().payload == b'{"filename": "%s.json"}' % BY_HAND.encode()
        assert client.get(f"/configs/{BY_HAND}.json").content == typed["content"].encode()
    poll(lambda: health(server), lambda response: response.status_code == 200)
    assert poll(lambda: metrics(server), lambda samples: samples.get("iot_database_up") == 1)
    assert DOWNLOADS in metrics(server)


@contextmanager
def downloads_throughout(server: Server) -> Iterator[None]:
    """A board asks all the time, and each time gets what was saved last."""
    is_over, answers = threading.Event(), Counter[tuple[int, bytes]]()

    def download() -> None:
        while not is_over.is_set():
            # What requests does for a connection would take longer than the server's answer.
            with closing(HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)) as connection:
                connection.request("GET", f"/configs/{MAC}.json")
                with connection.getresponse() as answer:
                    answers[answer.status, answer.read()] += 1
            is_over.wait(0.02)  # the server needs the processor, too

    with ThreadPoolExecutor(1) as threads:
        board = threads.submit(download)
        try:
            yield
        finally:
            is_over.set()
        board.result()
    assert set(answers) == {(200, OLD_CONFIG), (200, NEW_CONFIG)}


@needs_mounts
@pytest.mark.both_databases
def test_a_full_disk(server: Server, disk: Image, broker: Mosquitto) -> None:
    with downloads_throughout(server):
        with server.administrator() as browser:
            disk.fill()

            for _ in range(20):  # each worker
                health(server), metrics(server)
            assert_unhealthy(server, NO_ROOM)
            assert_downloads_work(server)
            assert_reads_work(server, browser)
            assert_changes_are_refused(server, browser, NO_ROOM)
            assert metrics(server)["iot_database_up"] == 1

        disk.free()
        assert_everything_works(server, broker)


@needs_mounts
@pytest.mark.sqlite("the disk of its file")
def test_what_boards_do_while_the_disk_is_full_is_dropped_or_noted_afterwards(server: Server, disk: Image) -> None:
    before = dropped(server)
    disk.fill()

    name = ask_while_nothing_is_noted(server, MAC, strangers=MOST_ASKING + 200)

    poll(lambda: dropped(server), lambda count: count >= before + 200)
    disk.free()
    wait_until_noted(server, MAC, name)
    asking = "SELECT count(*) FROM iotsupport_board WHERE state = 'waiting'"
    poll(lambda: server.query(asking)[0][0], lambda count: 0 < count <= MOST_ASKING)


@needs_mounts
@pytest.mark.sqlite("the files that it puts beside its own")
def test_a_full_disk_while_nobody_is_connected_to_the_database(
    make_server: Callable[..., Server], small_disk: Image
) -> None:
    server = make_server(data_dir=small_disk.path / "data").start(*NEW)
    with server.client() as client:
        assert client.get("/configs").status_code == 200
        small_disk.fill()

        assert client.get("/configs").status_code == 200
    server.kill()


@needs_mounts
def test_a_disk_that_becomes_read_only(server: Server, disk: Image, broker: Mosquitto) -> None:
    with downloads_throughout(server):
        with server.administrator() as browser:
            disk.make_read_only()

            assert_unhealthy(server, READ_ONLY)
            assert_downloads_work(server)
            assert_reads_work(server, browser)
            assert_changes_are_refused(server, browser, READ_ONLY)

        disk.make_writable()
        assert_everything_works(server, broker)


@needs_mounts
def test_a_disk_that_goes_away_and_comes_back(server: Server, disk: Image, broker: Mosquitto) -> None:
    with server.administrator() as browser:
        server.data_dir.rename(disk.path / "elsewhere")

        assert_unhealthy(server, MISSING)
        assert_changes_are_refused(server, browser, MISSING)
        # Not 404: a device would take its file for gone.
        assert requests.get(f"{server.url}/configs/{MAC}.json", timeout=LIMIT).status_code == 503
        assert requests.get(f"{server.url}/assets/firmware.bin", timeout=LIMIT).status_code == 503
        samples = poll(lambda: metrics(server), lambda samples: is_on_postgresql() or not samples["iot_database_up"])
        assert is_on_postgresql() or "iot_config_files_count" not in samples
        assert DOWNLOADS in samples

    (disk.path / "elsewhere").rename(server.data_dir)
    assert_downloads_work(server)
    assert_everything_works(server, broker)


# --- The directory of the metrics --------------------------------------------------------------------------------


@needs_mounts
def test_no_room_for_metrics(make_server: Callable[..., Server], broker: Mosquitto, tmp_path: Path) -> None:
    with Disk(tmp_path / "memory") as memory:
        server = make_server(MQTT_URL=broker.url, METRICS_DIR=str(memory.path / "metrics"), WEB_CONCURRENCY="2")
        (memory.path / "metrics").mkdir()
        memory.fill()
        server.start()
        workers = server.workers()

        with server.client() as client:
            assert client.save_config(MAC, OLD_CONFIG).status_code == 200
            assert client.upload("firmware.bin", OLD_ASSET).status_code == 200
        assert_downloads_work(server)
        poll(lambda: health(server).status_code, partial(operator.eq, 200))
        samples = poll(lambda: metrics(server), lambda samples: samples["iot_database_up"] == 1)
        assert DOWNLOADS not in samples
        assert len(server.wait_for_log("Metrics are off")) == 1

        memory.free()
        poll(lambda: metrics(server), lambda samples: samples.get(DOWNLOADS, 0) > 0)
        assert server.workers() == workers
        server.kill()


def test_without_metrics_everything_else_works_and_a_check_says_so(make_server: Callable[..., Server]) -> None:
    server = make_server()
    (server.data_dir / "metrics").write_text("in the way")

    server.start()

    poll(lambda: metrics(server)["iot_database_up"], partial(operator.eq, 1))
    poll(lambda: health(server).status_code, partial(operator.eq, 200))
    said = server.wait_for_log("iotsupport.W020. METRICS_DIR .*/metrics cannot be written .it is not a directory.")
    assert len(said) == 1
    assert "Metrics are off" not in server.log


def cut_short(file: Path) -> None:
    file.write_bytes(b"")


def damage(file: Path) -> None:
    file.write_bytes(b"garbage" * 10_000)


def remove(file: Path) -> None:
    file.unlink()


def test_files_of_metrics_that_are_harmed_and_a_directory_that_is_gone_are_made_anew(
    make_server: Callable[..., Server],
) -> None:
    server = make_server().start(*NEW)
    workers = server.workers()
    with server.client() as client:
        client.save_config(MAC, OLD_CONFIG)
    for times, harm in enumerate([cut_short, damage, remove], start=1):
        for _ in range(5):
            requests.get(f"{server.url}/configs/{MAC}.json", timeout=LIMIT)
        files = list((server.data_dir / "metrics").glob("*.db"))
        assert files

        for file in files:
            harm(file)

        poll(lambda: metrics(server).get(DOWNLOADS), partial(operator.eq, 5 * times))

    (server.data_dir / "metrics").rename(server.data_dir / "elsewhere")
    requests.get(f"{server.url}/configs/{BY_HAND}.json", timeout=LIMIT)

    samples = poll(lambda: metrics(server), lambda samples: samples.get(REFUSED) == 1)
    assert samples[DOWNLOADS] == 5 * times
    assert server.workers() == workers


def test_a_file_of_metrics_that_cannot_be_read_is_left_out_and_that_is_said_once(pair_of_workers: Server) -> None:
    server = pair_of_workers
    directory = server.data_dir / "metrics"
    (directory / "counter_999999.db").write_bytes(b"")
    (directory / "histogram_999999.db").write_bytes(b"\0\1\0\0" + b"x" * 200)
    (directory / "gauge_livemin_999999.db").mkdir()
    (directory / "notes.db").write_text("not of ours")

    looks: set[int] = set()

    def count_looks() -> int:
        metrics(server)
        looks.add((directory / "counts.page").stat().st_mtime_ns)
        return len(looks)

    poll(count_looks, lambda count: count >= 3)

    assert metrics(server)["iot_database_up"] == 1
    assert len(server.wait_for_log("Left out of the metrics", count=3)) == 3


# --- Whoever asks, how often ever --------------------------------------------------------------------------------


def test_health_and_metrics_are_looked_up_once_a_second_however_often_they_are_asked_for(
    pair_of_workers: Server,
) -> None:
    server = pair_of_workers
    probed = [server.directory(name) for name in ["configs", "assets", "blobs"]]
    pages = [server.data_dir / "metrics" / f"{name}.page" for name in ["health", "counts", "database"]]
    health(server)
    metrics(server)
    seen: dict[Path, set[int]] = {path: set() for path in [*probed, *pages]}
    begin = time.monotonic()
    is_over = threading.Event()

    asked: list[float] = []

    def ask() -> None:
        with requests.Session() as session:
            while not is_over.is_set():
                assert session.get(f"{server.url}/health", timeout=LIMIT).status_code == 200
                assert session.get(f"{server.url}/metrics", timeout=LIMIT).status_code == 200
                asked.append(time.monotonic())
                is_over.wait(0.03)  # the server needs the processor, too

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        try:
            # Until each of the two workers was asked more often than once a second, however slow the machine is.
            while (lasts := time.monotonic() - begin) < 3 or (len(asked) <= 2 * lasts and lasts < LIMIT):
                for path, times in seen.items():
                    times.add(path.stat().st_mtime_ns)
                is_over.wait(0.005)
        finally:
            is_over.set()
    seconds = time.monotonic() - begin

    for each in asking:
        each.result()
    assert len(asked) > 2 * seconds
    # Each look makes a file and removes it: two changes. One look may be under way at either end.
    for path in probed:
        assert len(seen[path]) <= 2 * (seconds + 2), path
    for path in pages:
        assert len(seen[path]) <= 2 * (seconds + 2), path


@pytest.mark.sqlite("locks all of it")
def test_a_database_that_somebody_else_keeps_locked(make_server: Callable[..., Server]) -> None:
    server = make_server().start(*NEW)
    with server.client() as client, closing(sqlite3.connect(server.data_dir / "db.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")

        began = time.monotonic()
        assert client.get("/configs").status_code == 200
        # It would wait for twenty seconds.
        assert time.monotonic() - began < 15
        assert_unhealthy(server, "kept locked by another process")

        other.rollback()
        poll(lambda: health(server).status_code, lambda status: status == 200)
        query = "SELECT last_used_at FROM iotsupport_apitoken WHERE last_used_at IS NOT NULL"
        while not server.query(query):
            client.get("/configs")
