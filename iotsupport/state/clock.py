"""The clock of this machine, as far as it can be seen to be wrong: it says when what was, and who is signed in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from django.db import connection
from django.utils import timezone

from iotsupport.database import is_shared
from iotsupport.mirror.rows import mirrored_models
from iotsupport.state.findings import Finding, Level
from iotsupport.times import how_long, show_whole

# Two clocks may be so far apart: nodes claim announcements for a few seconds.
APART = timedelta(seconds=2)
# What is written is of this moment; a row from later was written before the clock was set back.
LATER = timedelta(minutes=1)

SYNCHRONIZE = "Have this machine's clock follow a time server (NTP), and see that its time zone is right."


def installed_at() -> datetime:
    """When this program was put on this machine, or built into its image."""
    return datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)


def look() -> Iterator[Finding]:
    now = timezone.now()
    says = f"This machine says {show_whole(now)}."
    newest = _newest_row()
    if now < installed_at():
        says += f" This program was installed {show_whole(installed_at())}: the clock is wrong."
        yield Finding("Clock", Level.WRONG, says, SYNCHRONIZE)
    elif newest and newest - now > LATER:
        says += f" The last version was saved {show_whole(newest)}: then or now, the clock was wrong."
        yield Finding("Clock", Level.LOOK, says, SYNCHRONIZE)
    else:
        yield Finding("Clock", Level.FINE, says)
    if is_shared(connection):
        yield _clock_of_database()


def _newest_row() -> datetime | None:
    """When the version was saved that was written last: of each model, one row by its key."""
    dates = [
        cast(Any, model).history.order_by("-history_id").values_list("history_date", flat=True).first()
        for model in mirrored_models()
    ]
    return max((date for date in dates if date), default=None)


def _clock_of_database() -> Finding:
    before = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (there,) = cursor.fetchone()
    after = timezone.now()
    apart = max(there - after, before - there, timedelta())
    if apart <= APART:
        return Finding("Clock of PostgreSQL", Level.FINE, "agrees")
    says = f"It is {how_long(apart)} ({apart.total_seconds():.0f} s) {'ahead' if there > after else 'behind'}."
    return Finding("Clock of PostgreSQL", Level.LOOK, says, "Have both machines follow a time server (NTP).")
