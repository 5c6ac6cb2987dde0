"""Reading much while others write: all of it as it was at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import transaction

from iotsupport.database import is_shared

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper


@contextmanager
def snapshot(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Let all that the block reads be of one moment; it writes nothing, and whoever writes does not wait for it.

    While it is open, SQLite's log of what others write only grows.
    """
    if is_shared(connection):
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
        return
    with connection.cursor() as cursor:
        # Not atomic(): as the settings have it, that takes the right to write.
        cursor.execute("BEGIN DEFERRED")
        try:
            cursor.execute("SELECT count(*) FROM sqlite_master")  # it is the moment of the first question
            cursor.fetchall()
            yield
        finally:
            cursor.execute("ROLLBACK")
