"""Having an installation to oneself while all of it is replaced."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.db import connection

from iotsupport.backup.errors import BackupError
from iotsupport.database import is_shared
from iotsupport.serving import only_one

# How long others are waited for, and between two looks.
MOMENT_SECONDS, LOOK_SECONDS = 2.0, 0.1

OTHER_CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
        AND backend_type = 'client backend'
"""


@contextmanager
def alone() -> Iterator[None]:
    """Let no server start here while the block runs. Raises :class:`BackupError` where one works with what is here."""
    try:
        only_one.take(Path(settings.DATA_DIR))
    except only_one.TakenError as error:
        raise BackupError(str(error)) from error
    try:
        only_one.say_where([])
        if others_are_connected():
            raise BackupError(
                "Others have connections to the database. Stop every server that works with it, then try again."
            )
        yield
    finally:
        only_one.give_away()


def others_are_connected() -> bool:
    """Whether others work with a database that nodes share; what has just ended is over in moments."""
    deadline = time.monotonic() + MOMENT_SECONDS
    while is_shared(connection):
        with connection.cursor() as cursor:
            cursor.execute(OTHER_CONNECTIONS)
            if cursor.fetchone() == (0,):
                return False
        if time.monotonic() >= deadline:
            return True
        time.sleep(LOOK_SECONDS)
    return False
