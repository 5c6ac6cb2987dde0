"""``simulate_devices`` against a real server and a real broker."""

from __future__ import annotations

import base64
import http.client
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from devices.models import DeviceConfig
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.module_broker import *  # noqa: F403
from iotsupport.tests.support.mosquitto import LoggedProcess, Mosquitto, Subscriber
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.server import NEW, Client, Installation, Server, clean_environ
from iotsupport.tests.support.waiting import LIMIT, poll
from notifications.management.commands.simulate_devices import allow_open_files, choose_mac_addresses, read_base_url
from notifications.messages import CONFIGS_TOPIC
from notifications.simulator.devices import Simulator, read_filename
from notifications.simulator.firmware import read_asset

LAMP = "02-00-00-00-00-0a"
CLOCK = "02-00-00-00-00-0b"
MADE_UP = "02-00-00-00-00-00"


class Simulation(LoggedProcess):
    def __init__(self, broker: Mosquitto, environ: dict[str, str], *options: str) -> None:
        super().__init__()
        self._broker, self._first_line = broker, len(broker.lines)
        command = [str(BASE_DIR / "manage.py"), "simulate_devices", *options]
        self.process = self._start_python(*command, environ=clean_environ(environ))

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Return the last line, after an end without an error."""
        self.process.send_signal(number)
        return self.wait()

    def wait_until_subscribed(self, *mac_addresses: str) -> None:
        """Return when all of its devices listen, and have nothing left to do.

        Each is told once of its own file for that: what it does then is the last of its errands, whereas that for
        having subscribed is one with that for having started, if the latter waits so long.
        """
        self._broker.wait_for_log("Sending SUBACK to auto-", after=self._first_line, count=len(mac_addresses))
        with Subscriber(self._broker.port) as somebody:
            for mac_address in mac_addresses:
                somebody.publish(CONFIGS_TOPIC, json.dumps({"filename": f"{mac_address}.json"}).encode())
        for mac_address in mac_addresses:
            self.wait_for_log(f"{mac_address} .* after the announcement")

    def wait(self) -> str:
        assert self.process.wait(LIMIT) == 0, self.log
        self._reader.join(LIMIT)
        return self.lines[-1]


@pytest.fixture(scope="module")
def server(broker: Mosquitto, template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("simulated"), MQTT_URL=broker.url)
    server.start_connected(broker, *NEW)
    with server.client() as client:
        client.save_config(LAMP, b'{"enableOTA": false}')
        client.save_config(CLOCK, b'{"enableOTA": true}')
    # No device of a test is to hear of that.
    poll(lambda: server.query("SELECT filename FROM notifications_debt WHERE owed_since IS NOT NULL"), lambda o: not o)
    yield server
    server.remove()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def simulate(server: Server, broker: Mosquitto) -> Iterator[Callable[..., Simulation]]:
    simulations: list[Simulation] = []

    def simulate(*options: str, **environ: str) -> Simulation:
        simulations.append(Simulation(broker, server.environ | environ, *options))
        return simulations[-1]

    yield simulate
    for simulation in simulations:
        simulation.process.send_signal(signal.SIGKILL)
        simulation.process.wait()


def test_known_devices_fetch_their_configuration_and_made_up_ones_find_none(simulate, client):
    simulation = simulate("--count", "3")

    for known in [LAMP, CLOCK]:
        size = len(client.get(f"/configs/{known}.json").content)
        simulation.wait_for_log(f"{known} 200 {size} bytes, at start")
    simulation.wait_for_log(f"{MADE_UP} 404 .* at start")
    assert simulation.end().startswith("3 devices, ")


def test_a_device_fetches_when_its_own_file_is_announced(simulate, client):
    simulation = simulate("--count", "2")
    simulation.wait_until_subscribed(LAMP, CLOCK)

    client.save_config(LAMP, b'{"enableOTA": false, "deviceName": "lamp"}')

    simulation.wait_for_log(rf"{LAMP} 200 42 bytes, \d+ ms after the announcement")
    summary = simulation.end(signal.SIGINT)
    assert f"{CLOCK} 200 42" not in simulation.log
    # One to each of them, as soon as they had subscribed, and this one.
    assert summary.endswith("3 announcements heard for them, 3 acted on; 0 failures")


def test_a_device_has_no_need_of_bytes_that_it_has(simulate, client):
    content = client.get(f"/configs/{LAMP}.json").content
    simulation = simulate("--count", "1")
    simulation.wait_until_subscribed(LAMP)
    before = len(simulation.lines)

    client.save_config(LAMP, content)

    simulation.wait_for_log(f"{LAMP} 304 0 bytes, .* after the announcement", after=before)


@pytest.fixture
def made_up(client: Client) -> Iterator[str]:
    """A device whose configuration, where a test makes it one, goes with the test."""
    yield MADE_UP
    client.delete(f"/configs/{MADE_UP}")


def test_a_made_up_device_gets_the_configuration_that_is_made_for_it(simulate, client, made_up):
    simulation = simulate("--count", "3")
    simulation.wait_until_subscribed(LAMP, CLOCK, made_up)

    client.save_config(made_up, b"{}")

    simulation.wait_for_log(f"{made_up} 200 2 bytes, .* after the announcement")


def test_devices_with_ota_updates_download_and_check_an_announced_asset(simulate, client):
    simulation = simulate("--count", "2")
    simulation.wait_until_subscribed(LAMP, CLOCK)

    client.upload("firmware 2.bin", b"\xe9" * 100_000)

    simulation.wait_for_log(f"{CLOCK} /assets/firmware%202.bin 200 100000 bytes, MD5 agrees, .* after the announcement")
    simulation.end()
    assert f"{LAMP} /assets/" not in simulation.log


def test_devices_fetch_again_when_the_broker_is_back(simulate, broker, server):
    simulation = simulate("--count", "1")
    simulation.wait_until_subscribed(LAMP)
    before, stopped_at = len(simulation.lines), len(broker.lines)

    broker.restart()

    simulation.wait_for_log(f"{LAMP} lost the broker", after=before)
    simulation.wait_for_log(f"{LAMP} 304 0 bytes, after subscribing", after=before)
    server.wait_until_connected(broker, after=stopped_at)  # as the next test expects it


def test_a_server_that_is_away_is_a_failure_and_no_end(simulate, broker):
    simulation = simulate("--count", "1", "--base-url", "http://127.0.0.1:9")

    simulation.wait_for_log(f"{LAMP} /configs/{LAMP}.json failed: .*refused")
    assert "0 fetches" in simulation.end()


def test_without_a_broker_the_devices_fetch_once(simulate):
    simulation = simulate("--count", "2", MQTT_URL="")

    simulation.wait_for_log("bytes, at start", count=2)
    assert simulation.end() == "2 devices, 2 fetches; 0 announcements heard for them, 0 acted on; 0 failures"
    assert "There is no broker (MQTT_URL is not set)" in simulation.lines[0]


def test_it_ends_by_itself_after_the_duration(simulate):
    simulation = simulate("--count", "1", "--duration", "0.1")

    assert simulation.wait().startswith("1 devices, ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--count=0"], "--count must be from 1 to"),
        (["--base-url=localhost:8000"], "--base-url must be http://host:port"),
        (["--mqtt-url=http://localhost"], "The broker's URL must"),
        (["--mqtt-url=mqtt://localhost:99999"], "The broker's URL must"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(CommandError, match=sentence):
        call_command("simulate_devices", *options)


def test_many_devices_may_have_as_many_files_open():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        allow_open_files(1000)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1024, hard)

        allow_open_files(1025)

        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1025
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_two_devices_have_one_address(transactional_db):
    DeviceConfig.objects.put("02-00-00-00-00-01", "{}")

    addresses = choose_mac_addresses(3)

    assert addresses == ["02-00-00-00-00-01", "02-00-00-00-00-00", "02-00-00-00-00-02"]


@pytest.fixture
def handlers() -> Iterator[None]:
    """They are as they were, afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers", "transactional_db")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("step", range(1, 9))
