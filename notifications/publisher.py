"""The publisher, one of each process: announces saved files to the devices, over one connection to the broker."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from datetime import datetime
from typing import NamedTuple

from django.conf import settings

from iotsupport.monitoring.logs import AT_LENGTH
from notifications import metrics
from notifications.broker import Broker
from notifications.messages import Message
from notifications.messenger import Messenger
from notifications.protocol import MQTT_5
from notifications.relay import Relay
from notifications.trouble import Trouble

logger = logging.getLogger(__name__)

# Spoken to a broker that knows no MQTT 5.
OLD_PROTOCOL = "3.1.1"

# How long stopping may wait for the broker's acknowledgements, and then for the database.
STOP_SECONDS = 2.0
NOTE_SECONDS = 1.0
# How long a fork may wait for a transaction of the relay's.
FORK_SECONDS = 5.0


class _Parts(NamedTuple):
    messenger: Messenger
    relay: Relay


class Publisher:
    """Announces what this process saves and, where it serves, what others left; off without a broker in the settings.

    Nothing it does raises or waits, but ``stop``.
    """

    _parts: _Parts | None = None
    _parts_of_parent: _Parts | None = None
    _is_serving = False
    _paused: threading.Lock | None = None

    def start(self) -> None:
        """Connect in the background, once. Settings that cannot be right are one logged error, and off."""
        if self._parts is not None:
            return
        try:
            if broker := Broker.from_settings():
                messenger = Messenger(broker, settings.MQTT_PUBLISH_RATE)
                self._parts = _Parts(messenger, Relay(messenger))
        except ValueError as error:
            logger.error("Nothing will be announced: %s", error, extra=AT_LENGTH)
        metrics.ENABLED.set(self._parts is not None)
        if self._parts is not None:
            self._parts.messenger.start()
            if self._is_serving:
                self.wake()

    def serve(self) -> None:
        """This process goes on until it is stopped: it announces what others left, too."""
        self._is_serving = True
        self.wake()

    @property
    def is_on(self) -> bool:
        return self._parts is not None

    @property
    def name(self) -> str:
        """The name under which this process claims announcements; empty while off."""
        return self._parts.relay.name if self._parts is not None else ""

    def can_send(self, topic: str) -> bool:
        """Whether what is saved now may go out at once."""
        return self._parts is not None and self._parts.messenger.can_send(topic)

    def suspension(self, topic: str) -> str:
        """Why nothing is sent on a topic now, where the broker said so; else empty."""
        return self._parts.messenger.suspensions.get(topic, "") if self._parts is not None else ""

    def hand_over(self, message: Message, *, is_claimed: bool) -> None:
        """Take the message of a file that can be downloaded now; does nothing while off.

        What this process claimed is sent at once. Anything else is when this process, or another one, gets to it.
        """
        parts = self._parts
        if parts is None:
            return
        if is_claimed:
            parts.relay.start()
            parts.messenger.send(message)
            return
        if not message.is_bulk:
            metrics.count_failure(message.topic)  # an attempt that could only be remembered
        parts.relay.wake()

    def wake(self) -> None:
        """Look for what is due now, not within the regular interval."""
        if self._parts is not None:
            self._parts.relay.wake()

    def state(self) -> str:
        """``off``, ``connected`` or ``disconnected``."""
        parts = self._parts
        if parts is None:
            return "off"
        return "connected" if parts.messenger.is_connected else "disconnected"

    def protocol(self) -> str:
        """The version of MQTT that the connection speaks, such as ``3.1.1``; empty while there is none."""
        parts = self._parts
        if parts is None or not parts.messenger.is_connected:
            return ""
        return "5" if parts.messenger.protocol.current == MQTT_5 else OLD_PROTOCOL

    def disconnection(self) -> tuple[datetime, Trouble] | None:
        """Since when there is no connection, and why as far as that is known; None while there is, or while off."""
        parts = self._parts
        since = parts.messenger.disconnected_since if parts is not None else None
        return (since, parts.messenger.trouble) if parts is not None and since is not None else None

    def stop(self) -> None:
        """Let the broker acknowledge what was handed over, then disconnect. Idempotent.

        Returns within about :data:`STOP_SECONDS` and :data:`NOTE_SECONDS`, whatever broker and database do, and at
        once when there is nothing to wait for. A command also waits for what it saved and could not send yet. What is
        left stays owed.
        """
        parts, self._parts = self._parts, None
        was_serving, self._is_serving = self._is_serving, False
        if parts is None:
            return
        messenger, relay = parts
        with messenger.changed:
            messenger.changed.wait_for(lambda: messenger.is_idle and (was_serving or relay.is_drained), STOP_SECONDS)
        messenger.close()
        relay.close(NOTE_SECONDS)
        metrics.ENABLED.set(0)

    def pause_for_fork(self) -> None:
        """Before ``fork()``: let the relay come out of the database, waiting at most :data:`FORK_SECONDS`.

        SQLite's own locks would stay locked in the child for ever, if a thread held one that does not exist there.
        """
        lock = self._parts.relay.at_work if self._parts is not None else None
        self._paused = lock if lock is not None and lock.acquire(timeout=FORK_SECONDS) else None

    def resume_after_fork(self) -> None:
        """After ``fork()``, in the parent."""
        lock, self._paused = self._paused, None
        if lock is not None:
            lock.release()

    def start_in_child(self) -> None:
        """After ``fork()``: threads and connections stay with the parent, so a running publisher starts anew."""
        if self._parts is not None:
            # Kept, but never touched: its locks may be held by threads that do not exist here.
            self._parts_of_parent, self._parts = self._parts, None
            self.start()


publisher = Publisher()
atexit.register(publisher.stop)
os.register_at_fork(
    before=publisher.pause_for_fork,
    after_in_parent=publisher.resume_after_fork,
    after_in_child=publisher.start_in_child,
)
