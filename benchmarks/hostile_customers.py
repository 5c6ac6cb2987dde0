"""Boards and an administrator, who want to be served while others attack; see :mod:`benchmarks.hostile`."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import requests

from iotsupport.tests.support.server import PASSWORD, sign_in
from notifications.broker import Broker
from notifications.simulator.devices import Device, Simulator

# How often a board asks whether its configuration is another one, besides when it hears so.
BOARD_SECONDS = 2.0
# How long after the attack a last announcement may still be on its way.
LATE_SECONDS = 30.0
# An administrator reads and types between two requests.
PAUSE_SECONDS = 0.5
# Longer than anybody waits, so that it is an answer that counts.
REQUEST_SECONDS = 60.0

FIRMWARE = "firmware.bin"
FIRMWARE_BYTES = 200_000

CONFIGS = "/admin/devices/deviceconfig/"
ASSETS = "/admin/assets/asset/"


class Fetched(NamedTuple):
    """What boards did."""

    downloads: list[tuple[float, float]]
    """Of each that succeeded when it began, of ``time.monotonic()``, and how many seconds it took."""
    failures: list[str]
    heard: int
    """Announcements, each counted for each board that it was for."""
    followed: int
    """Those of them after which the board has downloaded."""


class TimedDevice(Device):
    def fetch(self, path: str) -> str:
        began = time.monotonic()
        outcome = super().fetch(path)
        if outcome.startswith("404"):
            raise ValueError("status 404")
        self.downloads.append((began, time.monotonic() - began))  # in one thread at a time
        return outcome

    def __init__(self, mac_address: str, simulator: Simulator) -> None:
        super().__init__(mac_address, simulator)
        self.downloads: list[tuple[float, float]] = []


class Boards(Simulator):
    """What :program:`simulate_devices` runs; each also asks again and again, as after a restart."""

    def __init__(self, base_url: str, mac_addresses: Sequence[str], mqtt_url: str) -> None:
        self.timed: list[TimedDevice] = []
        self.failures: list[str] = []
        super().__init__(base_url, mac_addresses, Broker.parse(mqtt_url), lambda line: None)

    def make_device(self, mac_address: str) -> Device:
        device = TimedDevice(mac_address, self)
        self.timed.append(device)
        return device

    def tell(self, text: str, **counts: int) -> None:
        super().tell(text, **counts)
        if counts.get("failures"):
            self.failures.append(text)

    def fetched(self) -> Fetched:
        downloads = [each for device in self.timed for each in device.downloads]
        return Fetched(downloads, self.failures, self.counts["heard"], self.counts["acted_on"])


def run_boards(pipe: Connection, base_url: str, mac_addresses: Sequence[str], mqtt_url: str) -> None:
    """Send an empty message once all have fetched and are subscribed, then go on.

    When told how many announcements there were, wait until they were followed, but not for ever; then send what was
    :class:`Fetched` since that first message.
    """
    boards = Boards(base_url, mac_addresses, mqtt_url)
    boards.start()
    # Each fetches at the start and after it has subscribed.
    _wait(lambda: boards.counts["fetches"] + boards.counts["failures"] >= 2 * len(mac_addresses))
    for device in boards.timed:
        device.downloads.clear()
    pipe.send(None)
    number, begun = 0, time.monotonic()
    while not pipe.poll(max(begun + number * BOARD_SECONDS / len(mac_addresses) - time.monotonic(), 0)):
        boards.timed[number % len(mac_addresses)].boot()
        number += 1
    announced = pipe.recv()
    _wait(lambda: boards.counts["acted_on"] >= announced)
    boards.stop()
    pipe.send(boards.fetched())


class NotServed(Exception):
    """An answer is not what it must be."""


def _must(is_so: bool, what: str, answer: requests.Response) -> None:
    if not is_so:
        raise NotServed(f"{what}: status {answer.status_code}: {answer.text[:200]!r}")


class _Fields(HTMLParser):
    """The fields of a page, as a browser fills them in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._textarea: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        name = about.get("name")
        if tag == "textarea" and name:
            self._textarea = name
            self.found[name] = ""
        elif tag == "input" and name and about.get("type") in {"hidden", "text"}:
            self.found[name] = about.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._textarea = None

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.found[self._textarea] += data


class Administrator:
    """Signs in, edits one configuration after the other, and uploads firmware now and then."""

    def __init__(self, url: str) -> None:
        self.seconds: list[float] = []
        """Of each request that was answered as it must be, redirections included."""
        self.failures: list[str] = []
        self.saves = self.uploads = self.sign_ins = 0
        self._url = url
        self._browser = requests.Session()
        self._round = 0

    def work(self, ends_at: float) -> None:
        while time.monotonic() < ends_at:
            try:
                self._work_once()
            except (requests.RequestException, NotServed) as error:
                self.failures.append(str(error))
            self._round += 1
        self._browser.close()

    def sign_in(self) -> None:
        """In a new browser, and leave the old one signed in."""
        self._browser.close()
        self._browser = requests.Session()
        self._browser.trust_env = False  # no proxies
        with self._timed():
            answer = sign_in(self._browser, self._url, "admin", PASSWORD)
            _must(answer.status_code == 200 and bool(answer.history), "sign-in", answer)
        self.sign_ins += 1

    def _work_once(self) -> None:
        if self._round % 10 == 0:
            self.sign_in()
        links = re.findall(rf'href="({CONFIGS}\d+/change/)', self._get(CONFIGS))
        self._edit(links[self._round % len(links)])
        if self._round % 5 == 0:
            self._upload()

    def _edit(self, path: str) -> None:
        fields = _Fields(self._get(path)).found
        content = json.loads(fields["content"])
        content["version"] += 1
        self._post(path, {**fields, "content": json.dumps(content)}, "was changed successfully")
        self.saves += 1

    def _upload(self) -> None:
        fields = _Fields(self._get(f"{ASSETS}add/")).found
        firmware = f"version {self._round} ".encode().ljust(FIRMWARE_BYTES, b"x")
        self._post(f"{ASSETS}add/", fields, "successfully", files={"file": (FIRMWARE, firmware)})
        self.uploads += 1

    def _get(self, path: str) -> str:
        threading.Event().wait(PAUSE_SECONDS)
        with self._timed():
            answer = self._browser.get(self._url + path, timeout=REQUEST_SECONDS)
            _must(answer.status_code == 200 and not answer.history, f"GET {path}", answer)
        return answer.text

    def _post(self, path: str, fields: dict[str, str], expected: str, **more: Any) -> None:
        threading.Event().wait(PAUSE_SECONDS)
        with self._timed():
            answer = self._browser.post(self._url + path, fields, timeout=REQUEST_SECONDS, **more)
            is_done = answer.status_code == 200 and bool(answer.history) and expected in answer.text
            _must(is_done, f"POST {path}", answer)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds.append(time.monotonic() - began)


def _wait(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + LATE_SECONDS
    while not is_so() and time.monotonic() < end:
        threading.Event().wait(0.05)
