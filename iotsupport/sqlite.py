"""SQLite's files, kept from other users: they hold what passwords and sessions are checked against."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import suppress
from typing import Any


class PrivateConnection(sqlite3.Connection):
    """A connection to a file that no other user may read. A missing one is made so."""

    def __init__(self, database: Any, *args: Any, **kwargs: Any) -> None:
        keep_private(str(database))
        super().__init__(database, *args, **kwargs)


def keep_private(path: str) -> None:
    """Make a missing database, empty, with mode 0600, which SQLite gives to the files that it puts beside it."""
    if path == ":memory:" or path.startswith("file:"):
        return
    # One that is there must not be opened here: closing it again would drop the locks that SQLite holds for other
    # threads of this process, as POSIX has it.
    with suppress(OSError):  # which the first query tells
        if not os.path.exists(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    for name in [path, f"{path}-wal", f"{path}-shm"]:
        with suppress(OSError):
            mode = stat.S_IMODE(os.stat(name).st_mode)
            if mode & 0o007:
                os.chmod(name, mode & ~0o007)
