"""A server and its broker: who hears an announcement can download, and the broker hears a proper goodbye."""

from __future__ import annotations

import json
import queue
import re
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from paho.mqtt.client import MQTTMessage

from iotsupport.tests.owed.fleet import wait_until_announced
from iotsupport.tests.support.marathons import AWAITED_SAVES, TAKEN_OVER, marathon
from iotsupport.tests.support.module_broker import *  # noqa: F403
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.server import NEW, Server, files
from iotsupport.tests.support.waiting import LIMIT

WORKERS = 2

# Of each test: what comes late is no other test's.
fleets = count()


class Download(NamedTuple):
    """What a device got in the moment of an announcement."""

    saved: int | None
    """What was answered last when the device asked, if the test said."""
    status: int
    content: bytes


class Fleet(Subscriber):
    """Downloads each file in the moment that it is announced; what it got is waiting under the file's name."""

    def __init__(self, server: Server, broker: Mosquitto) -> None:
        super().__init__(broker.port, look=self._download)
        self.saved: dict[str, int] = {}
        self._downloads: defaultdict[str, queue.Queue[Download]] = defaultdict(queue.Queue)
        self._url = server.url
        self._session = requests.Session()

    def _download(self, message: MQTTMessage) -> None:
        filename = json.loads(message.payload)["filename"]
        saved = self.saved.get(filename)
        response = self._session.get(f"{self._url}/{message.topic.split('/')[-1]}/{filename}", timeout=LIMIT)
        self._downloads[filename].put(Download(saved, response.status_code, response.content))

    def downloads_until(self, filename: str, content: bytes) -> list[Download]:
        """What was downloaded since the last call, up to the first time that it was this.

        Saves that wait for the pace together are one announcement, and one may come twice: how many there are is open.
        """
        downloads = [self._downloads[filename].get(timeout=LIMIT)]
        while downloads[-1].content != content:
            downloads.append(self._downloads[filename].get(timeout=LIMIT))
        return downloads

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._session.close()


@pytest.fixture
def devices() -> list[str]:
    fleet = next(fleets)
    return [f"aa-bb-cc-dd-{fleet:02x}-{number:02x}" for number in range(5)]


@pytest.fixture
def server(running_server: Server, broker: Mosquitto) -> Server:
    """Two workers that are connected, with nothing owed of what other tests saved."""
    running_server.wait_until_connected(broker)
    wait_until_announced(running_server)
    return running_server


@pytest.fixture
def fleet(server: Server, broker: Mosquitto) -> Iterator[Fleet]:
    with Fleet(server, broker) as fleet:
        yield fleet


def wait_for_goodbye(broker: Mosquitto, pid: int) -> None:
    """Wait until the broker was told that a process is leaving, and not just left."""
    broker.wait_for_log(f"Received DISCONNECT from iotsupport-.*-{pid}-")
    broker.wait_for_log(f"Client iotsupport-.*-{pid}-.* disconnected\\.")


@marathon
def test_saves_can_be_downloaded_in_the_moment_of_their_announcement(
    server: Server, fleet: Fleet, devices: list[str]
) -> None:
    def save_many_times(mac_address: str) -> list[Download]:
        downloads = []
        with server.client() as client:
            for number in range(AWAITED_SAVES):
                content = b'{"number": %d}' % number
                assert client.save_config(mac_address, content).status_code == 200
                downloads += fleet.downloads_until(f"{mac_address}.json", content)
        return downloads

    with ThreadPoolExecutor(len(devices)) as threads:
        of_each = list(threads.map(save_many_times, devices))

    assert {download.status for downloads in of_each for download in downloads} == {200}
    # Those that came twice. Were the file late, there would be one more for each save.
    saves = AWAITED_SAVES * len(devices)
    assert sum(map(len, of_each)) - saves < saves / 4


@pytest.mark.both_databases
def test_saves_without_a_pause_are_announced_until_the_last_and_no_announcement_finds_what_was_replaced(
    server: Server, fleet: Fleet, devices: list[str]
) -> None:
    def save_20_times(mac_address: str) -> None:
        with server.client() as client:
            for number in range(20):
                assert client.save_config(mac_address, b'{"number": %d}' % number).status_code == 200
                fleet.saved[f"{mac_address}.json"] = number

    with ThreadPoolExecutor(len(devices)) as threads:
        list(threads.map(save_20_times, devices))

    for mac_address in devices:
        downloads = fleet.downloads_until(f"{mac_address}.json", b'{"number": 19}')
        numbers = [json.loads(download.content)["number"] for download in downloads]
        assert numbers == sorted(numbers)
        for number, download in zip(numbers, downloads, strict=True):
            assert download.saved is None or number >= download.saved, downloads


def test_uploads_can_be_downloaded_in_the_moment_of_their_announcement(server: Server, fleet: Fleet) -> None:
    with server.client() as client:
        downloads = []
        for number in range(20):
            content = b"%d" % number * 200_000
            assert client.upload("firmware.bin", content).status_code == 200
            downloads += fleet.downloads_until("firmware.bin", content)

    assert {download.status for download in downloads} == {200}
    assert len(downloads) - 20 < 10


