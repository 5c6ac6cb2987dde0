"""Devices that behave as good firmware does, for trying the server and for showing it.

Each fetches its configuration at start, and again, with ``If-None-Match``, whenever it has subscribed (so that nothing
is missed while it was away) and when its file is announced. Where the configuration says ``"enableOTA": true``, the
announced assets are downloaded and checked, too; one that is an image is what the device runs after its restart. Where
the configuration names its ``"firmware"``, the device asks for that at every start.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from paho.mqtt import client as mqtt

from notifications.broker import Broker
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.protocol import MQTT_3, MQTT_5
from notifications.simulator.connections import Connections, make_client
from notifications.simulator.firmware import Download, Firmware, client_of, read_asset
from notifications.trouble import UNSUPPORTED_VERSION

ALL_TOPICS = "iotsupport/updates/#"

TIMEOUT_SECONDS = 10
MAX_FETCHES_AT_ONCE = 16

# A device asks by itself so often, since it may have missed a message; one that has no configuration yet, more often.
FETCH_SECONDS = 6 * 3600
WAIT_SECONDS = 60

Say = Callable[[str], None]


@dataclass
class Errand:
    """Something to download, and why."""

    path: str
    reason: str
    announced_at: float | None = None
    """Of ``time.monotonic()``; ``None`` where nothing was announced."""


class Simulator:
    """A number of devices, what they share, and what they did."""

    def __init__(
        self,
        base_url: str,
        mac_addresses: Iterable[str],
        broker: Broker | None,
        say: Say,
        credentials: str | None = None,
    ) -> None:
        """``credentials`` are what devices send behind ``Basic``, where they have to sign in."""
        self.base_url = urlsplit(base_url)
        self.credentials = credentials
        self.connections = Connections()
        self.broker = broker
        self.counts: Counter[str] = Counter()
        self._say = say
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(MAX_FETCHES_AT_ONCE, thread_name_prefix="fetch")
        self._is_stopping = threading.Event()
        self._clock = threading.Thread(target=self._ask_again, name="clock", daemon=True)
        self.devices = [self.make_device(mac_address) for mac_address in mac_addresses]
        if broker is not None:
            for device in self.devices:
                device.listen(make_client(broker))

    def make_device(self, mac_address: str) -> Device:
        return Device(mac_address, self)

    def start(self) -> None:
        for device in self.devices:
            device.boot()
        self.connections.start()
        self._clock.start()

    def stop(self) -> None:
        """Leave the broker, and let the downloads that have begun finish."""
        self._is_stopping.set()
        self._clock.join()
        self.connections.stop()
        self._pool.shutdown(cancel_futures=True)

    def _ask_again(self) -> None:
        while not self._is_stopping.wait(WAIT_SECONDS):
            for device in self.devices:
                if device.is_due(time.monotonic()):
                    device.ask_again()

    def submit(self, work: Callable[[], None]) -> None:
        try:
            self._pool.submit(work)
        except RuntimeError:
            return  # it was stopped meanwhile

    def tell(self, text: str, **counts: int) -> None:
        """Print a line, and count what it tells of."""
        with self._lock:
            self.counts.update(counts)
            self._say(text)

    def count(self, **counts: int) -> None:
        with self._lock:
            self.counts.update(counts)

    def summary(self) -> str:
        counts = self.counts
        return (
            f"{len(self.devices)} devices, {counts['fetches']} fetches; "
            f"{counts['heard']} announcements heard for them, {counts['acted_on']} acted on; "
            f"{counts['failures']} failures"
        )


class Device:
    """One device. It does one errand after the other, and announcements that come meanwhile are one errand."""

    def __init__(self, mac_address: str, simulator: Simulator) -> None:
        self.mac_address = mac_address
        self.filename = f"{mac_address}.json"
        self._simulator = simulator
        self.firmware = Firmware.from_factory(client_of(mac_address).project)
        self._etag: str | None = None
        self._config: dict[str, Any] = {}
        # Of the file that holds what it runs, where it came from the server: path and ETag.
        self._flashed: tuple[str, str] | None = None
        self._asked_at = 0.0
        self._is_out = False
        self._lock = threading.Lock()
        self._errands: dict[str, list[Errand]] = {}
        self._is_busy = False

    def boot(self) -> None:
        self._go(Errand(f"/configs/{self.filename}", "at start"))

    def is_due(self, now: float) -> bool:
        """Whether it has not asked for long; ``now`` is of ``time.monotonic``."""
        return now - self._asked_at >= (FETCH_SECONDS if self._etag else WAIT_SECONDS)

    def ask_again(self) -> None:
        self._go(Errand(f"/configs/{self.filename}", "since it is time to"))

    def listen(self, client: mqtt.Client, *, instead_of: mqtt.Client | None = None) -> None:
        """Be told by a client what is announced."""
        client.on_connect = self._on_connect
        client.on_connect_fail = lambda client, userdata: self._lose_broker("does not reach the broker")
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        if instead_of is None:
            self._simulator.connections.add(client)
        else:
            self._simulator.connections.replace(instead_of, client)

    def _on_connect(self, client: mqtt.Client, userdata: Any, flags: Any, reason_code: Any, properties: Any) -> None:
        broker = self._simulator.broker
        if reason_code.value == UNSUPPORTED_VERSION and client.protocol == MQTT_5 and broker is not None:
            self.listen(make_client(broker, MQTT_3), instead_of=client)
            return
        if reason_code.is_failure:
            self._lose_broker(f"is not let in by the broker: {reason_code}")
            return
        self._is_out = False
        self._simulator.connections.succeeded()
        client.subscribe(ALL_TOPICS, qos=1)

    def _on_disconnect(self, client: mqtt.Client, userdata: Any, flags: Any, reason_code: Any, properties: Any) -> None:
        if reason_code.is_failure:
            self._simulator.connections.failed()
            self._lose_broker(f"lost the broker: {reason_code}")

    def _lose_broker(self, text: str) -> None:
        if not self._is_out:  # said once, not at every attempt
            self._simulator.tell(f"{self.mac_address} {text}", failures=1)
        self._is_out = True

    def _on_subscribe(self, client: mqtt.Client, userdata: Any, mid: int, reason_codes: Any, properties: Any) -> None:
        refusals = [code for code in reason_codes if code.is_failure]
        if refusals:
            self._simulator.tell(f"{self.mac_address} may not subscribe: {refusals[0]}", failures=1)
            return
        self._go(Errand(f"/configs/{self.filename}", "after subscribing"))

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        filename = read_filename(message.payload)
        if message.topic == CONFIGS_TOPIC and filename == self.filename:
            path = f"/configs/{filename}"
        elif message.topic == ASSETS_TOPIC and filename and self.takes_updates:
            path = f"/assets/{quote(filename)}"
        else:
            return
        self._simulator.count(heard=1)
        self._go(Errand(path, "after the announcement", announced_at=time.monotonic()))

    def _go(self, errand: Errand) -> None:
        with self._lock:
            self._errands.setdefault(errand.path, []).append(errand)
            if self._is_busy:
                return
            self._is_busy = True
        self._simulator.submit(self._work)

    def _work(self) -> None:
        while errands := self._take():
            self._run(errands)

    def _take(self) -> list[Errand]:
        """Return all errands for the file that waits longest; none ends the work."""
        with self._lock:
            path = next(iter(self._errands), None)
            self._is_busy = path is not None
            return self._errands.pop(path) if path is not None else []

    def _run(self, errands: list[Errand]) -> None:
        announced = [errand for errand in errands if errand.announced_at is not None]
        first = (announced or errands)[0]
        try:
            outcome = self.fetch(first.path)
        except (OSError, http.client.HTTPException, ValueError) as error:
            outcome, counts = f"{first.path} failed: {error}", {"failures": 1}
        else:
            counts = {"fetches": 1, "acted_on": len(announced)}
        when = first.reason
        if first.announced_at is not None:
            when = f"{(time.monotonic() - first.announced_at) * 1000:.0f} ms {first.reason}"
        self._simulator.tell(f"{self.mac_address} {outcome}, {when}", **counts)

    def fetch(self, path: str) -> str:
        """Download, and return what is to be told of it. Raises ``ValueError`` for an answer that cannot be right."""
        is_config = path.startswith("/configs/")
        base_url = self._simulator.base_url
        make_connection = http.client.HTTPSConnection if base_url.scheme == "https" else http.client.HTTPConnection
        connection = make_connection(base_url.netloc, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", base_url.path.rstrip("/") + path, headers=self._headers(path))
            response = connection.getresponse()
            return self._read_config(response) if is_config else f"{path} {self._read_asset(path, response)}"
        finally:
            connection.close()

    def _headers(self, path: str) -> dict[str, str]:
        """Who asks, and what it has already."""
        client = client_of(self.mac_address)
        if path.startswith("/configs/"):
            headers, etag = client.for_config(self.mac_address, self.firmware), self._etag
        else:
            headers = client.for_asset(self.mac_address, self.firmware)
            etag = self._flashed[1] if self._flashed and self._flashed[0] == path else None
        credentials = self._simulator.credentials
        headers |= {"Authorization": f"Basic {credentials}"} if credentials else {}
        return headers | ({"If-None-Match": etag} if etag else {})

    @property
    def takes_updates(self) -> bool:
        return self._config.get("enableOTA") is True

    def _read_config(self, response: http.client.HTTPResponse) -> str:
        body = response.read()
        self._asked_at = time.monotonic()
        if response.status == http.HTTPStatus.OK:
            config = json.loads(body)
            self._config = config if isinstance(config, dict) else {}
            self._etag = response.headers["ETag"]
            self._ask_for_firmware()
        elif response.status == http.HTTPStatus.NOT_FOUND:
            self._etag = None
        elif response.status != http.HTTPStatus.NOT_MODIFIED:
            raise ValueError(f"status {response.status}")
        return f"{response.status} {len(body)} bytes"

    @property
    def _firmware_path(self) -> str | None:
        """Of the firmware that the configuration names; without, each image that is announced is taken for it."""
        filename = self._config.get("firmware")
        return f"/assets/{quote(filename)}" if isinstance(filename, str) and filename else None

    def _ask_for_firmware(self) -> None:
        if self.takes_updates and (path := self._firmware_path):
            self._go(Errand(path, "as its configuration says"))

    def _read_asset(self, path: str, response: http.client.HTTPResponse) -> str:
        download = read_asset(response)
        if download is None:
            return f"{response.status} 0 bytes"
        is_mine = self._firmware_path in (path, None)
        if is_mine and download.is_image and download.md5 != self.firmware.md5:
            self._flash(path, download)
        return f"{response.status} {download.size} bytes, {download.check}"

    def _flash(self, path: str, download: Download) -> None:
        """Run it from now on; what is in the flash beside it, such as the configuration's ETag, stays."""
        self.firmware = self.firmware.updated(download)
        self._flashed = path, download.etag
        self._go(Errand(f"/configs/{self.filename}", "after the restart"))
        self._go(Errand(path, "after the restart"))


def read_filename(payload: bytes | bytearray) -> str | None:
    """Return the file that a message announces; ``None`` for a message that announces none."""
    try:
        filename = json.loads(payload)["filename"]
    except (ValueError, KeyError, TypeError):
        return None
    return filename if isinstance(filename, str) else None
