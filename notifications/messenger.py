"""One process's connection to the broker, and the thread that sends messages over it."""

from __future__ import annotations

import logging
import os
import queue
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from django.utils import timezone
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from iotsupport.monitoring.logs import AT_LENGTH
from iotsupport.monitoring.news import is_news, is_over
from notifications import metrics, trouble
from notifications.broker import Broker
from notifications.messages import TOPICS, Message
from notifications.models import pause
from notifications.outcomes import Outcome, Outcomes, Verdict
from notifications.pace import Pace, ReconnectPauses
from notifications.protocol import MQTT_3, MQTT_5, ProtocolChoice
from notifications.trouble import Trouble

logger = logging.getLogger(__name__)

# All in seconds. What an outage left must be out within 5 s of the broker's return.
RECONNECT_DELAYS = (0.25, 1.0)  # the shortest and the longest pause
CONNECT_TIMEOUT = 3.0
KEEPALIVE = 15
# A broker that does not acknowledge within this time is connected to anew: paho forgets what it holds, we do not.
ACKNOWLEDGE_TIMEOUT = 15.0
# How often the claims on what is held are renewed; several times within a lease.
RENEW_SECONDS = 2.0
# How long a DISCONNECT may take to be written.
DISCONNECT_SECONDS = 1.0

# Fewer where the broker says so.
MAX_IN_FLIGHT = 100
# paho refuses one more than these. We never hand it more than MAX_IN_FLIGHT.
MAX_QUEUED = 2 * MAX_IN_FLIGHT
# What often failed is in flight with few others, or alone; but they wait for its acknowledgement no longer than this.
ISOLATION_SECONDS = 1.0
# At most so many wait here to be paced, and a quarter of a second's worth: what is urgent does not wait behind them.
MAX_WAITING = 100
WAITING_SECONDS = 0.25

# When so many different files were refused on a topic, and none accepted, the topic is refused, not they.
REFUSALS_OF_TOPIC = 3
LONGEST_SUSPENSION = 60.0

LOST = "The connection to the broker ended before it acknowledged."


class _InFlight(NamedTuple):
    message: Message
    sent_at: float
    limit: int
    """How many may be in flight together with it, itself included."""


class _Refusals(NamedTuple):
    """What was refused on a topic since the last success on it."""

    files: frozenset[str] = frozenset()
    suspensions: int = 0
    reason: str = ""
    until: float = 0.0
    """Monotonic: while it lies ahead, nothing is sent on the topic."""


