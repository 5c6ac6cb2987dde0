"""The outbox: which files are still to be announced. Written with the row that was saved, marked when acknowledged.

*Owed* is what was recorded and not acknowledged since: the word of the admin, of ``/health`` and of the metrics.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any

from django.db import connections, models, transaction
from django.db.models import Q
from django.utils import timezone

from iotsupport import audit
from notifications import pace
from notifications.messages import Message

# How long a claim keeps other processes from sending what one is about to send, unless it is renewed.
LEASE = timedelta(seconds=6)

CHUNK_ROWS = 500

# What a row says of a file that was announced.
NOTHING_OWED: dict[str, Any] = {
    "owed_since": None,
    "tries": 0,
    "last_error": "",
    "retry_at": None,
    "claimed_by": "",
    "claimed_until": None,
}

# One statement, whether files were ever announced or not. Every save waits for it, and the query set's way to it
# would take five times as long.
RECORD = """
    INSERT INTO notifications_debt
        (topic, filename, owed_since, revision, is_bulk, tries, last_error, claimed_by, claimed_until)
    VALUES {rows}
    ON CONFLICT (topic, filename) DO UPDATE SET
        owed_since = COALESCE(notifications_debt.owed_since, excluded.owed_since),
        revision = excluded.revision,
        is_bulk = excluded.is_bulk,
        last_error = COALESCE(NULLIF(excluded.last_error, ''), notifications_debt.last_error),
        retry_at = NULL,
        claimed_by = excluded.claimed_by,
        claimed_until = excluded.claimed_until
"""
ROW = "(%s, %s, %s, %s, %s, %s, %s, %s, %s)"


class AnnouncementQuerySet(models.QuerySet["Announcement"]):
    def owed(self) -> AnnouncementQuerySet:
        """Recorded, and not acknowledged since."""
        return self.filter(owed_since__isnull=False)

    def due(self) -> AnnouncementQuerySet:
        """Owed, not paused, and not claimed by a process that lives; the most urgent first."""
        now = timezone.now()
        # What lies further ahead than anybody writes it was written before the clock was set back.
        is_paused = Q(retry_at__gt=now, retry_at__lt=now + 2 * pace.LONGEST_PAUSE)
        is_claimed = Q(claimed_until__gt=now, claimed_until__lt=now + 2 * LEASE)
        return self.owed().exclude(is_paused).exclude(is_claimed).order_by("is_bulk", "owed_since", "pk")

    def at_rest(self) -> AnnouncementQuerySet:
        """Those that no other transaction is changing: so nobody is waited for. Call it in a transaction.

        What a save or a delete is changing has another revision afterwards, or is gone. If it is rolled back, what
        should have been noted is not, and the file is announced once more.
        """
        pks = self.select_for_update(skip_locked=True).values("pk")
        return AnnouncementQuerySet(self.model, using=self.db).filter(pk__in=pks)

    def of(self, messages: Iterable[Message]) -> Iterable[AnnouncementQuerySet]:
        """Those that are still as they were when these messages were made: a query set for each topic."""
        by_topic = defaultdict(list)
        for message in messages:
            by_topic[message.topic].append(message)
        for topic, group in by_topic.items():
            filenames = [message.filename for message in group]
            # Revisions are random: none is another file's.
            revisions = [message.revision for message in group]
            yield self.filter(topic=topic, filename__in=filenames, revision__in=revisions).at_rest()


class AnnouncementManager(models.Manager["Announcement"]):
    def get_queryset(self) -> AnnouncementQuerySet:
        return AnnouncementQuerySet(self.model, using=self._db)

    def owed(self) -> AnnouncementQuerySet:
        return self.get_queryset().owed()

    def record(self, topic: str, filename: str, *, is_bulk: bool, claimed_by: str = "", reason: str = "") -> Message:
        """Record that a file must be announced, as :meth:`record_together` does."""
        [message] = self.record_together(topic, [filename], is_bulk=is_bulk, claimed_by=claimed_by, reason=reason)
        return message

    def record_together(
        self, topic: str, filenames: Iterable[str], *, is_bulk: bool, claimed_by: str = "", reason: str = ""
    ) -> list[Message]:
        """Record that files must be announced: call it in the transaction that saves them.

        ``claimed_by`` names the process that will try at once; empty leaves it to whichever comes first. ``reason``
        says why nobody can, where that is known.
        """
        now, connection = timezone.now(), connections[self.db]
        owed_since, lease_end = map(connection.ops.adapt_datetimefield_value, [now, now + LEASE])
        claimed_until = lease_end if claimed_by else None
        # In one order: of two who record some of the same, none has what the other waits for.
        messages = [Message(topic, filename, make_revision(), is_bulk) for filename in sorted(filenames)]
        values = [
            (topic, message.filename, owed_since, message.revision, is_bulk, 0, reason, claimed_by, claimed_until)
            for message in messages
        ]
        with connection.cursor() as cursor:
            cursor.execute(RECORD.format(rows=", ".join([ROW] * len(values))), [*chain.from_iterable(values)])
        return messages

    def record_again(self, topic: str, filenames: Sequence[str]) -> None:
        """Record that files must be announced although they did not change; of one, a person waits to see it."""
        for start in range(0, len(filenames), CHUNK_ROWS):
            self.record_together(topic, set(filenames[start : start + CHUNK_ROWS]), is_bulk=len(filenames) > 1)
        name = filenames[0] if len(filenames) == 1 else None
        audit.tell("announced again", "notifications.announcement", name, topic=topic, count=len(filenames))

    def cancel(self, topic: str, filename: str) -> None:
        """A file is deleted: there is nothing to announce."""
        self.filter(topic=topic, filename=filename).delete()

    def cancel_version(self, message: Message) -> None:
        """A file is not there any more: there is nothing to announce, unless it was saved again since."""
        with self._transaction():
            for rows in self.get_queryset().of([message]):
                rows.delete()

    def claim(self, claimed_by: str, topics: Sequence[str], limit: int) -> list[Message]:
        """Claim at most so many that are due; no other process sends them while the lease holds."""
        due = self.get_queryset().due().filter(topic__in=topics)
        if not due.exists():  # without this, an idle server would write every other second
            return []
        with self._transaction():
            rows = list(due.select_for_update(skip_locked=True)[:limit])
            claimed = self.filter(pk__in=[row.pk for row in rows])
            claimed.update(claimed_by=claimed_by, claimed_until=timezone.now() + LEASE)
        return [row.message for row in rows]

    def renew(self, claimed_by: str, messages: Iterable[Message]) -> None:
        """Let the lease begin anew: these are still on their way."""
        with self._transaction():
            for rows in self.get_queryset().of(messages):
                rows.owed().filter(claimed_by=claimed_by).update(claimed_until=timezone.now() + LEASE)

    def mark_announced(self, messages: Iterable[Message]) -> None:
        """The broker acknowledged these. A file that was saved meanwhile stays owed."""
        with self._transaction():
            for rows in self.get_queryset().of(messages):
                rows.update(**NOTHING_OWED, announced_at=timezone.now())

    def strike_all(self) -> int:
        """Owe nothing any more. Returns how many files were owed."""
        with self._transaction():
            return self.owed().update(**NOTHING_OWED)

    def release(self, claimed_by: str, messages: Iterable[Message]) -> int:
        """Leave these to whichever process comes first. Returns how many were still this one's."""
        with self._transaction():
            return sum(
                rows.filter(claimed_by=claimed_by).update(claimed_by="", claimed_until=None)
                for rows in self.get_queryset().of(messages)
            )

    def release_all(self, claimed_by: str) -> None:
        """A process ends: leave all that it claimed."""
        with self._transaction():
            self.owed().filter(claimed_by=claimed_by).at_rest().update(claimed_by="", claimed_until=None)

    def note_failure(self, message: Message, reason: str, *, free_tries: int = 0) -> None:
        """A message failed: pause before it is tried again, longer each time, once ``free_tries`` are used up."""
        with self._transaction():
            for rows in self.get_queryset().of([message]):
                for row in rows.owed():
                    tries = row.tries + 1
                    retry_at = timezone.now() + pace.pause(tries - free_tries) if tries > free_tries else None
                    rows.update(tries=tries, last_error=reason, retry_at=retry_at, claimed_by="", claimed_until=None)

    def note_suspension(self, topic: str, reason: str) -> None:
        """Say of everything that is owed on a topic why it is not announced."""
        with self._transaction():
            owed = self.owed().filter(topic=topic).exclude(last_error=reason)
            owed.at_rest().update(last_error=reason)

    def _transaction(self) -> Any:
        """Of its own, or the one that is open: without a savepoint, for nobody goes on after an error."""
        return transaction.atomic(using=self.db, savepoint=False)


