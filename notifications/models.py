"""What is still to be announced: written with the row it announces, struck off when the broker has acknowledged it."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.db import connections, models, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from notifications.announcements import Announcement

# How long a process keeps others from announcing what it is about to announce, unless it says so again.
LEASE = timedelta(seconds=6)

# Between two tries of an announcement that the broker refused: doubled each time.
SHORTEST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(minutes=5)

CHUNK_ROWS = 500

# One statement, whether the file was ever announced or not. Every save pays for it, and the query set's way to it would
# take five times as long.
OWE = """
    INSERT INTO notifications_debt
        (topic, filename, owed_since, revision, is_bulk, tries, last_error, claimed_by, claimed_until)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (topic, filename) DO UPDATE SET
        owed_since = COALESCE(notifications_debt.owed_since, excluded.owed_since),
        revision = excluded.revision,
        is_bulk = excluded.is_bulk,
        last_error = COALESCE(NULLIF(excluded.last_error, ''), notifications_debt.last_error),
        retry_at = NULL,
        claimed_by = excluded.claimed_by,
        claimed_until = excluded.claimed_until
"""


class DebtQuerySet(models.QuerySet["Debt"]):
    def owed(self) -> DebtQuerySet:
        return self.filter(owed_since__isnull=False)

    def due(self) -> DebtQuerySet:
        """Owed, not paused, and not claimed by a process that lives; the most urgent first."""
        now = timezone.now()
        # What lies further ahead than anybody writes it was written before the clock was set back.
        is_paused = Q(retry_at__gt=now, retry_at__lt=now + 2 * LONGEST_PAUSE)
        is_claimed = Q(claimed_until__gt=now, claimed_until__lt=now + 2 * LEASE)
        return self.owed().exclude(is_paused).exclude(is_claimed).order_by("is_bulk", "owed_since", "pk")

    def at_rest(self) -> DebtQuerySet:
        """Those that no other transaction is changing: so nobody is waited for. Call it in a transaction.

        What a save or a delete is changing has another revision afterwards, or is gone. If it is rolled back, what
        should have been noted is not, and the file is announced once more.
        """
        pks = self.select_for_update(skip_locked=True).values("pk")
        return DebtQuerySet(self.model, using=self.db).filter(pk__in=pks)

    def of(self, announcements: Iterable[Announcement]) -> Iterable[DebtQuerySet]:
        """The debts that are still as they were when these were made: a query set for each topic."""
        by_topic = defaultdict(list)
        for announcement in announcements:
            by_topic[announcement.topic].append(announcement)
        for topic, group in by_topic.items():
            filenames = [announcement.filename for announcement in group]
            # Revisions are random: none is another file's.
            revisions = [announcement.revision for announcement in group]
            yield self.filter(topic=topic, filename__in=filenames, revision__in=revisions).at_rest()


class DebtManager(models.Manager["Debt"]):
    def get_queryset(self) -> DebtQuerySet:
        return DebtQuerySet(self.model, using=self._db)

    def owed(self) -> DebtQuerySet:
        return self.get_queryset().owed()

    def owe(self, topic: str, filename: str, *, is_bulk: bool, claimed_by: str = "", trouble: str = "") -> Announcement:
        """Note that a file must be announced: call it in the transaction that saves the file.

        ``claimed_by`` names the process that will try at once; empty leaves it to whichever comes first. ``trouble``
        says why nobody can, where that is known.
        """
        now, revision, connection = timezone.now(), make_revision(), connections[self.db]
        owed_since, lease_end = map(connection.ops.adapt_datetimefield_value, [now, now + LEASE])
        claimed_until = lease_end if claimed_by else None
        values = [topic, filename, owed_since, revision, is_bulk, 0, trouble, claimed_by, claimed_until]
        with connection.cursor() as cursor:
            cursor.execute(OWE, values)
        return Announcement(topic, filename, revision, is_bulk)

    def owe_again(self, topic: str, filenames: Sequence[str]) -> None:
        """Note that files must be announced although they did not change; of one, a person waits to see it."""
        now, is_bulk = timezone.now(), len(filenames) > 1
        for start in range(0, len(filenames), CHUNK_ROWS):
            chunk = filenames[start : start + CHUNK_ROWS]
            with transaction.atomic(using=self.db):
                rows = self.filter(topic=topic, filename__in=chunk)
                rows.update(
                    owed_since=Coalesce("owed_since", now),
                    revision=F("revision") + 1,
                    is_bulk=is_bulk,
                    retry_at=None,
                    claimed_by="",
                    claimed_until=None,
                )
                missing = set(chunk) - set(rows.values_list("filename", flat=True))
                self.bulk_create(
                    (Debt(topic=topic, filename=name, owed_since=now, is_bulk=is_bulk) for name in sorted(missing)),
                    ignore_conflicts=True,  # saved meanwhile, which owes it, too
                )

    def cancel(self, topic: str, filename: str) -> None:
        """Forget a file that is deleted."""
        self.filter(topic=topic, filename=filename).delete()

    def forget(self, announcement: Announcement) -> None:
        """The file is not there any more, unless it was saved again since."""
        with self._transaction():
            for debts in self.get_queryset().of([announcement]):
                debts.delete()

    def claim(self, claimed_by: str, topics: Sequence[str], limit: int) -> list[Announcement]:
        """Take over at most so many debts that are due; no other process announces them meanwhile."""
        due = self.get_queryset().due().filter(topic__in=topics)
        if not due.exists():  # without this, an idle server would write every other second
            return []
        with self._transaction():
            debts = list(due.select_for_update(skip_locked=True)[:limit])
            claimed = self.filter(pk__in=[debt.pk for debt in debts])
            claimed.update(claimed_by=claimed_by, claimed_until=timezone.now() + LEASE)
        return [debt.announcement for debt in debts]

    def renew(self, claimed_by: str, announcements: Iterable[Announcement]) -> None:
        """Go on keeping others from announcing these."""
        with self._transaction():
            for debts in self.get_queryset().of(announcements):
                debts.owed().filter(claimed_by=claimed_by).update(claimed_until=timezone.now() + LEASE)

    def settle(self, announcements: Iterable[Announcement]) -> None:
        """The broker acknowledged these. A file that was saved meanwhile stays owed."""
        with self._transaction():
            for debts in self.get_queryset().of(announcements):
                debts.update(
                    owed_since=None,
                    announced_at=timezone.now(),
                    tries=0,
                    last_error="",
                    retry_at=None,
                    claimed_by="",
                    claimed_until=None,
                )

    def release(self, claimed_by: str, announcements: Iterable[Announcement]) -> int:
        """Leave these to whichever process comes first. Returns how many were still this one's."""
        with self._transaction():
            return sum(
                debts.filter(claimed_by=claimed_by).update(claimed_by="", claimed_until=None)
                for debts in self.get_queryset().of(announcements)
            )

    def release_all(self, claimed_by: str) -> None:
        """A process ends: leave all that it claimed."""
        with self._transaction():
            self.owed().filter(claimed_by=claimed_by).at_rest().update(claimed_by="", claimed_until=None)

    def note_failure(self, announcement: Announcement, reason: str, *, free_tries: int = 0) -> None:
        """An announcement failed: pause before the next try, longer each time, once ``free_tries`` are used up."""
        with self._transaction():
            for debts in self.get_queryset().of([announcement]):
                for debt in debts.owed():
                    tries = debt.tries + 1
                    retry_at = timezone.now() + pause(tries - free_tries) if tries > free_tries else None
                    debts.update(tries=tries, last_error=reason, retry_at=retry_at, claimed_by="", claimed_until=None)

    def note_trouble(self, topic: str, reason: str) -> None:
        """Say of everything that is owed on a topic why it is not announced."""
        with self._transaction():
            owed = self.owed().filter(topic=topic).exclude(last_error=reason)
            owed.at_rest().update(last_error=reason)

    def _transaction(self) -> Any:
        """Of its own, or the one that is open: without a savepoint, for nobody goes on after an error."""
        return transaction.atomic(using=self.db, savepoint=False)


