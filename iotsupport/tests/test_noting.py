"""Every way in which a download is answered notes what it tells; none answers otherwise because of that."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from prometheus_client import REGISTRY

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.boards import collector as collector_module
from iotsupport.boards import noting
from iotsupport.boards.checkins import WAYS
from iotsupport.boards.collector import CheckInCollector
from iotsupport.boards.models import Board, HourlyCount, State
from iotsupport.boards.pending import Batch
from iotsupport.monitoring.metrics import _from_database
from iotsupport.serving.ahead_of_django import FastDownloadsMiddleware
from iotsupport.serving.quick_requests import parse_quick_request
from iotsupport.tests.support.checkins import MAC, NOON, Collector, etag, fetched
from iotsupport.tests.support.waiting import LIMIT

CONTENT = '{"version": 1}'
REMOTE = "192.0.2.7"

pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch, directories: Path) -> Collector:
    monkeypatch.setattr(noting.time, "time", lambda: NOON)
    collector = Collector()
    monkeypatch.setattr(noting, "collector", collector)
    return collector


@pytest.fixture
def saved(collector: Collector) -> None:
    DeviceConfig.objects.put(MAC, CONTENT)


def quickly(path: str, method: str = "GET", remote: str = REMOTE, **headers: str) -> int:
    """The worker's main thread answers by itself."""
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    environ = parse_quick_request(f"{method} {path} HTTP/1.1\r\nHost: iot\r\n{fields}\r\n".encode(), remote)
    assert environ is not None
    answer = FastDownloadsMiddleware.answer_quickly(environ)
    assert answer is not None
    return int(answer[0][:3])


def ahead_of_django(path: str, method: str = "GET", remote: str = REMOTE, **headers: str) -> int:
    """A thread of the worker answers ahead of Django."""
    fields = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "REMOTE_ADDR": remote, "wsgi.input": io.BytesIO(), **fields}
    statuses: list[str] = []

    def start(status: str, *more: Any) -> Any:
        statuses.append(status)

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("It was left to Django.")

    body = FastDownloadsMiddleware(refuse)(environ, start)
    for _ in body:
        pass
    getattr(body, "close", lambda: None)()
    return int(statuses[0][:3])


