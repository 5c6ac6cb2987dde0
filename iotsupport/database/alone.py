"""What one process of all nodes does at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseErrorWrapper

from iotsupport.database import is_shared

# Its name among PostgreSQL's advisory locks.
LOCK = 0x696F7473


@contextmanager
def alone(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Wait until no other process that uses this database is in such a block. Raises one of ``DATABASE_ERRORS``.

    Its lock has a connection of its own, and goes with it: whoever died holds nobody up. A database that is a file of
    this machine has one server, and no lock.
    """
    if not is_shared(connection):
        yield
        return
    params = connection.get_connection_params()
    params.pop("pool", None)
    with DatabaseErrorWrapper(connection):
        lock = psycopg.connect(**params, autocommit=True)
    with lock:
        with DatabaseErrorWrapper(connection):
            lock.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        yield