def test_the_broker_hears_goodbye_from_every_worker_when_the_server_is_ended(
    make_server: Callable[..., Server], broker: Mosquitto
) -> None:
    server = make_server(MQTT_URL=broker.url, WEB_CONCURRENCY="2")
    workers = server.start_connected(broker, *NEW)
    assert len(workers) == 2

    server.signal(signal.SIGTERM)

    for pid in workers:
        wait_for_goodbye(broker, pid)


def test_the_broker_hears_goodbye_from_every_worker_when_the_server_reloads(server: Server, broker: Mosquitto) -> None:
    workers = server.wait_until_connected(broker)
    first_line = len(server.lines)

    server.signal(signal.SIGHUP)

    for pid in workers:
        wait_for_goodbye(broker, pid)
    for line in server.wait_for_log("Booting worker with pid", after=first_line, count=2):
        broker.wait_for_log(f"New client connected from .* as iotsupport-.*-{line.split()[-1]}-")


def test_the_broker_hears_goodbye_from_a_worker_that_has_served_enough_and_its_successor_goes_on(
    make_server: Callable[..., Server], broker: Mosquitto, devices: list[str]
) -> None:
    server = make_server(MQTT_URL=broker.url).start(*NEW, "--max-requests", "40")
    [worker] = server.wait_until_connected(broker)

    with server.client() as client, Fleet(server, broker) as fleet:
        for number in range(45):
            assert client.save_config(devices[0], b'{"number": %d}' % number).status_code == 200
        fleet.downloads_until(f"{devices[0]}.json", b'{"number": 44}')

    wait_for_goodbye(broker, worker)


@marathon
def test_an_existing_installation_is_taken_over_while_the_server_runs(
    server: Server, broker: Mosquitto, tmp_path: Path
) -> None:
    configs, assets = tmp_path / "existing configs", tmp_path / "existing assets"
    configs.mkdir()
    assets.mkdir()
    for number in range(TAKEN_OVER):
        (configs / f"AA:BB:CC:DD:EE:{number:02X}.json").write_bytes(b'{\r\n  "number": %d.0\r\n}\n' % number)
        (assets / f"{number}.bin").write_bytes(b"%d" % number * 10_000)
    before = files(configs), files(assets)

    with Subscriber(broker.port) as subscriber, server.client() as client:
        for directory, command in [(configs, "import_configs"), (assets, "import_assets")]:
            done = server.manage(command, str(directory))
            assert f"{TAKEN_OVER} taken, 0 replaced, 0 unchanged, 0 refused" in done.stdout
            again = server.manage(command, str(directory))
            assert f"0 taken, 0 replaced, {TAKEN_OVER} unchanged, 0 refused" in again.stdout
        wait_until_announced(server)
        subscriber.publish("iotsupport/updates/configs", b"that was all")
        heard = [json.loads(message.payload)["filename"] for message in subscriber.before(b"that was all")]

        assert (files(configs), files(assets)) == before
        for number in range(TAKEN_OVER):
            config = client.get(f"/configs/aa-bb-cc-dd-ee-{number:02x}.json")
            assert config.content == before[0][f"AA:BB:CC:DD:EE:{number:02X}.json"]
            assert client.get(f"/assets/{number}.bin").content == before[1][f"{number}.bin"]

    names = {name for number in range(TAKEN_OVER) for name in [f"aa-bb-cc-dd-ee-{number:02x}.json", f"{number}.bin"]}
    assert set(heard) == names
    # What is on its way when its process comes to a halt is announced by another, too; but not everything by each.
    assert len(heard) < 1.5 * len(names)


def test_an_import_says_goodbye_when_everything_is_acknowledged(
    make_server: Callable[..., Server], broker: Mosquitto, devices: list[str], tmp_path: Path
) -> None:
    server = make_server(MQTT_URL=broker.url)
    first_line = len(broker.lines)
    (tmp_path / "existing").mkdir()
    for mac_address in devices:
        (tmp_path / "existing" / f"{mac_address}.json").write_text("{}")

    # As long as this may take here: a command leaves to a server what was not acknowledged within two seconds.
    server.manage(
        "shell",
        "--verbosity=0",
        "-c",
        "from django.core.management import call_command; from notifications import messenger, publisher;"
        f"publisher.STOP_SECONDS = messenger.DISCONNECT_SECONDS = {LIMIT};"
        f"call_command('import_configs', {str(tmp_path / 'existing')!r})",
    )

    # Nothing is left to come: all of this was said while the process lived. On a busy machine it may connect twice.
    puback = broker.wait_for_log(r"Sending PUBACK to iotsupport-\S+", after=first_line, count=len(devices))[-1]
    name = re.findall(r"iotsupport-\S+", puback)[0]
    broker.wait_for_log(f"Client {re.escape(name)} disconnected\\.", after=first_line)
    said = [line.partition(": ")[2] for line in broker.lines[first_line:] if name in line]
    acknowledged = [number for number, line in enumerate(said) if line.startswith("Sending PUBACK to ")]
    [goodbye] = [number for number, line in enumerate(said) if line.startswith("Received DISCONNECT from ")]
    assert len(acknowledged) == len(devices)
    assert max(acknowledged) < goodbye