def by_the_view(path: str, method: str = "GET", remote: str = REMOTE, **headers: str) -> int:
    """Django answers, as it does what is spelled otherwise."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    response = Client().generic(method, path, headers=fields, REMOTE_ADDR=remote)
    response.close()
    return response.status_code


def noted(collector: Collector) -> Board:
    collector.flush()
    return Board.objects.get(mac_address=MAC)


def count(way: str) -> float:
    return REGISTRY.get_sample_value("iot_checkins_total", {"way": way}) or 0


Ask = Callable[..., int]
EACH_WAY = pytest.mark.parametrize(
    ("ask", "way", "path"),
    [
        (quickly, "worker", f"/configs/{MAC}.json"),
        (ahead_of_django, "worker", f"/api/esp32/config/{MAC}.json"),
        (by_the_view, "view", f"/configs/{MAC.upper()}.json"),
    ],
    ids=["quickly", "ahead of Django", "view"],
)


@EACH_WAY
def test_a_download_is_noted(saved: None, collector: Collector, ask: Ask, way: str, path: str) -> None:
    before = {each: count(each) for each in WAYS}

    assert ask(path, user_agent="kitchen/1.4.2", x_esp32_sdk_version="v5.4") == 200

    row = noted(collector)
    assert (row.state, row.last_address, row.user_agent) == (State.CURRENT, REMOTE, "kitchen/1.4.2")
    assert (row.runs_version, row.sdk_version) == ("1.4.2", "v5.4")
    assert {each: count(each) - before[each] for each in WAYS} == {each: float(each == way) for each in WAYS}
    assert HourlyCount.objects.get().count == 1


@EACH_WAY
def test_what_is_not_sent_again_is_noted(saved: None, collector: Collector, ask: Ask, way: str, path: str) -> None:
    assert ask(path, if_none_match=etag(CONTENT)) == 304

    assert noted(collector).state == State.CURRENT


@EACH_WAY
def test_of_a_part_only_the_end_is_noted(saved: None, collector: Collector, ask: Ask, way: str, path: str) -> None:
    assert ask(path, range="bytes=0-3") == 206
    assert noted(collector).state == State.NEVER_FETCHED

    assert ask(path, range="bytes=4-") == 206
    assert noted(collector).state == State.CURRENT


@EACH_WAY
def test_asking_for_the_head_says_what_is_held(
    saved: None, collector: Collector, ask: Ask, way: str, path: str
) -> None:
    assert ask(path, "HEAD", if_none_match=etag("before")) == 200

    assert noted(collector).state == State.BEHIND
    assert not HourlyCount.objects.exists()


@EACH_WAY
def test_what_is_a_mistake_is_not_noted(saved: None, collector: Collector, ask: Ask, way: str, path: str) -> None:
    assert ask(path, if_match='"another"') == 412
    assert ask(path, range="bytes=999-") == 416

    assert noted(collector).last_seen is None


@EACH_WAY
def test_behind_a_front_server_the_boards_own_address_is_noted(
    saved: None, collector: Collector, ask: Ask, way: str, path: str
) -> None:
    ask(path, remote="127.0.0.1", x_forwarded_for=f"198.51.100.1, {REMOTE}")

    assert noted(collector).last_address == REMOTE


@EACH_WAY
def test_who_asks_a_hundred_times_is_counted_so_often_and_noted_once(
    saved: None, collector: Collector, ask: Ask, way: str, path: str, monkeypatch: Any
) -> None:
    before = count(way)
    for _ in range(100):
        ask(path)
    assert len(collector._pending._known._heard) == 1

    noted(collector)
    assert count(way) - before == 100
    assert HourlyCount.objects.get().count == 100


@EACH_WAY
def test_a_download_is_answered_whatever_noting_it_does(
    saved: None, collector: Collector, ask: Ask, way: str, path: str, monkeypatch: Any, caplog: Any
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no memory, say")

    monkeypatch.setattr(collector, "take", fail)

    assert ask(path) == 200
    assert "A check-in could not be noted" in caplog.text


@pytest.mark.parametrize("path", ["/configs/{}.json", "/esp32/config/{}.json", "/api/configs/{}.json"])
@pytest.mark.parametrize("spelled", [MAC, MAC.upper(), MAC.replace("-", ":"), MAC.replace("-", "")])
def test_who_asks_for_what_is_not_there_waits(collector: Collector, path: str, spelled: str) -> None:
    assert by_the_view(path.format(spelled)) == 404

    row = noted(collector)
    assert (row.state, row.asked, row.last_address) == (State.WAITING, 1, REMOTE)


@pytest.mark.parametrize("name", ["kitchen", "aa-bb-cc-dd-ee", f"{MAC}-00", "x" * 500])
def test_who_asks_for_what_is_no_mac_address_is_no_board(collector: Collector, name: str) -> None:
    assert by_the_view(f"/configs/{name}.json") == 400

    collector.flush()
    assert not Board.objects.exists()


@pytest.mark.parametrize(
    ("ask", "name"),
    [(ahead_of_django, "firmware.bin"), (by_the_view, "copy of firmware.bin")],
    ids=["ahead of Django", "view"],
)
def test_a_firmware_s_download_says_what_runs(saved: None, collector: Collector, ask: Ask, name: str) -> None:
    Asset.objects.upload(name, [b"firmware"])

    status = ask(
        f"/assets/{name}",
        user_agent="ESP32-http-Update",
        x_esp32_sta_mac=MAC.replace("-", ":").upper(),
        x_esp32_version="1.4.2",
        x_esp32_sketch_md5="ab" * 16,
    )

    assert status == 200
    row = noted(collector)
    assert (row.state, row.runs_version, row.runs_md5) == (State.NEVER_FETCHED, "1.4.2", "ab" * 16)
    assert row.last_seen is not None


def test_a_file_that_is_not_there_is_no_board_s(collector: Collector) -> None:
    assert by_the_view("/assets/none.bin", x_esp32_sta_mac=MAC) == 404

    collector.flush()
    assert not Board.objects.exists()


def test_the_metrics_say_how_many_there_are_in_each_state(saved: None, client: Client) -> None:
    Board.objects.create(mac_address="02-00-00-00-00-01", state=State.WAITING)
    Board.objects.create(mac_address="02-00-00-00-00-02", state=State.GONE)

    lines = _from_database().decode().splitlines()
    assert 'iot_devices{state="never_fetched"} 1.0' in lines
    assert 'iot_devices{state="current"} 0.0' in lines
    assert 'iot_devices{state="behind"} 0.0' in lines
    assert "iot_waiting_devices 1.0" in lines
    assert "iot_silent_devices 0.0" in lines


# --- The thread -----------------------------------------------------------------------------------------------------


class Writes:
    """What a collector's thread writes, which may fail for a while."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.failures = 0
        self.error: Exception = OperationalError("away")
        self.error.__cause__ = OSError()
        self.has_written = threading.Event()

    def __call__(self, batch: Batch, now: float) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error
        self.batches.append(batch)
        self.has_written.set()


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    monkeypatch.setattr(collector_module, "PAUSE_SECONDS", 0.01)
    return Writes()


