"""The thread that looks at all configurations of a type whose schema is changed: one process of all nodes does it."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import Any

from django.db import connection

from devices.types import marking
from devices.types.models import marks_wanted
from iotsupport.database.sqlite import patience
from iotsupport.errors import DATABASE_ERRORS
from iotsupport.models import Throttle
from iotsupport.threads import Background

logger = logging.getLogger(__name__)

NAME = "judge configurations by their types"
# Who does it says so again in time. Of one that died, another takes over when this is over.
LEASE = timedelta(seconds=20)
# How often a process looks by itself: what a command wanted, or a process that died left.
LOOK_SECONDS = 10.0
# Of somebody else who has it, or of a database that was away.
RETRY_SECONDS = 1.0
# After each step others have their turn.
PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 1.0


class Judge(Background):
    """Does what :func:`devices.types.marking.step` does while there is something to do."""

    def __init__(self) -> None:
        super().__init__("judge")
        self._is_wanted = threading.Event()

    def want(self, **kwargs: Any) -> None:
        """Look now whether there is something to do."""
        self._is_wanted.set()

    def _run(self) -> None:
        seconds = RETRY_SECONDS
        while not self._is_stopping.is_set():
            self._is_wanted.wait(seconds)
            self._is_wanted.clear()
            seconds = LOOK_SECONDS
            try:
                with patience(connection, PATIENCE_SECONDS):
                    if not self.work():
                        seconds = RETRY_SECONDS
            except DATABASE_ERRORS as error:
                logger.warning("Could not look which configurations fit their types; it is tried again: %s", error)
                seconds = RETRY_SECONDS
            except Exception:
                logger.exception("Could not look which configurations fit their types; it is tried again")
            finally:
                connection.close()

    def work(self) -> bool:
        """Do all that there is to do; return False where another process is at it."""
        if not marking.is_wanted():
            return True
        if not Throttle.objects.take(NAME, LEASE):
            return False
        taken = time.monotonic()
        try:
            while not self._is_stopping.is_set() and marking.step():
                self._is_stopping.wait(PAUSE_SECONDS)
                if time.monotonic() - taken > LEASE.total_seconds() / 2:
                    Throttle.objects.give_back(NAME, LEASE)
                    taken = time.monotonic()
        finally:
            Throttle.objects.give_back(NAME, timedelta())
        return True


def serve(**kwargs: Any) -> None:
    """Start the thread in a process that serves, and have it woken."""
    judge = Judge()
    marks_wanted.connect(judge.want, dispatch_uid="devices.judge", weak=False)
    judge.start()
