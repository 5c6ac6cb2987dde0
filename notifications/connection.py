"""One client's connection to the broker, and what it still has to tell it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from notifications import metrics
from notifications.announcements import Announcement
from notifications.broker import Broker

logger = logging.getLogger(__name__)
P = ParamSpec("P")

# In seconds. paho waits the shortest delay once and its double once more before the first retry: 0.75 together.
RECONNECT_DELAYS = (0.25, 2)
CONNECT_TIMEOUT = 3.0
KEEPALIVE = 15

# paho refuses the 1001st message; with fewer in flight it never has to, whatever the number of threads.
MAX_QUEUED = 1000
MAX_IN_FLIGHT = 500
# As many as the largest fleet has configurations; some 10 MB.
MAX_OWED = 50_000

# How long close() waits for the DISCONNECT to be written, once the acknowledgements are in.
DISCONNECT_SECONDS = 1.0


def _logs_exceptions(
    callback: Callable[Concatenate[Connection, P], None],
) -> Callable[Concatenate[Connection, P], None]:
    """Keep an exception from ending paho's thread, which calls this."""

    @wraps(callback)
    def call(self: Connection, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(self, *args, **kwargs)
        except Exception:
            logger.exception("Could not handle what the broker said")

    return call


class Connection:
    """A paho client, started; what it cannot send now is owed and sent at the next connection.

    paho calls the callbacks while it holds locks that ``Client.publish()`` takes too, so ours is never held while
    paho is called.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._changed = threading.Condition()
        # Guarded by the lock of the condition, which is notified when any of them changes:
        self._is_connected = False
        self._is_closing = False
        # Ordered by the first announcement. A plain dict is slow to find its first key when many before it are gone.
        self._owed: OrderedDict[Announcement, None] = OrderedDict()
        self._sending = 0  # taken from what is owed, and not yet in flight
        self._in_flight: dict[int, Announcement] = {}  # by message id
        self._acknowledged_early: dict[int, ReasonCode] = {}  # before publish() told the message id
        self._troubles: set[str] = set()  # already logged since the last connection
        self._refusals: dict[str, str] = {}  # topic to what was last logged, until a message gets through

        self._disconnected = threading.Event()
        self._client = self._make_client()
        self._client.connect_async(broker.host, broker.port, KEEPALIVE)
        self._client.loop_start()

    def _make_client(self) -> Client:
        """Raises ``ValueError`` with a sentence where the CA file cannot be used."""
        client = Client(CallbackAPIVersion.VERSION2, make_client_id(), protocol=MQTTProtocolVersion.MQTTv5)
        if context := self._broker.tls_context():
            client.tls_set_context(context)
        client.username_pw_set(self._broker.username or None, self._broker.password or None)
        client.connect_timeout = CONNECT_TIMEOUT
        client.reconnect_delay_set(*RECONNECT_DELAYS)  # type: ignore[arg-type] # takes fractions
        client.max_queued_messages_set(MAX_QUEUED)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    def publish(self, announcement: Announcement) -> None:
        """Send now, or owe until the broker is back. Never blocks, never raises.

        What can only be owed is an attempt that failed; sending it later is another one.
        """
        with metrics.DURATION.labels(announcement.topic).time():
            if self._reserve_or_owe(announcement):
                self._send(announcement)
            else:
                metrics.count_failure(announcement.topic)

    def close(self, timeout_seconds: float) -> None:
        """Wait at most so long until everything is acknowledged, then disconnect.

        While disconnected, the network thread may be stuck in a name lookup, so it is left behind: it is a daemon.
        """
        with self._changed:
            self._changed.wait_for(self._is_idle, timeout_seconds)
            self._is_closing = True
            self._give_up()
        is_open = self._client.disconnect() == MQTTErrorCode.MQTT_ERR_SUCCESS
        if is_open and self._disconnected.wait(DISCONNECT_SECONDS):
            # The thread is about to end, and loop_stop() trips over one that ends while it looks.
            with contextlib.suppress(AttributeError):
                self._client.loop_stop()

    def _reserve_or_owe(self, announcement: Announcement) -> bool:
        with self._changed:
            if not self._is_ready():
                self._owe(announcement)
                return False
            self._owed.pop(announcement, None)
            self._sending += 1
            return True

    def _is_ready(self) -> bool:
        return self._is_connected and not self._is_closing and self._sending + len(self._in_flight) < MAX_IN_FLIGHT

    def _is_idle(self) -> bool:
        return not (self._owed or self._sending or self._in_flight)

    def _owe(self, announcement: Announcement) -> None:
        if len(self._owed) >= MAX_OWED:
            return
        self._owed[announcement] = None
        if len(self._owed) == MAX_OWED:
            logger.error("%d files wait to be announced: no more are remembered until the broker is back", MAX_OWED)

    def _give_up(self) -> None:
        left = len(self._owed) + len(self._in_flight)
        if left:
            logger.warning("%d files were not announced: %s did not acknowledge them in time", left, self._broker)
        for announcement in self._in_flight.values():
            metrics.count_failure(announcement.topic)
        self._in_flight.clear()
        self._owed.clear()

    def _pay(self) -> None:
        """Send what is owed, as far as that is possible now."""
        has_room = True
        while has_room and (announcement := self._take_owed()):
            with metrics.DURATION.labels(announcement.topic).time():
                has_room = self._send(announcement)

    def _take_owed(self) -> Announcement | None:
        with self._changed:
            if not self._owed or not self._is_ready():
                return None
            announcement, _ = self._owed.popitem(last=False)
            self._sending += 1
            return announcement

    def _send(self, announcement: Announcement) -> bool:
        """Hand over one announcement that was reserved. Returns whether paho has room for more."""
        try:
            info = self._client.publish(announcement.topic, announcement.payload, qos=1, retain=False)
        except Exception:
            # Whatever it is: the save that is announced has succeeded.
            logger.exception("Could not announce %s on %s", announcement.filename, announcement.topic)
            with self._sent():
                metrics.count_failure(announcement.topic)
            return True
        with self._sent():
            # Only this code says that paho did not take it: without a connection it is sent at the next one.
            if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                metrics.count_failure(announcement.topic)
                self._owe(announcement)
                return False
            reason_code = self._acknowledged_early.pop(info.mid, None)
            if reason_code is None:
                self._in_flight[info.mid] = announcement
            else:
                self._settle(announcement.topic, reason_code)
            return True

    @contextlib.contextmanager
    def _sent(self) -> Iterator[None]:
        with self._changed:
            self._sending -= 1
            yield
            self._changed.notify_all()

    def _settle(self, topic: str, reason_code: ReasonCode) -> None:
        if not reason_code.is_failure:
            self._refusals.pop(topic, None)
            metrics.count_success(topic)
            return
        metrics.count_failure(topic)
        if self._refusals.get(topic) != str(reason_code):
            self._refusals[topic] = str(reason_code)
            logger.warning("The broker %s refuses announcements on %s: %s", self._broker, topic, reason_code)

    @_logs_exceptions
    def _on_connect(
        self, client: Client, userdata: Any, flags: ConnectFlags, reason_code: ReasonCode, properties: Properties | None
    ) -> None:
        if reason_code.is_failure:
            self._log_trouble("refuses the connection: %s", reason_code)
            return
        with self._changed:
            self._is_connected = not self._is_closing
            had_trouble = bool(self._troubles)
            self._troubles.clear()
            self._changed.notify_all()
        if not self._is_connected:
            client.disconnect()  # close() could not: there was no connection yet
            return
        metrics.CONNECTION_STATE.set(1)
        # Without trouble before, it is no news: every command connects.
        logger.log(logging.INFO if had_trouble else logging.DEBUG, "Connected to the broker %s", self._broker)
        self._pay()

    @_logs_exceptions
    def _on_connect_fail(self, client: Client, userdata: Any) -> None:
        # paho does not pass the reason, but is handling it.
        self._log_trouble("cannot be reached: %s", sys.exception())

    @_logs_exceptions
    def _on_disconnect(
        self,
        client: Client,
        userdata: Any,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._changed:
            was_connected, self._is_connected = self._is_connected, False
            is_closing = self._is_closing
            self._changed.notify_all()
        metrics.CONNECTION_STATE.set(0)
        if is_closing:
            self._disconnected.set()
        elif was_connected or not self._troubles:  # a refused connection is lost as well, but has been explained
            self._log_trouble("lost the connection: %s", reason_code)

    @_logs_exceptions
    def _on_publish(
        self, client: Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        with self._changed:
            announcement = self._in_flight.pop(mid, None)
            if announcement is None:
                self._acknowledged_early[mid] = reason_code
            else:
                self._settle(announcement.topic, reason_code)
                self._changed.notify_all()
        self._pay()

    def _log_trouble(self, message: str, *args: Any) -> None:
        """Log each kind of trouble once, until there is a connection again: retries go on for days."""
        trouble = message % args
        if trouble not in self._troubles and not self._is_closing:
            self._troubles.add(trouble)
            logger.warning("The broker %s %s", self._broker, trouble)


def make_client_id() -> str:
    """One of its own for each process: two clients of one name would throw each other out for ever."""
    return f"iotsupport-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