def make_revision() -> int:
    """A number that no announcement had before."""
    return secrets.randbits(62)


class Announcement(models.Model):
    """One file, and whether it is still to be announced. At most one row for each file that devices download."""

    topic = models.CharField(max_length=100)
    filename = models.CharField("file name", max_length=200)
    owed_since = models.DateTimeField(null=True, help_text="Empty: the broker acknowledged the last version.")
    tries = models.PositiveIntegerField("failed tries", default=0)
    last_error = models.TextField(default="", blank=True)
    retry_at = models.DateTimeField("next try", null=True)
    announced_at = models.DateTimeField("last announced", null=True)

    # Changed by every save: the acknowledgement of an earlier version says nothing of this one.
    revision = models.BigIntegerField(default=make_revision)
    is_bulk = models.BooleanField("bulk", default=False)
    claimed_by = models.CharField(max_length=40, default="", blank=True)
    claimed_until = models.DateTimeField(null=True)

    objects = AnnouncementManager()

    class Meta:
        # Names of earlier versions, kept in the database: to change them would copy the table.
        db_table = "notifications_debt"
        constraints = [models.UniqueConstraint(fields=["topic", "filename"], name="one_debt_for_each_file")]
        indexes = [
            # Small however many files there are: it holds what is owed.
            models.Index("topic", "is_bulk", "owed_since", condition=Q(owed_since__isnull=False), name="debt_owed")
        ]

    def __str__(self) -> str:
        return self.filename

    @property
    def message(self) -> Message:
        return Message(self.topic, self.filename, self.revision, self.is_bulk, self.tries)
