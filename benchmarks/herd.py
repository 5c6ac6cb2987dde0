"""Ten thousand devices fetch at once, after one message.

``python -m benchmarks.herd``. A configuration is saved; when its message arrives, 64 connections fetch 10,000
different configurations as fast as they can, and compare each with what was written. Once the connections are kept,
and once there is a new one for each fetch, as there is with so many devices. One process plays all of them, and is what
limits nginx.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import nginx
from benchmarks.fleet import filename, fleet, mac_address
from benchmarks.harness import gunicorn, print_claim, print_table, spread
from benchmarks.savers import PUBLISH_RATE, ApiSaver, Turns, live_broker
from iotsupport.tests.support.mosquitto import Subscriber
from notifications.messages import CONFIGS_TOPIC

CONNECTIONS = 64
LIMIT_SECONDS = 60


class Herd:
    """Fetches files of a directory from ``/configs/`` at a port, each once."""

    def __init__(self, port: int, directory: Path, count: int, *, is_kept: bool) -> None:
        self.errors: list[str] = []
        self._port = port
        self._is_kept = is_kept
        self._expected = [(directory / filename(number)).read_bytes() for number in range(count)]
        self._waiting = iter(range(count))
        self._open = 0
        self._selector = selectors.EpollSelector()

    def run(self) -> float:
        """Return how long it took, in seconds."""
        began = time.perf_counter()
        for _ in range(CONNECTIONS):
            self._connect()
        while self._open:
            events = self._selector.select(LIMIT_SECONDS)
            if not events:
                raise RuntimeError(f"{self._open} connections hear nothing for {LIMIT_SECONDS} seconds.")
            for key, _ in events:
                self._receive(key.data)
        self._selector.close()
        return time.perf_counter() - began

    def _connect(self) -> None:
        number = next(self._waiting, None)
        if number is None:
            return
        client = socket.create_connection(("127.0.0.1", self._port), LIMIT_SECONDS)
        fetch = _Fetch(client, number)
        self._open += 1
        self._selector.register(client, selectors.EVENT_READ, fetch)
        self._ask(fetch)

    def _ask(self, fetch: _Fetch) -> None:
        connection = "keep-alive" if self._is_kept else "close"
        path = f"/configs/{mac_address(fetch.number)}.json"
        fetch.received = b""
        fetch.client.send(f"GET {path} HTTP/1.1\r\nHost: device\r\nConnection: {connection}\r\n\r\n".encode())

    def _receive(self, fetch: _Fetch) -> None:
        try:
            chunk = fetch.client.recv(65536)
        except OSError as error:
            self.errors.append(f"{filename(fetch.number)}: {error}")
            chunk = b""
        fetch.received += chunk
        head, separator, body = fetch.received.partition(b"\r\n\r\n")
        if chunk and (not separator or len(body) < _content_length(head)):
            return
        if not head.startswith(b"HTTP/1.1 200 ") or body != self._expected[fetch.number]:
            self.errors.append(f"{filename(fetch.number)}: {head[:60]!r}, {len(body)} bytes")
        if chunk and self._is_kept and b"connection: close" not in head.lower():
            number = next(self._waiting, None)
            if number is not None:
                fetch.number = number
                self._ask(fetch)
                return
        self._selector.unregister(fetch.client)
        fetch.client.close()
        self._open -= 1
        self._connect()


class _Fetch:
    def __init__(self, client: socket.socket, number: int) -> None:
        self.client = client
        self.number = number
        self.received = b""


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fetches", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        devices = stack.enter_context(fleet(options.fetches))
        broker = stack.enter_context(live_broker())
        ours = stack.enter_context(gunicorn(devices.data_dir, MQTT_URL=broker.url, MQTT_PUBLISH_RATE=PUBLISH_RATE))
        ports = {"ours": ours.port}
        if nginx.PROGRAM:
            ports["nginx, bare"] = stack.enter_context(nginx.bare(devices.data_dir)).port
            if nginx.DEPLOYED.exists():
                deployed = stack.enter_context(nginx.deployed(devices.data_dir, ours))
                ports["nginx with deploy/nginx.conf"] = deployed.port
        administrator = ApiSaver(ours.port, devices.token, Turns(devices.size))
        subscriber = stack.enter_context(Subscriber(broker.port, topic=CONFIGS_TOPIC))
        seconds: dict[tuple[str, bool], list[float]] = {(name, kept): [] for kept in [True, False] for name in ports}
        errors: list[str] = []
        at_rest = ours.memory_bytes()
        for _ in range(options.rounds):
            for (name, is_kept), results in seconds.items():
                administrator.save(1)
                subscriber.next()
                herd = Herd(ports[name], devices.data_dir / "configs", options.fetches, is_kept=is_kept)
                results.append(herd.run())
                errors += [f"{name}: {error}" for error in herd.errors]
        afterwards = ours.memory_bytes()
    rows = [["", "connections", f"seconds for {options.fetches:,} fetches", "fetches/s"]]
    for (name, is_kept), results in seconds.items():
        rates = spread(options.fetches / each for each in results)
        rows.append([name, "kept" if is_kept else "one for each", spread(results, 2), rates])
    print_table(rows)
    print(f"\nOur server's memory (PSS): {at_rest / 1e6:.0f} MB before, {afterwards / 1e6:.0f} MB afterwards.\n")
    print_claim(f"errors in {options.fetches * options.rounds * len(seconds):,} fetches", len(errors), at_most=0)
    for error in errors[:3]:
        print(f"  - {error}")


if __name__ == "__main__":
    main()
