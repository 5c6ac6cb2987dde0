"""Takes what downloads tell of boards, and has a thread write it: no download waits, and no memory grows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import connection

from iotsupport.boards.checkins import CheckIn
from iotsupport.boards.metrics import count_check_ins
from iotsupport.boards.pending import Batch, Pending, Said
from iotsupport.boards.writing import write
from iotsupport.errors import DATABASE_ERRORS, is_outage
from iotsupport.monitoring.news import is_news, is_over
from iotsupport.signals import serving

logger = logging.getLogger(__name__)

# Between two batches of a process.
PAUSE_SECONDS = 1.0

# How long a process that ends waits for its last one.
STOP_SECONDS = 2.0

TROUBLE = "check-ins"


class CheckInCollector:
    """Collects check-ins while this process serves; in any other, they are let go."""

    def __init__(self, write: Callable[[Batch, float], None], now: Callable[[], float] = time.time) -> None:
        self._write = write
        self._now = now
        self._pending = Pending()
        self._thread: threading.Thread | None = None
        self._is_awake = False
        self._waking = threading.Condition()
        self._flushing = threading.Lock()
        self.is_serving = False
        serving.connect(self._serve)

    def note(self, check_in: CheckIn) -> None:
        """Take a check-in: some microseconds, from any thread. Never waits, never raises."""
        said = Said.of(check_in)
        is_download = check_in.is_download
        if check_in.is_asking or not self.repeats(check_in.way, said, check_in.at, is_download=is_download):
            self.take(check_in, said)

    def repeats(self, way: str, said: Said, at: float, *, is_download: bool) -> bool:
        """As :meth:`note`, for who can tell without a check-in that a board says nothing new; else False."""
        is_known = not self.is_serving or self._pending.repeats(way, said, at, is_download=is_download)
        if is_known:
            self._wake()
        return is_known

    def repeats_at_once(self, key: tuple[str, str], said: int, at: float, *, is_download: bool) -> bool:
        """As :meth:`repeats`, for the main thread of a worker alone."""
        is_known = self._pending.repeats_at_once(key, said, at, is_download=is_download)
        if is_known and not self._is_awake:
            self._wake()
        return is_known

    def take(self, check_in: CheckIn, said: Said) -> None:
        if self.is_serving:
            self._pending.take(check_in, said)
            self._wake()

    def drop(self) -> None:
        """Count something that was to be a check-in, and cannot be read."""
        if self.is_serving:
            self._pending.drop(1)
            self._wake()

    def flush(self) -> None:
        """Count and write what there is. What the database does not take now is kept, as far as there is room."""
        with self._flushing:
            batch = self._pending.take_batch(self._now())
            if batch:
                try:
                    self._write(batch, self._now())
                    self._pending.forget(batch)
                    is_over(TROUBLE)
                except Exception as error:
                    self._bear(error, batch)
            count_check_ins(*self._pending.take_counts())

    def stop(self) -> None:
        """Write what there is, for some seconds at most: a server that starts anew would show boards as behind."""
        if self.is_serving and not self._pending.is_empty():
            last = threading.Thread(target=self._flush_alone, name="check-ins", daemon=True)
            last.start()
            last.join(STOP_SECONDS)

    def _bear(self, error: Exception, batch: Batch) -> None:
        if isinstance(error, DATABASE_ERRORS) and is_outage(error):
            self._pending.give_back(batch)
            if is_news(TROUBLE):
                logger.warning("What boards did cannot be noted now; it is tried again each second: %s", error)
            return
        self._pending.forget(batch)
        self._pending.drop(len(batch.reports))
        logger.exception("What %d boards did cannot be noted", len(batch.reports))

    # --- The thread ---

    def _serve(self, **kwargs: Any) -> None:
        self.is_serving = True

    def _wake(self) -> None:
        if self._is_awake:
            return
        with self._waking:
            self._is_awake = self.is_serving
            if not self._is_awake:
                return
            # Made where it is needed: it would not survive a fork.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="check-ins", daemon=True)
                self._thread.start()
            self._waking.notify()

    def _run(self) -> None:
        while True:
            with self._waking:
                # First: what is noted after the look finds it asleep, and wakes it.
                self._is_awake = False
                self._is_awake = not self._pending.is_empty()
                self._waking.wait_for(lambda: self._is_awake)
            self._flush_alone()
            time.sleep(PAUSE_SECONDS)

    def _flush_alone(self) -> None:
        """In a thread, which has a connection of its own."""
        try:
            self.flush()
        except Exception:
            logger.exception("What boards did could not be noted")
        finally:
            connection.close()


collector = CheckInCollector(write)
