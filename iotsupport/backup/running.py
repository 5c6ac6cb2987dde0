"""Whether a server works with what is about to be replaced."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

from django.conf import settings
from django.db import connection

from iotsupport.database import is_shared

# Held by one worker of a server, whichever (iotsupport.boards.listening).
LOCK = "checkins.lock"

# How long others are waited for, and between two looks.
MOMENT_SECONDS, LOOK_SECONDS = 2.0, 0.1

OTHER_CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
        AND backend_type = 'client backend'
"""


def running_server() -> str | None:
    """Return a sentence on a server that is known to run here; None where none is."""
    path = Path(settings.DATA_DIR, LOCK)
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except BlockingIOError:
        return f"A server runs on {settings.DATA_DIR}. Stop it, then try again."
    if is_shared(connection) and _is_in_use():
        return "Others have connections to the database. Stop every server that works with it, then try again."
    return None


def _is_in_use() -> bool:
    """Those of a server that has just ended are over in moments."""
    deadline = time.monotonic() + MOMENT_SECONDS
    while True:
        with connection.cursor() as cursor:
            cursor.execute(OTHER_CONNECTIONS)
            if cursor.fetchone() == (0,):
                return False
        if time.monotonic() >= deadline:
            return True
        time.sleep(LOOK_SECONDS)
