"""What strangers may ask for as often as they like, and what is looked up once a second for all of them."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from iotsupport import metrics_directory
from iotsupport.signals import serving

FRESH_SECONDS = 1.0
# Who asks meanwhile waits so long, and is answered within three seconds.
PATIENCE_SECONDS = 2.0
POLL_SECONDS = 0.01

# The time at which somebody looked, ahead of what was seen.
LOOKED_AT = struct.Struct("d")

_is_serving = threading.Event()


class Seen(NamedTuple):
    looked_at: float
    """Seconds of the machine's monotonic clock, which all processes share."""
    text: bytes

    @property
    def is_fresh(self) -> bool:
        return 0 <= time.monotonic() - self.looked_at < FRESH_SECONDS


class Glance:
    """Something that all processes of a server look at together, at most once a second.

    They share what was seen in a file beside their metrics; without a place for it, each of them looks for itself. A
    process that does not serve looks whenever it is asked.
    """

    def __init__(self, name: str, look: Callable[[], bytes]) -> None:
        self._name, self._look = name, look
        self._seen: Seen | None = None
        self._lock = threading.Lock()

    def get(self) -> bytes:
        """Return what is seen. Raises ``TimeoutError`` while a look that somebody else has begun does not end."""
        if not _is_serving.is_set():
            return self._look()
        seen = self._seen
        if seen is None or not seen.is_fresh:
            seen = self._look_together(time.monotonic() + PATIENCE_SECONDS)
        return seen.text

    def _look_together(self, deadline: float) -> Seen:
        if not self._lock.acquire(timeout=PATIENCE_SECONDS):
            raise TimeoutError(f"The look at {self._name} does not end.")
        try:
            if self._seen is None or not self._seen.is_fresh:
                with self._shared_file(deadline) as file:
                    self._seen = self._read(file) or self._look_now(file)
            return self._seen
        finally:
            self._lock.release()

    @contextmanager
    def _shared_file(self, deadline: float) -> Iterator[int | None]:
        """Yield the file, locked; None where there is no place for it."""
        directory = metrics_directory.current()
        try:
            file = os.open(f"{directory}/{self._name}.page", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield None
            return
        try:
            while not _try_lock(file):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"Another process's look at {self._name} does not end.")
                time.sleep(POLL_SECONDS)
            yield file
        finally:
            os.close(file)

    def _read(self, file: int | None) -> Seen | None:
        """Return what another process has seen a moment ago."""
        if file is None:
            return None
        content = os.pread(file, os.fstat(file).st_size, 0)
        if len(content) < LOOKED_AT.size:
            return None
        (looked_at,) = LOOKED_AT.unpack_from(content)
        seen = Seen(looked_at, content[LOOKED_AT.size :])
        return seen if seen.is_fresh else None

    def _look_now(self, file: int | None) -> Seen:
        seen = Seen(time.monotonic(), self._look())
        if file is not None:
            content = LOOKED_AT.pack(seen.looked_at) + seen.text
            with suppress(OSError):  # No room: the others look for themselves.
                os.ftruncate(file, 0)
                if os.pwrite(file, content, 0) < len(content):
                    os.ftruncate(file, 0)
        return seen


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _serve(**kwargs: Any) -> None:
    _is_serving.set()


serving.connect(_serve, dispatch_uid="iotsupport.glance")
