"""Simulated devices against a broker and a server that do not do what good ones do."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import NamedTuple

import pytest

from iotsupport.tests.support.waiting import LIMIT, eventually
from notifications.broker import Broker
from notifications.simulator import connections
from notifications.simulator.devices import Simulator
from notifications.tests.scripted_broker import NOT_AUTHORIZED, SUCCESS, ScriptedBroker

MAC = "02-00-00-00-00-0a"
PATH = f"/configs/{MAC}.json"
SUBSCRIBED = "after subscribing"


class Simulation(NamedTuple):
    simulator: Simulator
    said: list[str]

    def wait_for(self, text: str, *, count: int = 1) -> None:
        eventually(lambda: self.count(text) >= count, lambda: self.said)

    def count(self, text: str) -> int:
        return sum(text in line for line in self.said)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker is tried again after no more than this."""
    monkeypatch.setattr(connections, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(connections, "LONGEST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(connections, "TICK_SECONDS", 0.01)


@pytest.fixture
def simulate(nobody: str) -> Iterator[Callable[..., Simulation]]:
    """Begin with one device, that reaches no server unless it is told of one."""
    with ExitStack() as ending:

        def simulate(mqtt_url: str = "", base_url: str = "") -> Simulation:
            broker = Broker.parse(mqtt_url) if mqtt_url else None
            said: list[str] = []
            simulator = Simulator(base_url or nobody.replace("mqtt", "http"), [MAC], broker, said.append)
            simulator.start()
            ending.callback(simulator.stop)
            return Simulation(simulator, said)

        yield simulate


def test_a_device_that_is_not_let_in_says_so_once_and_goes_on_trying(
    simulate: Callable[..., Simulation], scripted_broker: ScriptedBroker
) -> None:
    scripted_broker.connack = NOT_AUTHORIZED
    simulation = simulate(scripted_broker.url)
    scripted_broker.wait_for(lambda: scripted_broker.connections >= 3)

    scripted_broker.connack = SUCCESS

    simulation.wait_for(SUBSCRIBED)
    assert simulation.count(f"{MAC} is not let in by the broker: Not authorized") == 1


def test_a_device_that_may_not_subscribe_says_so(
    simulate: Callable[..., Simulation], scripted_broker: ScriptedBroker
) -> None:
    scripted_broker.suback = NOT_AUTHORIZED

    simulation = simulate(scripted_broker.url)

    simulation.wait_for(f"{MAC} may not subscribe: Not authorized")
    assert simulation.count(SUBSCRIBED) == 0
    eventually(lambda: simulation.simulator.counts["failures"] == 2)  # it reaches no server, either


def test_a_device_speaks_an_older_protocol_to_an_older_broker(
    simulate: Callable[..., Simulation], scripted_broker: ScriptedBroker
) -> None:
    scripted_broker.level = 4

    simulation = simulate(scripted_broker.url)

    simulation.wait_for(SUBSCRIBED)
    assert scripted_broker.levels == [5, 4]
    assert simulation.count("broker") == 0


def test_a_device_that_loses_the_broker_says_so_and_comes_back(
    simulate: Callable[..., Simulation], scripted_broker: ScriptedBroker
) -> None:
    simulation = simulate(scripted_broker.url)
    simulation.wait_for(SUBSCRIBED)

    scripted_broker.drop()

    simulation.wait_for(SUBSCRIBED, count=2)
    assert simulation.count(f"{MAC} lost the broker: ") == 1


def test_a_device_that_reaches_no_broker_says_so_once_and_goes_on_trying(simulate: Callable[..., Simulation]) -> None:
    with socket.socket() as broker:
        broker.bind(("127.0.0.1", 0))
        simulation = simulate(f"mqtt://127.0.0.1:{broker.getsockname()[1]}")
        simulation.wait_for(f"{MAC} does not reach the broker")

        broker.listen()

        connection, _ = broker.accept()
        connection.close()
        assert simulation.count("does not reach the broker") == 1


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that answers everything with this status, and three bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"{ }")

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(LIMIT)


def test_an_answer_that_no_device_understands_is_a_failure(simulate: Callable[..., Simulation]) -> None:
    with answering(503) as url:
        simulation = simulate(base_url=url)

        simulation.wait_for(f"{MAC} {PATH} failed: status 503, at start")
        with pytest.raises(ValueError, match="status 503"):
            simulation.simulator.devices[0].fetch("/assets/firmware.bin")

    assert simulation.simulator.counts["failures"] == 1


def test_an_asset_that_was_deleted_meanwhile_is_no_failure(simulate: Callable[..., Simulation]) -> None:
    with answering(404) as url:
        simulation = simulate(base_url=url)

        simulation.wait_for(f"{MAC} 404 3 bytes, at start")
        assert simulation.simulator.devices[0].fetch("/assets/firmware.bin") == "/assets/firmware.bin 404 0 bytes"


def test_what_a_device_hears_while_it_downloads_is_one_errand_for_later(
    simulate: Callable[..., Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        simulation = simulate(base_url=f"http://127.0.0.1:{server.getsockname()[1]}")
        [device] = simulation.simulator.devices
        for number in range(2):
            connection, _ = server.accept()
            with connection:
                if number == 0:
                    beside: list[Callable[[], None]] = []
                    monkeypatch.setattr(simulation.simulator, "submit", beside.append)
                    device.boot()
                    device.boot()
                    assert beside == []
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        simulation.wait_for("404 0 bytes, at start", count=2)
        simulation.simulator.stop()

    assert simulation.simulator.counts["fetches"] == 2


def test_a_device_does_nothing_more_when_it_was_stopped(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate()
    simulation.wait_for("at start")
    simulation.simulator.stop()

    simulation.simulator.devices[0].boot()

    assert len(simulation.said) == 1