class Messenger:
    """Sends messages while it is connected, and connects again whenever it is not.

    Its state belongs to its thread alone. Everybody else - requests, the relay, paho's threads - leaves calls in its
    inbox: nobody waits for it, and no lock of ours is ever held together with one of paho's. Each connection has a
    client of its own: paho would send what the last one held once more, also what made the broker end it.
    """

    def __init__(self, broker: Broker, rate: int) -> None:
        """Raises ``ValueError`` with a sentence where the CA file cannot be used."""
        self._broker = broker
        self._tls_context = broker.tls_context()
        self._pace = Pace(rate)
        self._waiting_limit = max(1, min(MAX_WAITING, int(rate * WAITING_SECONDS)))

        self.outcomes = Outcomes()
        """For the relay: each message gets one at the end. It is woken where there is room, or a connection at last."""
        self.changed = threading.Condition()
        """Notified after every step."""
        self.is_connected = False
        self.disconnected_since: datetime | None = timezone.now()
        self.trouble = Trouble()
        """Why there was no connection, when that was last seen, and what to do about it."""
        self.protocol = ProtocolChoice()
        self.room = 0
        """How many messages may be handed over from the outbox."""
        self.suspensions: dict[str, str] = {}
        """Topics on which nothing is sent now, and why."""

        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._client: Client | None = None
        self._connack: ReasonCode | None = None
        self._max_packet_bytes: int | None = None
        self._max_in_flight = MAX_IN_FLIGHT
        self._urgent: OrderedDict[tuple[str, str], Message] = OrderedDict()
        self._bulk: OrderedDict[tuple[str, str], Message] = OrderedDict()
        self._in_flight: OrderedDict[int, _InFlight] = OrderedDict()  # by message id, the oldest first
        self._refusals: dict[str, _Refusals] = {}
        self._renew_at = 0.0
        self._troubles: set[str] = set()  # already logged since the last connection
        self._held: dict[int, Message] = {}  # by revision, until the outcome; guarded by the lock of ``changed``
        self._closing = threading.Event()
        self._says_goodbye = False  # a DISCONNECT is about to be written
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="messenger", daemon=True)

    # --- For other threads: none of these waits, but close() ------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def can_send(self, topic: str) -> bool:
        return self.is_connected and topic not in self.suspensions

    def send(self, message: Message) -> None:
        """Hand over a message. Its outcome follows; of one that is held already, only one does."""
        with self.changed:
            if message.revision in self._held:
                return
            self._held[message.revision] = message
        self._inbox.put(partial(self._take, message))

    @property
    def open_topics(self) -> list[str]:
        return [topic for topic in TOPICS if topic not in self.suspensions]

    @property
    def is_idle(self) -> bool:
        """Whether everything that was handed over has its outcome."""
        return not self._held

    def close(self) -> None:
        """Give back what is held, and disconnect, waiting for that no longer than :data:`DISCONNECT_SECONDS`.

        The thread may be stuck in a name lookup, so it is left behind: it is a daemon.
        """
        self._closing.set()
        self._inbox.put(lambda: None)
        self._closed.wait(DISCONNECT_SECONDS)

    # --- The thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pauses = ReconnectPauses(*RECONNECT_DELAYS)
        while not self._closing.is_set():
            try:
                if self._hold_connection():
                    pauses.connected()
                elif self.protocol.next == MQTT_3:
                    continue
                self._handle_until(time.monotonic() + pauses.seconds, self._closing.is_set)
            except Exception:
                # Whatever it was: without this thread, nothing would be announced until the next start.
                logger.exception("Announcing was interrupted; it goes on")
                self._closing.wait(pauses.seconds)
            pauses.paused()
        if not self._says_goodbye:
            self._closed.set()

    def _hold_connection(self) -> bool:
        """Connect, and send until the connection is lost. Return whether there was one."""
        try:
            if not self._connect():
                return False
            self._work()
            return True
        finally:
            self._hang_up()

    def _connect(self) -> bool:
        """Return whether the broker accepted us.

        MQTT 5 comes first in each connection: a broker that knew no other version may have been replaced meanwhile.
        """
        client = self._client = self._make_client(self.protocol.begin())
        self._connack = None
        try:
            client.connect(self._broker.host, self._broker.port, KEEPALIVE)
        except (OSError, ValueError) as error:
            self._log_trouble(trouble.unreachable(error, self._broker))
            return False
        client.loop_start()
        self._handle_until(
            time.monotonic() + CONNECT_TIMEOUT,
            lambda: bool(self._connack or not self._client or self._closing.is_set()),
        )
        if self._connack is None:
            if self._client is not None:
                self._log_trouble(Trouble("does not answer", trouble.MUTE))
                self.protocol.unanswered()
            return False
        if self._connack.value == trouble.UNSUPPORTED_VERSION and self.protocol.current == MQTT_5:
            self.protocol.refused()
            return False
        if self._connack.is_failure:
            self._log_trouble(trouble.refused(self._connack, self._broker))
            return False
        if self._client is None or not self.protocol.accepted():
            return False
        # Without trouble before, it is no news: every command connects.
        logger.log(logging.INFO if self._troubles else logging.DEBUG, "Connected to the broker %s", self._broker)
        self._troubles.clear()
        self._tell_protocol()
        self.is_connected = True
        self.disconnected_since = None
        metrics.CONNECTION_STATE.set(1)
        return True

    def _tell_protocol(self) -> None:
        """Say once that the broker knows no MQTT 5, and again if it knew it meanwhile."""
        limits = f"{self._broker} knows no MQTT 5"
        if self.protocol.current == MQTT_5:
            is_over(limits)
        elif is_news(limits):
            sentence = "The broker %s: MQTT 3.1.1 is spoken. %s"
            logger.warning(sentence, limits, trouble.OLD_PROTOCOL, extra=AT_LENGTH)

    def _make_client(self, protocol: MQTTProtocolVersion) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            make_client_id(),
            protocol=protocol,
            reconnect_on_failure=False,
        )
        if self._tls_context:
            client.tls_set_context(self._tls_context)
        client.username_pw_set(self._broker.username or None, self._broker.password or None)
        client.connect_timeout = CONNECT_TIMEOUT
        client.max_inflight_messages_set(MAX_IN_FLIGHT)
        client.max_queued_messages_set(MAX_QUEUED)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _work(self) -> None:
        """Send until the connection is lost."""
        self._renew_at = time.monotonic() + RENEW_SECONDS
        while self._client is not None and not self._closing.is_set():
            self._resume_topics()
            until = min(self._send_some(), self._renew_at)
            self._set_room()
            self._handle(until)
            now = time.monotonic()
            if self._in_flight and now - next(iter(self._in_flight.values())).sent_at > ACKNOWLEDGE_TIMEOUT:
                self._log_trouble(Trouble("does not acknowledge", trouble.UNACKNOWLEDGED))
                return
            if now >= self._renew_at:
                self._renew_at = now + RENEW_SECONDS
                with self.changed:
                    held = list(self._held.values())
                for message in held:
                    self._report(message, Verdict.HELD)

    def _handle_until(self, deadline: float, is_over: Callable[[], bool]) -> None:
        while not is_over() and time.monotonic() < deadline:
            self._handle(deadline)

    def _handle(self, deadline: float) -> None:
        """Wait for a call until the deadline, then make all that have come."""
        try:
            call = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            while True:
                call()
                call = self._inbox.get_nowait()
        except queue.Empty:
            pass
        with self.changed:
            self.changed.notify_all()

    def _hang_up(self) -> None:
        """End the connection, if there is one, and give back everything. paho's thread ends by itself."""
        if self.is_connected:
            self.disconnected_since = timezone.now()
        self.is_connected = False
        self.room = 0
        client, self._client = self._client, None
        in_flight, waiting = [*self._in_flight.values()], [*self._urgent.values(), *self._bulk.values()]
        self._in_flight.clear()
        self._urgent.clear()
        self._bulk.clear()
        for sent in in_flight:
            metrics.count_unacknowledged(sent.message.topic)
            self._report(sent.message, Verdict.LOST, LOST)
        for message in waiting:
            self._report(message, Verdict.RETURNED)
        with self.changed:
            self._held.clear()  # what an error left without an outcome: others may announce it soon
        metrics.CONNECTION_STATE.set(0)
        if client is not None:
            self._says_goodbye = client.disconnect() == MQTTErrorCode.MQTT_ERR_SUCCESS

    # --- Sending -------------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        if not self.can_send(message.topic):
            metrics.count_failure(message.topic)
            self._report(message, Verdict.RETURNED, self.suspensions.get(message.topic, ""))
            return
        for waiting in [self._urgent, self._bulk]:
            if earlier := waiting.pop(message.file, None):
                self._report(earlier, Verdict.RETURNED)
        waiting = self._bulk if message.is_bulk else self._urgent
        waiting[message.file] = message
        if len(waiting) > self._waiting_limit:
            # The newest is the one that a person waits for.
            _, oldest = waiting.popitem(last=False)
            self._report(oldest, Verdict.RETURNED)

    def _send_some(self) -> float:
        """Send as much as may go now; return when to look again."""
        while True:
            waiting = self._urgent or self._bulk
            now = time.monotonic()
            if not waiting:
                return now + RENEW_SECONDS
            if not self._fits(next(iter(waiting.values())), now):
                return now + ISOLATION_SECONDS
            if wait := self._pace.wait(now):
                return now + wait
            _, message = waiting.popitem(last=False)
            self._pace.spend(now)
            self._send(message)

    def _fits(self, message: Message, now: float) -> bool:
        recent = [sent for sent in self._in_flight.values() if now - sent.sent_at < ISOLATION_SECONDS]
        limit = min([self._limit_with(message), *(sent.limit for sent in recent)])
        return len(recent) < limit and len(self._in_flight) < self._max_in_flight

    def _limit_with(self, message: Message) -> int:
        """How many may be in flight with it: the more it failed, the fewer, so that it takes few of them along."""
        if message.topic in self._refusals:
            return 1
        return max(1, MAX_IN_FLIGHT >> 2 * message.tries)

    def _send(self, message: Message) -> None:
        client = self._client
        if client is None:  # lost since the last one
            self._report(message, Verdict.RETURNED)
            return
        if self._max_packet_bytes is not None and packet_bytes(message) > self._max_packet_bytes:
            # Sent all the same, it would end the connection, for this one and for all others.
            self._fail(message, f"Packet too large: the broker takes {self._max_packet_bytes} bytes.")
            return
        try:
            with metrics.DURATION.labels(message.topic).time():
                info = client.publish(message.topic, message.payload, qos=1, retain=False)
        except Exception as error:  # whatever it is: the others must go out
            logger.exception("Could not announce %s on %s", message.filename, message.topic)
            self._fail(message, f"It could not be sent: {error!r}")
            return
        if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            self._fail(message, "Too many messages wait for the broker.")
            return
        self._in_flight[info.mid] = _InFlight(message, time.monotonic(), self._limit_with(message))

    def _set_room(self) -> None:
        waiting = len(self._urgent) + len(self._bulk)
        had_room = self.room
        self.room = max(0, self._waiting_limit - waiting)
        if self.room > self._waiting_limit // 2 >= had_room:
            self.outcomes.wake()

    def _report(self, message: Message, verdict: Verdict, reason: str = "") -> None:
        self.outcomes.put(Outcome(message, verdict, reason))
        if verdict is not Verdict.HELD:
            with self.changed:
                self._held.pop(message.revision, None)
                self.changed.notify_all()

    # --- What the broker says ------------------------------------------------------------------------------------

    def _acknowledged(self, client: Client, mid: int, reason_code: ReasonCode) -> None:
        sent = self._in_flight.pop(mid, None) if client is self._client else None
        if sent is None:
            return
        message = sent.message
        metrics.count_acknowledgement(message.topic, reason_code)
        if reason_code.is_failure:
            self._fail(message, str(reason_code))
            self._count_refusal(message, str(reason_code))
            return
        metrics.count_success(message.topic)
        if self._refusals.pop(message.topic, None):
            self._resume(message.topic)
        self._report(message, Verdict.ACKNOWLEDGED)

    def _fail(self, message: Message, reason: str) -> None:
        metrics.count_failure(message.topic)
        self._report(message, Verdict.REFUSED, reason)

    def _count_refusal(self, message: Message, reason: str) -> None:
        topic = message.topic
        if topic in self.suspensions:  # sent before it was
            return
        before = self._refusals.get(topic, _Refusals())
        if before.reason != reason:
            sentence = "The broker %s refuses announcements on %s: %s"
            logger.warning(sentence, self._broker, topic, reason, extra=AT_LENGTH)
        # A file that is refused alone, again and again, does not hold up the others of its topic.
        files = before.files | {message.filename}
        if not before.suspensions and len(files) < REFUSALS_OF_TOPIC:
            self._refusals[topic] = _Refusals(files, reason=reason)
            return
        count = before.suspensions + 1
        until = time.monotonic() + min(LONGEST_SUSPENSION, pause(count).total_seconds())
        self._refusals[topic] = _Refusals(suspensions=count, reason=reason, until=until)
        self._suspend(topic, reason)

    def _suspend(self, topic: str, reason: str) -> None:
        self.suspensions = {**self.suspensions, topic: reason}
        for waiting in [self._urgent, self._bulk]:
            for file in [file for file in waiting if file[0] == topic]:
                self._report(waiting.pop(file), Verdict.RETURNED, reason)

    def _resume_topics(self) -> None:
        now = time.monotonic()
        for topic in list(self.suspensions):
            if now >= self._refusals[topic].until:
                self._resume(topic)

    def _resume(self, topic: str) -> None:
        self.suspensions = {name: reason for name, reason in self.suspensions.items() if name != topic}
        self.outcomes.wake()

    def _lost(self, client: Client, reason_code: ReasonCode) -> None:
        if client is not self._client:
            return
        if self._connack is None and self.protocol.current == MQTT_3 and self.protocol.was_refused:
            # It refused this version as well, which paho does not tell.
            self._log_trouble(trouble.knows_neither())
        elif self._connack is None:
            self._log_trouble(trouble.ended_unanswered(self._broker))
            self.protocol.unanswered()
        elif not self._connack.is_failure:  # of that, more is said elsewhere
            self._log_trouble(Trouble(f"lost the connection: {reason_code}", trouble.LOST))
        self._hang_up()

    def _accepted(self, client: Client, reason_code: ReasonCode, properties: Properties | None) -> None:
        if client is not self._client:
            return
        self._connack = reason_code
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        # paho does not heed it, and the broker ends the connection: MQTT 5, section 4.9.
        self._max_in_flight = min(MAX_IN_FLIGHT, getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT))

    # --- paho's threads: these only leave a call -----------------------------------------------------------------

    def _on_connect(
        self, client: Client, userdata: Any, flags: ConnectFlags, reason_code: ReasonCode, properties: Properties | None
    ) -> None:
        self._inbox.put(partial(self._accepted, client, reason_code, properties))

    def _on_disconnect(
        self,
        client: Client,
        userdata: Any,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self._closing.is_set():
            self._closed.set()
        self._inbox.put(partial(self._lost, client, reason_code))

    def _on_publish(
        self, client: Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        self._inbox.put(partial(self._acknowledged, client, mid, reason_code))

    def _log_trouble(self, found: Trouble) -> None:
        """Log each kind of trouble once, until there is a connection again: retries go on for days."""
        self.trouble = found
        if found.reason not in self._troubles and not self._closing.is_set():
            self._troubles.add(found.reason)
            sentence = "The broker %s %s. %s"
            logger.warning(sentence, self._broker, found.reason.rstrip("."), found.advice, extra=AT_LENGTH)


def make_client_id() -> str:
    """One of its own for each connection: two clients of one name would throw each other out for ever."""
    return f"iotsupport-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def packet_bytes(message: Message) -> int:
    """Size of its PUBLISH packet: MQTT 5, section 3.3. Names of files are too short for a third byte of length."""
    rest = 2 + len(message.topic.encode()) + 2 + 1 + len(message.payload)
    return 1 + (1 if rest < 128 else 2) + rest
