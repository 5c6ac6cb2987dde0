"""Old versions are forgotten: those before ``HISTORY_DAYS``, but never the last ``HISTORY_KEEP`` of a name.

Of each name from the first on, in the order in which they were saved: a clock that was wrong for a while makes no gap.
The oldest one that stays says how many came before it, so that the numbers stay what they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, Max, Min, RowRange, Window
from django.utils import timezone

# Forgotten in one transaction, then others have their turn; and names looked at together.
CHUNK_ROWS = 200
PAGE_NAMES = 100


def forget(model: Any) -> Iterator[int]:
    """Forget what is over, a part after the other; yield after each transaction how many versions it had."""
    before = oldest_kept()
    if before is None:
        return
    for names in _pages(model, before):
        left = deque(names)
        while left:
            count = 0
            with transaction.atomic():
                while left and count < CHUNK_ROWS:
                    count += _forget_some(model, left[0], before, CHUNK_ROWS - count)
                    if count < CHUNK_ROWS:
                        left.popleft()
            yield count


def count(model: Any) -> int:
    """Return how many versions :func:`forget` would forget."""
    before = oldest_kept()
    if before is None:
        return 0
    # In one walk through an index: a query or two for each of 50,000 names took 40 seconds of the processor.
    name = F(model.name_field)
    later = Window(Count("*"), partition_by=name, order_by=F("history_id").desc(), frame=RowRange(end=0))
    newest = Window(Max("history_date"), partition_by=name, order_by="history_id", frame=RowRange(end=0))
    versions = model.history.order_by().annotate(from_here_on=later, newest_until_here=newest)
    return int(versions.filter(from_here_on__gt=settings.HISTORY_KEEP, newest_until_here__lt=before).count())


def oldest_kept() -> datetime | None:
    """Whatever was saved before that may be forgotten; None where all is kept."""
    return timezone.now() - timedelta(days=settings.HISTORY_DAYS) if settings.HISTORY_DAYS else None


def _pages(model: Any, before: datetime) -> Iterator[list[str]]:
    """Yield the names that may have versions to be forgotten: an index says so without the versions."""
    last = ""
    while True:
        later = model.history.order_by().filter(**{f"{model.name_field}__gt": last})
        grouped = later.values_list(model.name_field).annotate(count=Count("history_id"), oldest=Min("history_date"))
        found = grouped.filter(count__gt=settings.HISTORY_KEEP, oldest__lt=before).order_by(model.name_field)
        names = [name for name, *_ in found[:PAGE_NAMES]]
        if not names:
            return
        yield names
        last = names[-1]


def _over(model: Any, name: str, before: datetime, most: int | None = None) -> list[int]:
    """Return the keys of a name's versions that may go, the oldest first."""
    versions = model.history.of(name).order_by("history_id")
    spare = max(0, versions.count() - settings.HISTORY_KEEP)
    dates = versions.values_list("history_id", "history_date")[: spare if most is None else min(spare, most)]
    return [key for key, _ in takewhile(lambda version: version[1] < before, dates)]


def _forget_some(model: Any, name: str, before: datetime, most: int) -> int:
    versions = model.history.of(name).order_by("history_id")
    # Whoever else forgets waits here, and then counts from what is left.
    first = versions.select_for_update().only("history_id", "history_forgotten").first()
    keys = _over(model, name, before, most)
    if first is None or not keys:
        return 0
    # Nothing refers to them.
    model.history.filter(history_id__in=keys)._raw_delete(versions.db)
    oldest = versions.values_list("history_id", flat=True).first()
    forgotten = (first.history_forgotten or 0) + len(keys)
    model.history.filter(history_id=oldest).update(history_forgotten=forgotten)
    return len(keys)
