"""A broker that does what Mosquitto cannot be made to do, as a test tells it."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from iotsupport.tests.support.waiting import LIMIT

SUCCESS, NO_SUBSCRIBERS, NOT_AUTHORIZED, QUOTA_EXCEEDED = 0, 16, 135, 151

# Packet types, MQTT 5, section 2.1.2.
CONNECT, PUBLISH, SUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 8, 12, 14


class ScriptedBroker:
    """Speaks MQTT 5, or 3.1.1 where it is told to, on a port of 127.0.0.1; whoever subscribes, hears nothing.

    A context manager; a thread for each connection.

    What it is told may be changed at any time.
    """

    def __init__(self, *, max_packet_bytes: int | None = None, receive_maximum: int | None = None) -> None:
        self.refused: dict[str, int] = {}
        """File names, or topics, to the reason code that answers them."""
        self.ignored: set[str] = set()
        """File names that are never acknowledged."""
        self.fatal: set[str] = set()
        """File names that end the connection."""
        self.connack = self.suback = SUCCESS
        self.level = 5
        """The protocol level that it knows: 5, or 4 for MQTT 3.1.1."""
        self.hangs_up = False
        """Whether it ends a connection of another level without a word."""
        self.is_silent = False
        """Whether it does not answer one of another level at all."""
        self.answers_pings = True
        self.learns_at: int | None = None
        """After so many connections, it knows level 5."""
        self.max_packet_bytes, self.receive_maximum = max_packet_bytes, receive_maximum

        self.heard: list[str] = []
        """File names, in the order of arrival."""
        self.connections = 0
        self.levels: list[int] = []
        """The protocol levels of all that connected."""
        self.goodbyes = self.pings = 0
        self.most_unacknowledged = 0

        self._changed = threading.Condition()
        self._is_holding = False
        self._held: list[tuple[socket.socket, bytes]] = []
        self._unacknowledged: dict[socket.socket, int] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def hold(self) -> None:
        """Acknowledge nothing from now on."""
        with self._changed:
            self._is_holding = True

    def release(self) -> None:
        """Acknowledge what was held, and what comes."""
        with self._changed:
            self._is_holding = False
            held, self._held = self._held, []
            for connection, packet in held:
                self._send(connection, packet)

    def drop(self) -> None:
        """End all connections without a word."""
        with self._changed:
            for connection in self._unacknowledged:
                with suppress(OSError):  # the other side was faster
                    connection.shutdown(socket.SHUT_RDWR)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, LIMIT), (self.heard[-50:], self.connections)

    def wait_for_heard(self, *filenames: str) -> None:
        """Return when these were heard; each as often as it is named."""
        self.wait_for(lambda: all(self.heard.count(name) >= filenames.count(name) for name in filenames))

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            with self._changed:
                self._unacknowledged[connection] = 0
            with suppress(OSError):
                while header := stream.read(1):
                    body = stream.read(_read_length(stream.read))
                    if not self._answer(connection, header[0] >> 4, body):
                        break
            with self._changed:
                del self._unacknowledged[connection]
                self._changed.notify_all()

    def _answer(self, connection: socket.socket, kind: int, body: bytes) -> bool:
        """Return whether the connection goes on."""
        with self._changed:
            self._changed.notify_all()
            if kind == CONNECT:
                self.connections += 1
                self.levels.append(body[6])  # after the protocol's name: MQTT 3.1.1 and 5, section 3.1.2.2
                if self.learns_at is not None and self.connections > self.learns_at:
                    self.level = 5
                if body[6] != self.level:
                    if self.is_silent:
                        return True
                    if not self.hangs_up:
                        self._send(connection, _packet(0x20, bytes([0, 1])))
                    return False
                if self.level == 4:
                    self._send(connection, _packet(0x20, bytes([0, self.connack])))
                    return self.connack == SUCCESS
                properties = b""
                if self.receive_maximum is not None:
                    properties += struct.pack("!BH", 0x21, self.receive_maximum)
                if self.max_packet_bytes is not None:
                    properties += struct.pack("!BI", 0x27, self.max_packet_bytes)
                self._send(connection, _packet(0x20, bytes([0, self.connack, len(properties)]) + properties))
                return self.connack == SUCCESS
            if kind == PUBLISH:
                return self._hear(connection, body)
            if kind == SUBSCRIBE:
                properties = b"\0" if self.level == 5 else b""  # none
                self._send(connection, _packet(0x90, body[:2] + properties + bytes([self.suback])))
            if kind == PINGREQ:
                self.pings += 1
                if self.answers_pings:
                    self._send(connection, _packet(0xD0, b""))
            self.goodbyes += kind == DISCONNECT
            return kind != DISCONNECT

    def _hear(self, connection: socket.socket, body: bytes) -> bool:
        length = struct.unpack("!H", body[:2])[0]
        topic, message_id, payload = body[2 : 2 + length].decode(), body[2 + length : 4 + length], body[4 + length :]
        if self.level == 5:
            payload = payload.removeprefix(b"\0")  # no properties
        filename = json.loads(payload)["filename"]
        self.heard.append(filename)
        self._unacknowledged[connection] += 1
        self.most_unacknowledged = max(self.most_unacknowledged, self._unacknowledged[connection])
        if filename in self.fatal:
            return False
        reason = self.refused.get(filename, self.refused.get(topic, SUCCESS))
        puback = _packet(0x40, message_id + bytes([reason] if self.level == 5 else []))
        if filename in self.ignored:
            pass
        elif self._is_holding:
            self._held.append((connection, puback))
        else:
            self._send(connection, puback)
        return True

    def _send(self, connection: socket.socket, packet: bytes) -> None:
        if connection in self._unacknowledged:
            self._unacknowledged[connection] -= packet[0] == 0x40
            with suppress(OSError):  # the client is gone
                connection.sendall(packet)


def _packet(first: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([first, len(body)]) + body


def _read_length(read: Callable[[int], bytes]) -> int:
    """MQTT 5, section 1.5.5: seven bits a byte, the lowest first."""
    length = shift = 0
    while (byte := read(1)[0]) & 0x80:
        length |= (byte & 0x7F) << shift
        shift += 7
    return length | byte << shift
