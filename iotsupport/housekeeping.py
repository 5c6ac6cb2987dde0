"""What nobody needs any more is removed once a day, by one process of all nodes, a little at a time.

``manage.py housekeeping`` does the same at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from axes.models import AccessAttempt, AccessLog
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from iotsupport.accounts.signin import LOCKED_FOR
from iotsupport.boards.models import GONE_FOR, Board, HourlyCount, State
from iotsupport.database.sqlite import patience
from iotsupport.editing import forgetting
from iotsupport.errors import DATABASE_ERRORS
from iotsupport.mirror.files import MirrorError, mirror_storage
from iotsupport.mirror.rows import mirrored_models
from iotsupport.models import KNOWN_FOR, KnownNetwork, Throttle
from iotsupport.threads import Background

logger = logging.getLogger(__name__)

NAME, EVERY = "remove what is over", timedelta(days=1)
# Taken when all of it was done: what is due by NAME may have failed.
DONE = "removed what was over"
# How often a process sees whether it is due; what is left or failed is gone on with after that time.
LOOK_SECONDS = 600.0
FIRST_LOOK_SECONDS = 2.0

# Rows removed at once, then others have their turn; and in one go.
CHUNK_ROWS = 200
PAUSE_SECONDS = 0.05
MOST_ROWS = 100_000
PATIENCE_SECONDS = 1.0


class Kind(NamedTuple):
    """Something that nobody needs any more after a while."""

    name: str
    """What it is called in a sentence, in the plural."""
    parts: Callable[[], Iterator[int]]
    """Removes it, a part after the other, and yields how many each had: others have their turn in between."""
    known: Callable[[], int] | None = None
    """Returns how many there are; None where that cannot be known before."""


# What the apps add: rows of theirs that are over now, by what they are called; and models, beside those that are
# mirrored, whose old versions are forgotten.
registered: list[Callable[[], dict[str, QuerySet[Any]]]] = []
versioned: list[Any] = []


def kinds() -> Iterator[Kind]:
    """Yield all that is removed, in this order: bytes of assets go when the versions that named them are gone."""
    now = timezone.now()
    rows: dict[str, QuerySet[Any]] = {
        "ended sessions": Session.objects.filter(expire_date__lt=now),
        "failed sign-ins": AccessAttempt.objects.filter(attempt_time__lt=now - LOCKED_FOR),
        "networks that nobody signs in from": KnownNetwork.objects.filter(used_at__lt=now - KNOWN_FOR),
        "hourly counts": HourlyCount.objects.filter(hour__lt=now - HourlyCount.KEPT_FOR),
        "boards without a configuration": Board.objects.filter(
            state__in=[State.GONE, State.WAITING], last_seen__lt=now - GONE_FOR
        ),
        "sign-ins noted by earlier versions": AccessLog.objects.all(),
    }
    before = forgetting.oldest_kept()
    if before is not None:
        rows["entries of the admin's log"] = LogEntry.objects.filter(action_time__lt=before)
    for find in registered:
        rows |= find()
    for name, over in rows.items():
        yield Kind(name, partial(_remove, over), over.count)
    for model in [*mirrored_models(), *versioned]:
        name = f"old versions of {model._meta.verbose_name_plural}"
        yield Kind(name, partial(forgetting.forget, model), partial(forgetting.count, model))
    yield Kind("unfinished files", _clear, _count_leftovers)
    yield Kind("bytes that no version needs", _collect)


def remove(pause: Callable[[float], Any], most: float = float("inf")) -> dict[str, int]:
    """Remove all that is over, or some more than ``most``; return how many of each kind, which may be 0.

    ``pause`` waits so long.
    """
    removed: dict[str, int] = {}
    for kind in kinds():
        removed[kind.name] = 0
        for count in kind.parts():
            if count:
                removed[kind.name] += count
                pause(PAUSE_SECONDS)
            if sum(removed.values()) >= most:
                return removed
    for name in [NAME, DONE]:
        Throttle.objects.note(name, EVERY)
    return removed


def last_run() -> datetime | None:
    """Return when all that was over had been removed; None where that never was."""
    row = Throttle.objects.filter(name=DONE).first()
    return None if row is None else row.next_at - EVERY


def tidy(pause: Callable[[float], Any] = lambda seconds: None) -> int | None:
    """Remove what is over, if it is due and no other process does it; return how many rows, or else None."""
    with patience(connection, PATIENCE_SECONDS):
        if not Throttle.objects.take(NAME, EVERY):
            return None
        try:
            removed = sum(remove(pause, MOST_ROWS).values())
            if removed >= MOST_ROWS:
                Throttle.objects.give_back(NAME, timedelta(seconds=LOOK_SECONDS))
        except (*DATABASE_ERRORS, MirrorError):
            _try_again_later()
            raise
    return removed


def _remove(rows: QuerySet[Any]) -> Iterator[int]:
    while count := _remove_some(rows):
        yield count


def _clear() -> Iterator[int]:
    yield _count_leftovers(remove=True)


def _count_leftovers(*, remove: bool = False) -> int:
    """Of processes that were killed: what a command leaves, nothing else looks for until the next start."""
    count = 0
    for model in mirrored_models():
        storage = mirror_storage(model.storage_alias)
        with storage.explained():
            count += len(storage.leftovers(remove=remove))
    return count


def _collect() -> Iterator[int]:
    for model in mirrored_models():
        yield len(model.collect_garbage())


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
            except (*DATABASE_ERRORS, MirrorError) as error:
                logger.warning("Could not remove ended sessions; it is tried again: %s", error)
            except Exception:
                logger.exception("Could not remove ended sessions; it is tried again")
            finally:
                connection.close()
