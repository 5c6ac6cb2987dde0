"""What simulated devices say of themselves, seen by a server; no broker, so that they fetch at start alone."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Thread
from typing import NamedTuple

import pytest

from iotsupport.tests.support.waiting import LIMIT
from notifications.simulator.devices import FETCH_SECONDS, WAIT_SECONDS, Simulator

ESP_IDF, ARDUINO, MICROPYTHON = (f"02-00-00-00-00-0{number}" for number in range(3))

# What an image has in front (ESP-IDF Programming Guide, "App Image Format"), and its own digest at its end.
DIGEST = hashlib.sha256(b"of what is before it").digest()
HEAD = b"\xe9\1" + bytes(21) + b"\1" + bytes(8)
IMAGE = HEAD + bytes.fromhex("3254cdab") + bytes(12) + b"2.0.0".ljust(32, b"\0") + bytes(70_000) + DIGEST

OTA = b'{"enableOTA": true, "firmware": "new board.bin"}'


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]


class Files:
    """A server of some files, by path, whose ETags are their bytes' lengths."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: Queue[Asked] = Queue()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def handler(self) -> type[BaseHTTPRequestHandler]:
        files = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                files.asked.put(Asked(self.path, dict(self.headers)))
                content = files.files.get(self.path)
                etag = f'"{len(content or b"")}"'
                has_it = self.headers.get("If-None-Match") == etag
                self.send_response(404 if content is None else 304 if has_it else 200)
                self.send_header("ETag", etag)
                if content is not None and not has_it:
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                else:
                    self.end_headers()

            def log_message(self, *arguments):
                pass

        return Handler

    def next(self) -> Asked:
        return self.asked.get(timeout=LIMIT)


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files()
    thread = Thread(target=files.server.serve_forever, args=[0.01])
    thread.start()
    yield files
    files.server.shutdown()
    thread.join()
    files.server.server_close()


@pytest.fixture
def simulate(files: Files) -> Iterator[Callable[[str], tuple[Simulator, Queue[str]]]]:
    simulators: list[Simulator] = []

    def simulate(mac_address: str) -> tuple[Simulator, Queue[str]]:
        said: Queue[str] = Queue()
        simulators.append(Simulator(files.url, [mac_address], None, said.put))
        simulators[-1].start()
        return simulators[-1], said

    yield simulate
    for simulator in simulators:
        simulator.stop()


@pytest.mark.parametrize(
    ("mac_address", "identity"),
    [
        (ESP_IDF, {"User-Agent": "display/1.4.2"}),
        (ARDUINO, {"User-Agent": "thermometer/1.4.2"}),
        (MICROPYTHON, {"x-ESP32-version": "1.4.2"}),
    ],
)
def test_a_device_says_with_its_configuration_what_it_runs(simulate, files, mac_address, identity):
    simulate(mac_address)

    asked = files.next()

    known = {"Host", "Accept-Encoding"}  # of Python's HTTP client
    assert {name: value for name, value in asked.headers.items() if name not in known} == identity


def test_an_arduino_says_which_sketch_runs_when_it_asks_for_a_firmware(simulate, files):
    files.files |= {f"/configs/{ARDUINO}.json": OTA, "/assets/new%20board.bin": IMAGE}
    simulate(ARDUINO)

    requests = [files.next() for _ in range(4)]

    assert [request.path for request in requests[::2]] == [f"/configs/{ARDUINO}.json"] * 2
    before, after = (request.headers for request in requests[1::2])
    assert before["User-Agent"] == "ESP32-http-Update"
    assert before["x-ESP32-STA-MAC"] == before["x-ESP32-BASE-MAC"] == "02:00:00:00:00:01"
    assert before["x-ESP32-AP-MAC"] == "02:00:00:00:00:00"
    assert before["x-ESP32-version"] == "1.4.2"
    assert before["x-ESP32-mode"] == "sketch"
    assert "If-None-Match" not in before
    # It has restarted.
    assert requests[2].headers["User-Agent"] == "thermometer/2.0.0"
    assert after["x-ESP32-version"] == "2.0.0"
    assert after["x-ESP32-sketch-md5"] == hashlib.md5(IMAGE, usedforsecurity=False).hexdigest()
    assert after["x-ESP32-sketch-sha256"] == DIGEST.hex().upper()
    assert after["x-ESP32-sketch-size"] == str(len(IMAGE))
    assert after["If-None-Match"] == f'"{len(IMAGE)}"'


def test_a_device_flashes_an_image_once(simulate, files):
    files.files |= {f"/configs/{ESP_IDF}.json": OTA, "/assets/new%20board.bin": IMAGE}
    _, said = simulate(ESP_IDF)

    lines = [said.get(timeout=LIMIT) for _ in range(4)]

    assert lines == [
        f"{ESP_IDF} 200 {len(OTA)} bytes, at start",
        f"{ESP_IDF} /assets/new%20board.bin 200 {len(IMAGE)} bytes, no MD5 came with them, as its configuration says",
        f"{ESP_IDF} 304 0 bytes, after the restart",
        f"{ESP_IDF} /assets/new%20board.bin 304 0 bytes, after the restart",
    ]
    assert files.asked.qsize() == 4


def test_what_is_no_image_is_not_flashed(simulate, files):
    files.files |= {f"/configs/{ESP_IDF}.json": OTA, "/assets/new%20board.bin": b"a font"}
    simulator, said = simulate(ESP_IDF)

    said.get(timeout=LIMIT), said.get(timeout=LIMIT)

    assert simulator.devices[0].firmware.user_agent == "display/1.4.2"


@pytest.mark.parametrize(("has_config", "seconds"), [(False, WAIT_SECONDS), (True, FETCH_SECONDS)])
def test_a_device_asks_again_after_a_while(simulate, files, has_config, seconds):
    if has_config:
        files.files[f"/configs/{ESP_IDF}.json"] = b"{}"
    simulator, said = simulate(ESP_IDF)
    said.get(timeout=LIMIT)
    (device,) = simulator.devices

    assert not device.is_due(time.monotonic() + seconds - 30)
    assert device.is_due(time.monotonic() + seconds)
    device.ask_again()

    assert said.get(timeout=LIMIT).endswith("0 bytes, since it is time to")
    assert files.asked.qsize() == 2