@pytest.fixture
def threaded(writes: Writes) -> CheckInCollector:
    collector = CheckInCollector(writes)
    collector.is_serving = True
    return collector


def test_what_is_noted_is_written_by_a_thread_each_time(threaded: CheckInCollector, writes: Writes) -> None:
    for number in range(3):
        writes.has_written.clear()
        threaded.note(fetched(f"{number}"))
        assert writes.has_written.wait(LIMIT)

    assert [len(batch.reports) for batch in writes.batches] == [1, 1, 1]


def test_noting_resumes_by_itself(threaded: CheckInCollector, writes: Writes, caplog: Any) -> None:
    writes.failures = 5

    threaded.note(fetched("a"))

    assert writes.has_written.wait(LIMIT)
    assert [batch.reports[0].mac_address for batch in writes.batches] == [MAC]
    assert caplog.text.count("cannot be noted now; it is tried again each second: away") <= 1


def test_after_what_nobody_foresaw_noting_goes_on(
    threaded: CheckInCollector, writes: Writes, monkeypatch: Any, caplog: Any
) -> None:
    failures = [RuntimeError("a mistake of ours")]
    take_batch = threaded._pending.take_batch

    def fail_once(now: float) -> Batch:
        if failures:
            raise failures.pop()
        return take_batch(now)

    monkeypatch.setattr(threaded._pending, "take_batch", fail_once)

    threaded.note(fetched("a"))

    assert writes.has_written.wait(LIMIT)
    assert "What boards did could not be noted" in caplog.text


def test_a_process_that_ends_writes_what_there_is(monkeypatch: Any) -> None:
    monkeypatch.setattr(collector_module, "STOP_SECONDS", LIMIT)  # however busy the machine is
    writes = Writes()
    collector = Collector()
    monkeypatch.setattr(collector, "_write", writes)
    collector.note(fetched("a"))

    collector.stop()

    assert [len(batch.reports) for batch in writes.batches] == [1]


def test_a_process_that_ends_waits_for_no_database_without_end(monkeypatch: Any) -> None:
    monkeypatch.setattr(collector_module, "STOP_SECONDS", 0.01)
    answers = threading.Event()
    collector = Collector()
    monkeypatch.setattr(collector, "_write", lambda *arguments: answers.wait(LIMIT))
    collector.note(fetched("a"))

    collector.stop()  # while it still waits

    assert not collector._pending.is_empty()
    answers.set()
