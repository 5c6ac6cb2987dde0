"""Names that nobody else can take: while there is no row of a name, there is nothing else that could be locked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from zlib import crc32

from iotsupport.database import is_shared

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

# Tells our locks from anybody else's.
LOCKS = 0x107
# A transaction that creates many rows holds no more of them: PostgreSQL has room for some thousands. Names that share
# one wait for each other, which harms nobody.
MOST_LOCKS = 1024


def lock_names(connection: BaseDatabaseWrapper, names: Iterable[str]) -> bool:
    """Wait until nobody else creates a row of these names, and let nobody until the transaction ends.

    Returns whether there was something to wait for: SQLite lets only one transaction write at all.
    """
    if not is_shared(connection):
        return False
    with connection.cursor() as cursor:
        # All take several of them in the same order: so of two, none has what the other waits for.
        numbers = sorted({crc32(name.encode()) % MOST_LOCKS for name in names})
        cursor.execute("SELECT pg_advisory_xact_lock(%s, number) FROM unnest(%s::int[]) AS number", [LOCKS, numbers])
    return True
