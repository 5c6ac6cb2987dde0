"""Health and metrics are looked up once a second for all who ask: strangers may ask as often as they like."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

from django.db import connections

from iotsupport.monitoring import shared_files
from iotsupport.signals import serving

T = TypeVar("T")

FRESH_SECONDS = 1.0
# Nobody waits longer for a look, counted from its beginning: everybody is answered within three seconds.
PATIENCE_SECONDS = 1.5
# So many threads of a process wait for one, a quarter of what settings.WORKER_THREADS gives to everything.
MOST_WAITING = 8
# Who finds no place among them takes what was seen last, if it is no older.
RECENT_SECONDS = FRESH_SECONDS + PATIENCE_SECONDS

# The time at which somebody looked, ahead of what was seen.
LOOKED_AT = struct.Struct("d")

_is_serving = threading.Event()


class Seen(NamedTuple):
    looked_at: float
    """Seconds of the machine's monotonic clock, which all processes share."""
    text: bytes

    @property
    def is_fresh(self) -> bool:
        return self.is_younger_than(FRESH_SECONDS)

    def is_younger_than(self, seconds: float) -> bool:
        return 0 <= time.monotonic() - self.looked_at < seconds


class BusyError(TimeoutError):
    """So many wait for a look already that nobody else may."""


class UnderWay(NamedTuple):
    """A look that has not ended."""

    result: Future[Seen]
    deadline: float


class Glance:
    """Something that all processes of a server look at together, at most once a second.

    They share what was seen in a file beside their metrics; without a place for it, each of them looks for itself. A
    look has a thread of its own, so that those who ask can be answered while it does not end: what is looked at may
    hang. A process that does not serve looks whenever it is asked.
    """

    def __init__(self, name: str, look: Callable[[], bytes]) -> None:
        self._name, self._look = name, look
        self._seen: Seen | None = None
        self._under_way: UnderWay | None = None
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MOST_WAITING)

    def get(self) -> bytes:
        """Return what is seen.

        Raises ``TimeoutError`` while a look does not end; :class:`BusyError` where that is not known yet, but too many
        wait for it and nothing was seen a moment ago.
        """
        if not _is_serving.is_set():
            return self._look()
        with self._lock:
            seen = self._seen
            if seen is not None and seen.is_fresh:
                return seen.text
            under_way = self._under_way = self._under_way or self._start()
        seconds = under_way.deadline - time.monotonic()
        if seconds <= 0 or under_way.result.done():
            return under_way.result.result(0).text
        if not self._places.acquire(blocking=False):
            if seen is not None and seen.is_younger_than(RECENT_SECONDS):
                return seen.text
            raise BusyError(f"Too many wait for the look at {self._name}.")
        try:
            return under_way.result.result(seconds).text
        finally:
            self._places.release()

    def begin(self) -> None:
        """Have somebody look, where that is due: who gets several waits for the longest of them alone.

        Raises :class:`BusyError` where the system has no more threads.
        """
        with self._lock:
            is_fresh = self._seen is not None and self._seen.is_fresh
            if _is_serving.is_set() and not is_fresh:
                self._under_way = self._under_way or self._start()

    @property
    def fresh_until(self) -> float:
        """When a look is due, on the clock of ``time.monotonic``."""
        seen = self._seen
        return 0.0 if seen is None else seen.looked_at + FRESH_SECONDS

    def _start(self) -> UnderWay:
        under_way = UnderWay(Future(), time.monotonic() + PATIENCE_SECONDS)
        try:
            threading.Thread(target=self._run, args=[under_way], name=f"look-{self._name}", daemon=True).start()
        except RuntimeError as error:  # The system has no more threads.
            raise BusyError(f"The look at {self._name} cannot begin: {error}") from error
        return under_way

    def _run(self, under_way: UnderWay) -> None:
        seen, failure = None, None
        try:
            seen = self._look_together(under_way.deadline)
        except BaseException as error:
            failure = error
        with self._lock:
            self._under_way = None
            self._seen = seen or self._seen
        if seen is not None:
            under_way.result.set_result(seen)
        else:
            under_way.result.set_exception(failure)
        connections.close_all()  # this thread's

    def _look_together(self, deadline: float) -> Seen:
        with shared_files.locked_file(self._name, deadline) as file:
            return self._read(file) or self._look_now(file)

    def _read(self, file: int | None) -> Seen | None:
        """Return what another process has seen a moment ago."""
        content = shared_files.read(file)
        if len(content) < LOOKED_AT.size:
            return None
        (looked_at,) = LOOKED_AT.unpack_from(content)
        seen = Seen(looked_at, content[LOOKED_AT.size :])
        return seen if seen.is_fresh else None

    def _look_now(self, file: int | None) -> Seen:
        seen = Seen(time.monotonic(), self._look())
        # Where there is no room, the others look for themselves.
        shared_files.write(file, LOOKED_AT.pack(seen.looked_at) + seen.text)
        return seen


class Recent(Generic[T]):
    """What is quickly looked up, and that often: at most once a second in this process, while it serves.

    Whoever comes while somebody looks takes what was seen before.
    """

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._seen: tuple[float, T] | None = None
        self._looking = threading.Lock()

    def get(self) -> T:
        """Return what is seen. Raises what the look raises, to whom it is due."""
        if not _is_serving.is_set():
            return self._look()
        seen = self._seen
        if seen is not None and time.monotonic() - seen[0] < FRESH_SECONDS:
            return seen[1]
        if not self._looking.acquire(blocking=False):
            return seen[1] if seen is not None else self._look()
        try:
            looked_at, found = time.monotonic(), self._look()
            self._seen = looked_at, found
            return found
        finally:
            self._looking.release()


def _serve(**kwargs: Any) -> None:
    _is_serving.set()


serving.connect(_serve, dispatch_uid="iotsupport.monitoring.glance")
