"""What became of messages, on its way from the messenger's thread to the relay's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from enum import Enum
from queue import Empty, SimpleQueue
from typing import NamedTuple

from notifications.messages import Message


class Verdict(Enum):
    """What became of a message that was handed over."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    LOST = "lost"
    """Sent, and the connection ended before it was acknowledged."""
    RETURNED = "returned"
    """Not sent."""
    HELD = "held"
    """Still on its way: the only one that another follows."""


class Outcome(NamedTuple):
    message: Message
    verdict: Verdict
    reason: str = ""


class Outcomes:
    """Outcomes for one reader, who may also be woken without any. Whoever puts one, or wakes, never waits."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Outcome] = SimpleQueue()
        self._has_come = threading.Event()
        self._is_woken = threading.Event()

    def put(self, outcome: Outcome) -> None:
        self._queue.put(outcome)
        self._has_come.set()

    def wake(self) -> None:
        """Let the reader go on at once: there is something to do beside the outcomes."""
        self._is_woken.set()
        self._has_come.set()

    def wait(self, seconds: float) -> bool:
        """Wait for an outcome, or to be woken. Return whether that happened within the time."""
        return self._has_come.wait(seconds)

    def wait_until_woken(self, seconds: float) -> bool:
        """Let outcomes come together, until the reader is woken. Return whether that happened within the time."""
        return self._is_woken.wait(seconds)

    def take(self) -> Iterator[Outcome]:
        """All that have come. Who wakes the reader from now on wakes it once more."""
        self._is_woken.clear()
        self._has_come.clear()
        while True:
            try:
                yield self._queue.get_nowait()
            except Empty:
                return
