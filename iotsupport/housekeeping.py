"""Rows that nobody needs any more are removed once a day, by one process of all nodes, a little at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from axes.models import AccessAttempt, AccessLog
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from iotsupport.accounts.signin import LOCKED_FOR
from iotsupport.boards.models import GONE_FOR, Board, HourlyCount, State
from iotsupport.database.sqlite import patience
from iotsupport.errors import DATABASE_ERRORS
from iotsupport.models import KNOWN_FOR, KnownNetwork, Throttle
from iotsupport.threads import Background

logger = logging.getLogger(__name__)

NAME, EVERY = "remove what is over", timedelta(days=1)
# How often a process sees whether it is due; what is left or failed is gone on with after that time.
LOOK_SECONDS = 600.0
FIRST_LOOK_SECONDS = 2.0

# Rows removed at once, then others have their turn; and in one go.
CHUNK_ROWS = 200
PAUSE_SECONDS = 0.05
MOST_ROWS = 100_000
PATIENCE_SECONDS = 1.0


def over() -> Iterator[QuerySet[Any]]:
    """Yield the rows that nobody needs any more: ended sessions, failed sign-ins that count no more, and the like."""
    now = timezone.now()
    yield Session.objects.filter(expire_date__lt=now)
    yield AccessAttempt.objects.filter(attempt_time__lt=now - LOCKED_FOR)
    yield KnownNetwork.objects.filter(used_at__lt=now - KNOWN_FOR)
    yield HourlyCount.objects.filter(hour__lt=now - HourlyCount.KEPT_FOR)
    yield Board.objects.filter(state=State.GONE, last_seen__lt=now - GONE_FOR)
    yield AccessLog.objects.all()  # of earlier versions


def tidy(pause: Callable[[float], Any] = lambda seconds: None) -> int | None:
    """Remove what is over, if it is due and no other process does it; return how many rows, or else None."""
    with patience(connection, PATIENCE_SECONDS):
        if not Throttle.objects.take(NAME, EVERY):
            return None
        removed = 0
        try:
            for rows in over():
                while removed < MOST_ROWS and (count := _remove_some(rows)):
                    removed += count
                    pause(PAUSE_SECONDS)
            if removed >= MOST_ROWS:
                Throttle.objects.give_back(NAME, timedelta(seconds=LOOK_SECONDS))
        except DATABASE_ERRORS:
            _try_again_later()
            raise
    return removed


def _remove_some(rows: QuerySet[Any]) -> int:
    pks = list(rows.order_by("pk").values_list("pk", flat=True)[:CHUNK_ROWS])
    if pks:
        # Nothing refers to them. One that was renewed meanwhile stays.
        rows.filter(pk__in=pks)._raw_delete(rows.db)
    return len(pks)


def _try_again_later() -> None:
    try:
        Throttle.objects.give_back(NAME, timedelta(seconds=LOOK_SECONDS))
    except DATABASE_ERRORS as error:
        logger.debug("What is over is removed tomorrow: %s", error)


class Housekeeper(Background):
    """The thread that calls :func:`tidy` every ten minutes."""

    def __init__(self) -> None:
        super().__init__("housekeeper")

    def _run(self) -> None:
        seconds = FIRST_LOOK_SECONDS
        while not self._is_stopping.wait(seconds):
            seconds = LOOK_SECONDS
            try:
                removed = tidy(self._is_stopping.wait)
                if removed:
                    logger.info("Removed what was over, such as ended sessions: %d rows", removed)
            except DATABASE_ERRORS as error:
                logger.warning("Could not remove ended sessions; it is tried again: %s", error)
            except Exception:
                logger.exception("Could not remove ended sessions; it is tried again")
            finally:
                connection.close()
