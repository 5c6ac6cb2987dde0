"""The publisher: announces saved files to the devices, over one connection of each process."""

from __future__ import annotations

import atexit
import logging
import os

from notifications import metrics
from notifications.announcements import Announcement
from notifications.broker import Broker
from notifications.connection import Connection

logger = logging.getLogger(__name__)

# How long stopping may wait for the broker's acknowledgements.
STOP_SECONDS = 2.0


class Publisher:
    """Off until it is started, and without a broker in the settings. Nothing it does raises or waits, but ``stop``."""

    _connection: Connection | None = None
    _connection_of_parent: Connection | None = None

    def start(self) -> None:
        """Connect in the background, once. Settings that cannot be right are one logged error, and off."""
        if self._connection is not None:
            return
        try:
            broker = Broker.from_settings()
            self._connection = Connection(broker) if broker else None
        except ValueError as error:
            logger.error("Nothing will be announced: %s", error)
        metrics.ENABLED.set(self._connection is not None)

    def publish(self, topic: str, filename: str) -> None:
        """Announce that a file can be downloaded; does nothing while off."""
        connection = self._connection
        if connection is not None:
            connection.publish(Announcement(topic, filename))

    def state(self) -> str:
        """``off``, ``connected`` or ``disconnected``."""
        connection = self._connection
        if connection is None:
            return "off"
        return "connected" if connection.is_connected else "disconnected"

    def stop(self) -> None:
        """Let the broker acknowledge what is in flight, then disconnect. Idempotent.

        Returns within about :data:`STOP_SECONDS`, whatever the broker does, and at once when nothing is in flight.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(STOP_SECONDS)
            metrics.ENABLED.set(0)

    def start_in_child(self) -> None:
        """After ``fork()``: threads and connections stay with the parent, so a running publisher starts anew."""
        if self._connection is not None:
            # Kept, but never touched: its locks may be held by threads that do not exist here.
            self._connection_of_parent, self._connection = self._connection, None
            self.start()


publisher = Publisher()
atexit.register(publisher.stop)
os.register_at_fork(after_in_child=publisher.start_in_child)
