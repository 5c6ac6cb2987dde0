"""The broker connections of many simulated devices, in one thread."""

from __future__ import annotations

import selectors
import ssl
import threading
import time
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from notifications.broker import Broker
from notifications.protocol import MQTT_5

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 10.0
TICK_SECONDS = 0.2


def make_client(broker: Broker, protocol: MQTTProtocolVersion = MQTT_5) -> mqtt.Client:
    """Return a client that is ready to be connected. Raises ``ValueError`` for an unusable CA file."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
    client.username_pw_set(broker.username or None, broker.password or None)
    if context := broker.tls_context():
        client.tls_set_context(context)
    client.connect_async(broker.host, broker.port)
    return client


class Connections(threading.Thread):
    """Keep clients connected. paho's own loops are a thread each, and end at the 1024th descriptor (``select(2)``)."""

    def __init__(self) -> None:
        super().__init__(name="broker connections", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._clients: list[mqtt.Client] = []
        self._stopping = threading.Event()
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._retry_at = 0.0
        self._tick_at = 0.0

    def add(self, client: mqtt.Client) -> None:
        """Take a client; its callbacks are called in this thread. Call before :meth:`start`."""
        self._look_after(client)
        self._clients.append(client)

    def replace(self, old: mqtt.Client, new: mqtt.Client) -> None:
        """Take a client in place of another, of which nothing more is heard. Call in a callback."""
        self._look_after(new)
        old.on_disconnect = None
        self._clients[self._clients.index(old)] = new

    def _look_after(self, client: mqtt.Client) -> None:
        client.on_socket_open = self._register
        client.on_socket_close = self._unregister
        client.on_socket_register_write = self._want_write
        client.on_socket_unregister_write = self._register

    def stop(self) -> None:
        """Disconnect all clients."""
        self._stopping.set()
        self.join()

    def succeeded(self) -> None:
        """To be told when a broker lets a client in: the next trouble is tried again soon."""
        self._retry_seconds = FIRST_RETRY_SECONDS

    def failed(self) -> None:
        """To be told when a connection is lost or refused: wait, and longer the next time."""
        self._retry_at = time.monotonic() + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, LONGEST_RETRY_SECONDS)

    def run(self) -> None:
        while not self._stopping.is_set():
            self._connect()
            for key, events in self._selector.select(TICK_SECONDS):
                serve(key.data, events)
            self._tick()
        for client in self._clients:
            client.disconnect()
            client.loop_write()

    def _connect(self) -> None:
        for client in self._clients:
            if time.monotonic() < self._retry_at or self._stopping.is_set():
                return
            if client.socket() is None:
                self._try(client)

    def _try(self, client: mqtt.Client) -> None:
        try:
            client.reconnect()
        except (OSError, ValueError):
            self.failed()
            if client.on_connect_fail:
                client.on_connect_fail(client, None)

    def _tick(self) -> None:
        if time.monotonic() < self._tick_at:
            return
        self._tick_at = time.monotonic() + 1
        for client in self._clients:
            client.loop_misc()  # keep-alive

    def _register(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        if sock in self._selector.get_map():
            self._selector.modify(sock, selectors.EVENT_READ, client)
        else:
            self._selector.register(sock, selectors.EVENT_READ, client)

    def _want_write(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self._selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, client)

    def _unregister(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self._selector.unregister(sock)


def serve(client: mqtt.Client, events: int) -> None:
    if events & selectors.EVENT_WRITE:
        client.loop_write()
    if events & selectors.EVENT_READ:
        client.loop_read()
        # What TLS has decrypted already does not make the socket readable again.
        while isinstance(sock := client.socket(), ssl.SSLSocket) and sock.pending():
            client.loop_read()
