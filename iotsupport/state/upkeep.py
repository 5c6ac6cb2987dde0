"""Clock, backup and housekeeping: what nobody misses until it is too late."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from iotsupport import housekeeping
from iotsupport.backup.models import last_backup
from iotsupport.models import Throttle
from iotsupport.state import clock
from iotsupport.state.findings import Finding, Level
from iotsupport.times import how_long, tell

OLD_BACKUP = timedelta(days=8)


def look() -> Iterator[Finding]:
    yield from clock.look()
    yield _backup()
    yield _housekeeping()


def _backup() -> Finding:
    last = last_backup()
    advice = "Run 'manage.py backup FILE', best by a timer, and keep the file on another machine."
    if last is None:
        return Finding("Backup", Level.LOOK, "None was made here.", advice)
    says = f"made {tell(last.at)}, {filesizeformat(last.size)}"
    if timezone.now() - last.at > OLD_BACKUP:
        return Finding("Backup", Level.LOOK, says, advice)
    return Finding("Backup", Level.FINE, says)


def _housekeeping() -> Finding:
    name = "Housekeeping"
    due_at = Throttle.objects.filter(name=housekeeping.NAME).values_list("next_at", flat=True).first()
    now = timezone.now()
    if due_at is None:
        return Finding(name, Level.FACT, "not done yet; a server does it within minutes of its start")
    if due_at < now - timedelta(hours=1):
        says = f"It has been due for {how_long(now - due_at)}, and no server did it."
        return Finding(name, Level.LOOK, says, "Run 'manage.py housekeeping': it says what it cannot remove.")
    done_at = housekeeping.last_run()
    if done_at is None or due_at - now <= timedelta(seconds=housekeeping.LOOK_SECONDS):
        return Finding(name, Level.FINE, "goes on within minutes: something was left, or could not be removed yet")
    return Finding(name, Level.FINE, f"done {tell(done_at)}")
