"""A process's connection to the broker: made, lost, made anew; paho's client, and what the broker says through it.

It belongs to one thread, the messenger's. What other threads want of that thread they leave in its inbox, as calls
(:meth:`Connection.post`): so does paho's thread with each callback, and nobody waits. Each connection has a client of
its own: paho would send what the last one held once more, also what made the broker end it. What a client says after
another took its place is not heard. Why paho keeps a thread of its own is in ``docs/decisions/6-paho.md``.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from django.utils import timezone
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from iotsupport.monitoring.logs import AT_LENGTH
from iotsupport.monitoring.news import is_news, is_over
from notifications import metrics, trouble
from notifications.broker import Broker, TLSContexts, UnusableCertificate
from notifications.messages import Message
from notifications.protocol import MQTT_5, ProtocolChoice
from notifications.trouble import Trouble

logger = logging.getLogger(__name__)

# All in seconds.
CONNECT_TIMEOUT = 3.0
KEEPALIVE = 15

# Fewer where the broker says so.
MAX_IN_FLIGHT = 100
# paho refuses one more than these. We never hand it more than MAX_IN_FLIGHT.
MAX_QUEUED = 2 * MAX_IN_FLIGHT


class Connection:
    """Whatever is not said to be for other threads is called by the one that it belongs to."""

    def __init__(self, broker: Broker, acknowledged: Callable[[int, ReasonCode], None]) -> None:
        """``acknowledged`` is called with the id of a message, and with what the broker answered to it.

        Raises ``ValueError`` with a sentence where the CA file cannot be used.
        """
        self._broker = broker
        self._tls = TLSContexts(broker)
        with suppress(UnusableCertificate):  # it may be there soon: each connection looks
            self._tls.get()
        self._tell_acknowledged = acknowledged

        self.is_connected = False
        """This, and what follows up to ``protocol``, is for every thread to read."""
        self.disconnected_since: datetime | None = timezone.now()
        self.trouble = Trouble()
        """Why there was no connection, when that was last seen, and what to do about it."""
        self.protocol = ProtocolChoice()
        self.max_packet_bytes: int | None = None
        self.max_in_flight = MAX_IN_FLIGHT
        """How many messages the broker takes before it has acknowledged the first of them."""
        self.closing = threading.Event()

        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._client: Client | None = None
        self._connack: ReasonCode | None = None
        self._troubles: set[str] = set()  # already logged since the last connection
        self._says_goodbye = False  # a DISCONNECT is about to be written
        self._is_gone = threading.Event()  # it was

    # --- For other threads ---------------------------------------------------------------------------------------

    def post(self, call: Callable[[], None]) -> None:
        """Have something called by the thread that this belongs to."""
        self._inbox.put(call)

    def close_soon(self) -> None:
        """Let the thread find :attr:`closing` set, whatever it waits for here."""
        self.closing.set()
        self.post(lambda: None)

    # --- For the thread that it belongs to -----------------------------------------------------------------------

    def handle(self, deadline: float) -> None:
        """Wait for a call until the deadline, then make all that have come."""
        try:
            call = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            while True:
                call()
                call = self._inbox.get_nowait()
        except queue.Empty:
            pass

    def handle_until(self, deadline: float, is_over: Callable[[], bool]) -> None:
        while not is_over() and time.monotonic() < deadline:
            self.handle(deadline)

    def connect(self) -> bool:
        """Return whether the broker accepted us.

        MQTT 5 comes first in each connection: a broker that knew no other version may have been replaced meanwhile.
        """
        try:
            tls_context = self._tls.get()
        except ValueError as error:
            self.log_trouble(trouble.unusable(error))
            return False
        client = self._client = self._make_client(self.protocol.begin(), tls_context)
        self._connack = None
        try:
            client.connect(self._broker.host, self._broker.port, KEEPALIVE)
        except (OSError, ValueError) as error:
            self.log_trouble(trouble.unreachable(error, self._broker))
            return False
        client.loop_start()
        self.handle_until(
            time.monotonic() + CONNECT_TIMEOUT,
            lambda: bool(self._connack or not self._client or self.closing.is_set()),
        )
        if not self._is_accepted():
            return False
        # Without trouble before, it is no news: every command connects.
        logger.log(logging.INFO if self._troubles else logging.DEBUG, "Connected to the broker %s", self._broker)
        self._troubles.clear()
        self._tell_protocol()
        self.is_connected = True
        self.disconnected_since = None
        metrics.CONNECTION_STATE.set(1)
        return True

    def publish(self, message: Message) -> int | None:
        """Send with QoS 1. Returns the id that its acknowledgement will have; None where paho has no room for more.

        Raises whatever paho does, such as ``ValueError`` for a topic with wildcards.
        """
        assert self._client is not None  # noqa: S101 - for mypy: it is called while connected
        info = self._client.publish(message.topic, message.payload, qos=1, retain=False)
        return None if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE else info.mid

    def hang_up(self) -> None:
        """End the connection, if there is one. paho's thread ends by itself."""
        if self.is_connected:
            self.disconnected_since = timezone.now()
        self.is_connected = False
        metrics.CONNECTION_STATE.set(0)
        client, self._client = self._client, None
        if client is not None:
            self._says_goodbye = client.disconnect() == MQTTErrorCode.MQTT_ERR_SUCCESS

    def wait_for_goodbye(self, seconds: float) -> None:
        """After it hung up for good: let paho's thread write that, for at most so long."""
        if self._says_goodbye:
            self._is_gone.wait(seconds)

    def log_trouble(self, found: Trouble) -> None:
        """Log each kind of trouble once, until there is a connection again: retries go on for days."""
        self.trouble = found
        if found.reason not in self._troubles and not self.closing.is_set():
            self._troubles.add(found.reason)
            sentence = "The broker %s %s. %s"
            logger.warning(sentence, self._broker, found.reason.rstrip("."), found.advice, extra=AT_LENGTH)

    def _is_accepted(self) -> bool:
        if self._connack is None:
            if self._client is not None:
                self.log_trouble(Trouble("does not answer", trouble.MUTE))
                self.protocol.unanswered()
            return False
        if self._connack.value == trouble.UNSUPPORTED_VERSION and self.protocol.current == MQTT_5:
            self.protocol.refused()
            return False
        if self._connack.is_failure:
            self.log_trouble(trouble.refused(self._connack, self._broker))
            return False
        return self._client is not None and self.protocol.accepted()

    def _tell_protocol(self) -> None:
        """Say once that the broker knows no MQTT 5, and again if it knew it meanwhile."""
        limits = f"{self._broker} knows no MQTT 5"
        if self.protocol.current == MQTT_5:
            is_over(limits)
        elif is_news(limits):
            sentence = "The broker %s: MQTT 3.1.1 is spoken. %s"
            logger.warning(sentence, limits, trouble.OLD_PROTOCOL, extra=AT_LENGTH)

    def _make_client(self, protocol: MQTTProtocolVersion, tls_context: ssl.SSLContext | None) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            make_client_id(),
            protocol=protocol,
            reconnect_on_failure=False,
        )
        if tls_context:
            client.tls_set_context(tls_context)
        client.username_pw_set(self._broker.username or None, self._broker.password or None)
        client.connect_timeout = CONNECT_TIMEOUT
        client.max_inflight_messages_set(MAX_IN_FLIGHT)
        client.max_queued_messages_set(MAX_QUEUED)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    # --- What the broker says ------------------------------------------------------------------------------------

    def _accepted(self, client: Client, reason_code: ReasonCode, properties: Properties | None) -> None:
        if client is not self._client:
            return
        self._connack = reason_code
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        # paho does not heed it, and the broker ends the connection: MQTT 5, section 4.9.
        self.max_in_flight = min(MAX_IN_FLIGHT, getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT))

    def _acknowledged(self, client: Client, mid: int, reason_code: ReasonCode) -> None:
        if client is self._client:
            self._tell_acknowledged(mid, reason_code)

    def _lost(self, client: Client, reason_code: ReasonCode) -> None:
        if client is not self._client:
            return
        if self._connack is None and self.protocol.current != MQTT_5 and self.protocol.was_refused:
            # It refused this version as well, which paho does not tell.
            self.log_trouble(trouble.knows_neither())
        elif self._connack is None:
            self.log_trouble(trouble.ended_unanswered(self._broker))
            self.protocol.unanswered()
        elif not self._connack.is_failure:  # of that, more is said elsewhere
            self.log_trouble(Trouble(f"lost the connection: {reason_code}", trouble.LOST))
        self.hang_up()

    # --- paho's thread: it only leaves a call --------------------------------------------------------------------

    def _on_connect(
        self, client: Client, userdata: Any, flags: ConnectFlags, reason_code: ReasonCode, properties: Properties | None
    ) -> None:
        self.post(partial(self._accepted, client, reason_code, properties))

    def _on_disconnect(
        self,
        client: Client,
        userdata: Any,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self.closing.is_set():
            self._is_gone.set()
        self.post(partial(self._lost, client, reason_code))

    def _on_publish(
        self, client: Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        self.post(partial(self._acknowledged, client, mid, reason_code))


def make_client_id() -> str:
    """One of its own for each connection: two clients of one name would throw each other out for ever."""
    return f"iotsupport-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def packet_bytes(message: Message) -> int:
    """Size of its PUBLISH packet: MQTT 5, section 3.3. Names of files are too short for a third byte of length."""
    rest = 2 + len(message.topic.encode()) + 2 + 1 + len(message.payload)
    return 1 + (1 if rest < 128 else 2) + rest