def make_revision() -> int:
    """A number that no debt had before; a little room is left to count up."""
    return secrets.randbits(62)


def pause(tries: int) -> timedelta:
    """How long to wait after so many failures in a row, at least one."""
    return min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(tries - 1, 16))


class Debt(models.Model):
    """One file, and whether it is still to be announced. At most one row for each file that devices download."""

    topic = models.CharField(max_length=100)
    filename = models.CharField("file name", max_length=200)
    owed_since = models.DateTimeField(null=True, help_text="Empty: the broker acknowledged the last version.")
    tries = models.PositiveIntegerField("failed tries", default=0)
    last_error = models.TextField(default="", blank=True)
    retry_at = models.DateTimeField("next try", null=True)
    announced_at = models.DateTimeField("last announced", null=True)

    # Changed by every save: the acknowledgement of an earlier version settles nothing.
    revision = models.BigIntegerField(default=make_revision)
    is_bulk = models.BooleanField("bulk", default=False)
    claimed_by = models.CharField(max_length=40, default="", blank=True)
    claimed_until = models.DateTimeField(null=True)

    objects = DebtManager()

    class Meta:
        verbose_name = "announcement"
        constraints = [models.UniqueConstraint(fields=["topic", "filename"], name="one_debt_for_each_file")]
        indexes = [
            # Small however many files there are: it holds what is owed.
            models.Index("topic", "is_bulk", "owed_since", condition=Q(owed_since__isnull=False), name="debt_owed")
        ]

    def __str__(self) -> str:
        return self.filename

    @property
    def announcement(self) -> Announcement:
        return Announcement(self.topic, self.filename, self.revision, self.is_bulk, self.tries)