def test_a_signal_ends_them_at_whatever_moment_it_comes(monkeypatch: pytest.MonkeyPatch, capsys: Any, step: int):
    """Also between two steps of the thread that begins to wait for it."""
    start, steps = Simulator.start, 0
    late = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM])  # where that thread waits after fewer steps

    def count(*event: object) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGTERM)

    def start_and_count(simulator: Simulator) -> None:
        start(simulator)
        late.start()
        sys.setprofile(count)

    monkeypatch.setattr(Simulator, "start", start_and_count)
    try:
        call_command("simulate_devices", count=1, base_url=f"http://127.0.0.1:{free_port()}", mqtt_url="")
    finally:
        sys.setprofile(None)
        late.cancel()

    assert "1 devices, " in capsys.readouterr().out


def test_devices_that_are_off_are_not_there(transactional_db):
    for number in range(3):
        DeviceConfig.objects.put(f"02-00-00-00-00-0{number}", "{}")

    addresses = choose_mac_addresses(3, ["02-00-00-00-00-01", "02-00-00-00-00-03"])

    assert addresses == ["02-00-00-00-00-00", "02-00-00-00-00-02", "02-00-00-00-00-04"]


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"{}", b'{"filename": 1}', b"null"])
def test_a_message_that_announces_nothing_is_passed_over(payload):
    assert read_filename(payload) is None


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"Content-Length": "3", "x-MD5": "0" * 32}, "x-MD5 is 000"),
        ({"Content-Length": "9", "x-MD5": "900150983cd24fb0d6963f7d28e17f72"}, "3 bytes came, but Content-Length is 9"),
    ],
)
def test_damaged_bytes_are_found(headers, sentence):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"abc")

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(1) as threads:
        threads.submit(server.handle_request)
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=LIMIT)
        connection.request("GET", "/")
        with connection.getresponse() as response, pytest.raises(ValueError, match=sentence):
            read_asset(response)
        connection.close()


@pytest.mark.parametrize(
    ("base_url", "alone", "sent"),
    [
        ("http://iot:8000/x", "http://iot:8000/x", "board:newest"),
        ("https://a%3Ab:p%2Fw@[::1]:80", "https://[::1]:80", "a:b:p/w"),
        ("http://a@iot", "http://iot", "a:"),
    ],
)
def test_they_sign_in_with_what_the_address_says_or_else_the_newest_password(settings, base_url, alone, sent):
    settings.DEVICE_USERNAME, settings.DEVICE_PASSWORD = "board", "newest,older"

    assert read_base_url(base_url) == (alone, base64.b64encode(sent.encode()).decode())


def test_without_a_password_they_say_none(settings):
    assert read_base_url("http://iot") == ("http://iot", None)
    settings.DEVICE_USERNAME = "board"
    with pytest.raises(CommandError, match="DEVICE_USERNAME is set, but DEVICE_PASSWORD is not"):
        read_base_url("http://iot")
