"""What is known of the last backup, and of the backup that an installation came from."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from django.db import models


class Made(NamedTuple):
    """When a backup was made, and how many bytes it has."""

    at: datetime
    size: int


class BackupRecordManager(models.Manager["BackupRecord"]):
    def note(self, **fields: object) -> None:
        self.update_or_create(pk=BackupRecord.ONLY, defaults=fields)


class BackupRecord(models.Model):
    """The only row of its table. An archive does not have it."""

    ONLY = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY)
    made_at = models.DateTimeField()
    size = models.PositiveBigIntegerField()
    # Of the restoration that all rows came from; empty: there was none. Each node notes which one its files follow.
    restored_as = models.CharField(max_length=32, default="")
    restored_at = models.DateTimeField(null=True)

    objects = BackupRecordManager()

    class Meta:
        default_permissions = ()  # it has no pages

    def __str__(self) -> str:
        return f"{self.made_at:%Y-%m-%d %H:%M}"


def last_backup() -> Made | None:
    """The last backup of what is here. After a restoration, that is the archive that it came from."""
    row = BackupRecord.objects.first()
    return Made(row.made_at, row.size) if row is not None else None
