"""A wire tap between a server and its broker, and a port where the broker is missed."""

from __future__ import annotations

import json
import queue
import re
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Self

from iotsupport.tests.support.waiting import LIMIT

# MQTT 5, section 2.1.2: the upper half of a packet's first byte.
PUBLISH, PUBACK = 3, 4


class Announced(NamedTuple):
    """A PUBLISH as it passed."""

    filename: str
    seen: Any
    """What ``look`` returned before the broker had it: no device can have heard of it then."""
    connection: int
    """Numbered in the order in which they were made; a worker has one at a time."""
    seconds: float
    """Monotonic."""


class Wiretap:
    """Passes everything on, and knows what was announced and what the broker acknowledged. A context manager.

    While the broker is down, connections are ended as soon as they are made.
    """

    def __init__(self, broker_port: int, look: Callable[[str], Any] = lambda filename: None) -> None:
        """``look`` is called with the file name of each announcement that passes."""
        self.passed: list[Announced] = []
        self.acknowledged: list[Announced] = []
        self._changed = threading.Condition()
        self._look, self._broker_port = look, broker_port
        self._flying: dict[tuple[int, int], Announced] = {}  # by connection and packet identifier
        self._connections = 0
        self._publishers: set[socket.socket] = set()
        self._is_over = False
        self._server = _serve(self._handle)
        self.port = self._server.server_address[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        with self._changed:
            self._is_over = True
            for publisher in self._publishers:
                _end(publisher)
        self._server.server_close()

    def wait_for(self, is_true: Callable[[], bool], otherwise: Callable[[], Any] = lambda: None) -> None:
        """Wait until it is true of what has passed, and fail with what ``otherwise`` returns."""
        with self._changed:
            assert self._changed.wait_for(is_true, LIMIT), otherwise()

    def told(self) -> set[tuple[str, Any]]:
        """File names and what was seen as they were announced, of what the broker acknowledged."""
        with self._changed:
            return {(announced.filename, announced.seen) for announced in self.acknowledged}

    def _handle(self, publisher: socket.socket) -> None:
        try:
            broker = socket.create_connection(("127.0.0.1", self._broker_port), timeout=LIMIT)
        except OSError:
            return
        broker.settimeout(None)
        with self._changed:
            self._connections += 1
            number = self._connections
            self._publishers.add(publisher)
            if self._is_over:  # it came as the last one: nobody else would end it
                _end(publisher)
        with broker:
            answers = threading.Thread(target=_pass_on, args=[broker, publisher, lambda p: self._answered(number, p)])
            answers.start()
            _pass_on(publisher, broker, lambda packet: self._sent(number, packet))
            answers.join()
        with self._changed:
            self._publishers.remove(publisher)

    def _sent(self, connection: int, packet: bytes) -> None:
        if packet[0] >> 4 != PUBLISH:
            return
        identifier, payload = _read_publish(packet)
        filename = json.loads(payload)["filename"]
        announced = Announced(filename, self._look(filename), connection, time.monotonic())
        with self._changed:
            self.passed.append(announced)
            self._flying[connection, identifier] = announced
            self._changed.notify_all()

    def _answered(self, connection: int, packet: bytes) -> None:
        if packet[0] >> 4 != PUBACK:
            return
        body = _body(packet)
        reason_code = body[2] if len(body) > 2 else 0
        with self._changed:
            announced = self._flying.pop((connection, int.from_bytes(body[:2])))
            if reason_code < 0x80:
                self.acknowledged.append(announced)
            self._changed.notify_all()


class Missed:
    """Listens on a port in place of a broker that is down, and ends each connection. A context manager."""

    def __init__(self, port: int) -> None:
        self._attempts: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
        self._server = _serve(self._handle, port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def attempts_until(self, seconds: float) -> Counter[int]:
        """Wait for the first attempt to connect after a monotonic moment. Return how many each process made."""
        attempts: Counter[int] = Counter()
        now = 0.0
        while now < seconds:
            pid, now = self._attempts.get(timeout=LIMIT)
            attempts[pid] += 1
        return attempts

    def _handle(self, publisher: socket.socket) -> None:
        publisher.settimeout(LIMIT)
        # The CONNECT packet names the client. Whoever says nothing, or is no server of ours, is none of our business.
        if name := re.search(rb"iotsupport-.*-(\d+)-[0-9a-f]{8}", publisher.recv(4096)):
            self._attempts.put((int(name[1]), time.monotonic()))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 100


def _serve(handle: Callable[[socket.socket], None], port: int = 0) -> _Server:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            handle(self.request)

    server = _Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    return server


def _pass_on(source: socket.socket, target: socket.socket, watch: Callable[[bytes], None]) -> None:
    """Until one of the two is gone; then end both."""
    received = b""
    try:
        while data := source.recv(65536):
            *packets, received = _split(received + data)
            for packet in packets:
                watch(packet)
            target.sendall(data)
    except OSError:  # killed
        pass
    finally:
        _end(source)
        _end(target)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _split(data: bytes) -> Iterator[bytes]:
    """Whole packets, and last what is left, even if it is nothing."""
    while (size := _packet_size(data)) and size <= len(data):
        yield data[:size]
        data = data[size:]
    yield data


def _packet_size(data: bytes) -> int:
    """MQTT 5, section 2.1.4; 0 where too little is there to say."""
    try:
        length, begin = _read_number(data, 1)
    except IndexError:
        return 0
    return begin + length


def _read_publish(packet: bytes) -> tuple[int, bytes]:
    """The packet identifier and the payload of one of QoS 1: section 3.3."""
    body = _body(packet)
    identifier_at = 2 + int.from_bytes(body[:2])
    length, properties_at = _read_number(body, identifier_at + 2)
    return int.from_bytes(body[identifier_at : identifier_at + 2]), body[properties_at + length :]


def _body(packet: bytes) -> bytes:
    return packet[_read_number(packet, 1)[1] :]


def _read_number(data: bytes, position: int) -> tuple[int, int]:
    """A variable byte integer, and where it ends: section 1.5.5."""
    value, shift = 0, 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
