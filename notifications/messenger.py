"""Sends messages to the broker: in which order, how many at once, how fast; and says what became of each.

**What is promised.** Each message that is handed over gets one outcome at the end, whatever broker and network do:
acknowledged by the broker (PUBACK), refused by it, lost with the connection, or returned unsent. Until then it is said
every other second that it is held, so that its claim in the outbox can be renewed.

**Which threads.** One, ``messenger``: all that is here belongs to it, and so does its connection
(:mod:`notifications.connection`). Everybody else leaves calls in its inbox and never waits: requests that saved
something, the relay that claimed something, paho's thread with what the broker says.

**Which queues.** Two lines of messages that wait: what a person waits for goes ahead of what came in bulk. They are
short, a quarter of a second's worth: all else waits in the outbox, where any process may claim it. Of one file, only
the last version waits. And what is in flight, by MQTT's id of the message, the oldest first: at most a hundred, fewer
where the broker says so, and fewer still together with what failed before, so that it takes few others along.

**What it never does.** It does not publish while it is not connected, so that nothing queues in paho. It sends nothing
twice: whether something is tried again, and when, is for the outbox to say. It does not ask the database. It never
calls paho while it holds a lock of its own, for paho holds locks of its own while it calls back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from datetime import datetime
from functools import partial
from typing import NamedTuple

from paho.mqtt.reasoncodes import ReasonCode

from iotsupport.monitoring.logs import AT_LENGTH
from notifications import metrics, trouble
from notifications.broker import Broker
from notifications.connection import MAX_IN_FLIGHT, Connection, packet_bytes
from notifications.messages import TOPICS, Message
from notifications.outcomes import Outcome, Outcomes, Verdict
from notifications.pace import Pace, ReconnectPauses
from notifications.protocol import MQTT_3, ProtocolChoice
from notifications.refusals import Refusals
from notifications.trouble import Trouble

logger = logging.getLogger(__name__)

# All in seconds. What an outage left must be out within 5 s of the broker's return.
RECONNECT_DELAYS = (0.25, 1.0)  # the shortest and the longest pause
# A broker that does not acknowledge within this time is connected to anew: paho forgets what it holds, we do not.
ACKNOWLEDGE_TIMEOUT = 15.0
# How often the claims on what is held are renewed; several times within a lease.
RENEW_SECONDS = 2.0
# How long a DISCONNECT may take to be written.
DISCONNECT_SECONDS = 1.0
# What often failed is in flight with few others, or alone; but they wait for its acknowledgement no longer than this.
ISOLATION_SECONDS = 1.0

# At most so many wait here to be paced, and a quarter of a second's worth: what is urgent does not wait behind them.
MAX_WAITING = 100
WAITING_SECONDS = 0.25

LOST = "The connection to the broker ended before it acknowledged."


class _InFlight(NamedTuple):
    message: Message
    sent_at: float
    limit: int
    """How many may be in flight together with it, itself included."""


class Messenger:
    """Sends messages while it is connected, and connects again whenever it is not."""

    def __init__(self, broker: Broker, rate: int) -> None:
        """``rate`` is of messages a second. Raises ``ValueError`` with a sentence where the CA file cannot be used."""
        self._broker = broker
        self._connection = Connection(broker, self._acknowledged)
        self._pace = Pace(rate)
        self._waiting_limit = max(1, min(MAX_WAITING, int(rate * WAITING_SECONDS)))

        self.outcomes = Outcomes()
        """For the relay: each message gets one at the end. It is woken where there is room, or a connection at last."""
        self.changed = threading.Condition()
        """Notified when a message has got its outcome."""
        self.room = 0
        """How many messages may be handed over from the outbox."""

        self._urgent: OrderedDict[tuple[str, str], Message] = OrderedDict()
        self._bulk: OrderedDict[tuple[str, str], Message] = OrderedDict()
        self._in_flight: OrderedDict[int, _InFlight] = OrderedDict()
        self._refusals = Refusals()
        self._renew_at = 0.0
        self._held: dict[int, Message] = {}  # by revision, until the outcome; guarded by the lock of ``changed``
        self._thread = threading.Thread(target=self._run, name="messenger", daemon=True)

    # --- For other threads: none of these waits, but close() ------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def send(self, message: Message) -> None:
        """Hand over a message. Its outcome follows; of one that is held already, only one does."""
        with self.changed:
            if message.revision in self._held:
                return
            self._held[message.revision] = message
        self._connection.post(partial(self._take, message))

    def can_send(self, topic: str) -> bool:
        return self.is_connected and topic not in self.suspensions

    @property
    def open_topics(self) -> list[str]:
        return [topic for topic in TOPICS if topic not in self.suspensions]

    @property
    def suspensions(self) -> dict[str, str]:
        """Topics on which nothing is sent now, and why."""
        return self._refusals.suspended

    @property
    def is_idle(self) -> bool:
        """Whether everything that was handed over has its outcome."""
        return not self._held

    @property
    def is_connected(self) -> bool:
        return self._connection.is_connected

    @property
    def disconnected_since(self) -> datetime | None:
        return self._connection.disconnected_since

    @property
    def trouble(self) -> Trouble:
        """Why there was no connection, when that was last seen, and what to do about it."""
        return self._connection.trouble

    @property
    def protocol(self) -> ProtocolChoice:
        return self._connection.protocol

    def close(self) -> None:
        """Give back what is held, and disconnect, waiting for that no longer than :data:`DISCONNECT_SECONDS`.

        The thread may be stuck in a name lookup, so it is left behind: it is a daemon.
        """
        self._connection.close_soon()
        if self._thread.is_alive():
            self._thread.join(DISCONNECT_SECONDS)

    # --- The thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pauses, connection = ReconnectPauses(*RECONNECT_DELAYS), self._connection
        while not connection.closing.is_set():
            try:
                if self._hold_connection():
                    pauses.connected()
                elif connection.protocol.next == MQTT_3:
                    continue
                connection.handle_until(time.monotonic() + pauses.seconds, connection.closing.is_set)
            except Exception:
                # Whatever it was: without this thread, nothing would be announced until the next start.
                logger.exception("Announcing was interrupted; it goes on")
                connection.closing.wait(pauses.seconds)
            pauses.paused()
        connection.wait_for_goodbye(DISCONNECT_SECONDS)

    def _hold_connection(self) -> bool:
        """Connect, and send until the connection is lost. Return whether there was one."""
        try:
            if not self._connection.connect():
                return False
            self._work()
            return True
        finally:
            self._hang_up()

    def _work(self) -> None:
        """Send until the connection is lost."""
        self._renew_at = time.monotonic() + RENEW_SECONDS
        while self._connection.is_connected and not self._connection.closing.is_set():
            if self._refusals.resume_due(time.monotonic()):
                self.outcomes.wake()
            until = min(self._send_some(), self._renew_at)
            self._set_room()
            self._connection.handle(until)
            now = time.monotonic()
            if self._is_unanswered(now):
                self._connection.log_trouble(Trouble("does not acknowledge", trouble.UNACKNOWLEDGED))
                return
            if now >= self._renew_at:
                self._renew_at = now + RENEW_SECONDS
                with self.changed:
                    held = list(self._held.values())
                for message in held:
                    self._report(message, Verdict.HELD)

    def _is_unanswered(self, now: float) -> bool:
        if not self._in_flight or not self._connection.is_connected:
            return False
        return now - next(iter(self._in_flight.values())).sent_at > ACKNOWLEDGE_TIMEOUT

    def _hang_up(self) -> None:
        """End the connection, if there is one, and give back everything."""
        self.room = 0
        try:
            self._connection.hang_up()
        finally:
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
                self.changed.notify_all()

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
        return len(recent) < limit and len(self._in_flight) < self._connection.max_in_flight

    def _limit_with(self, message: Message) -> int:
        """How many may be in flight with it: the more it failed, the fewer, so that it takes few of them along."""
        if self._refusals.is_suspect(message.topic):
            return 1
        return max(1, MAX_IN_FLIGHT >> 2 * message.tries)

    def _send(self, message: Message) -> None:
        most_bytes = self._connection.max_packet_bytes
        if most_bytes is not None and packet_bytes(message) > most_bytes:
            # Sent all the same, it would end the connection, for this one and for all others.
            self._fail(message, f"Packet too large: the broker takes {most_bytes} bytes.")
            return
        try:
            with metrics.DURATION.labels(message.topic).time():
                mid = self._connection.publish(message)
        except Exception as error:  # whatever it is: the others must go out
            logger.exception("Could not announce %s on %s", message.filename, message.topic)
            self._fail(message, f"It could not be sent: {error!r}")
            return
        if mid is None:
            self._fail(message, "Too many messages wait for the broker.")
            return
        self._in_flight[mid] = _InFlight(message, time.monotonic(), self._limit_with(message))

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

    # --- What the broker answers ---------------------------------------------------------------------------------

    def _acknowledged(self, mid: int, reason_code: ReasonCode) -> None:
        sent = self._in_flight.pop(mid, None)
        if sent is None:
            return
        message = sent.message
        metrics.count_acknowledgement(message.topic, reason_code)
        if reason_code.is_failure:
            self._refused(message, str(reason_code))
            return
        metrics.count_success(message.topic)
        if self._refusals.accepted(message.topic):
            self.outcomes.wake()
        self._report(message, Verdict.ACKNOWLEDGED)

    def _refused(self, message: Message, reason: str) -> None:
        topic = message.topic
        self._fail(message, reason)
        if self._refusals.is_news(topic, reason):
            sentence = "The broker %s refuses announcements on %s: %s"
            logger.warning(sentence, self._broker, topic, reason, extra=AT_LENGTH)
        if self._refusals.refused(topic, message.filename, reason, time.monotonic()):
            for waiting in [self._urgent, self._bulk]:
                for file in [file for file in waiting if file[0] == topic]:
                    self._report(waiting.pop(file), Verdict.RETURNED, reason)

    def _fail(self, message: Message, reason: str) -> None:
        metrics.count_failure(message.topic)
        self._report(message, Verdict.REFUSED, reason)
