"""SQLite's files: kept from other users, since they hold what passwords are checked against, and kept open.

Named in the settings as the backend, which is :mod:`iotsupport.database.sqlite.base`.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from iotsupport.database import is_shared

if TYPE_CHECKING:  # gunicorn's master reads the settings, and must not load it
    from django.db.backends.base.base import BaseDatabaseWrapper

    from iotsupport.database.sqlite.base import DatabaseWrapper

# Of the file on which those who write wait for their turns.
TURNS_SUFFIX = "-turns"


# Device and inode: what has the same name later may be another file.
File = tuple[int, int]


class PrivateConnection(sqlite3.Connection):
    """A connection to a file that no other user may read. A missing one is made so."""

    file: File | None
    """Which it is of; None where that is not known, or it is none, or was opened to be read alone."""

    def __init__(self, database: Any, *args: Any, **kwargs: Any) -> None:
        self.path = str(database)
        keep_private(self.path)
        before = _identify_writable(self.path)
        super().__init__(database, *args, **kwargs)
        self.file = before if before == _identify_writable(self.path) else None
        if _is_serving:
            _keep_open(self.path)


def identify(path: str) -> File | None:
    """The file that has this path now; None where there is none, or none in a file system."""
    if not is_file(path):
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _identify_writable(path: str) -> File | None:
    """As :func:`identify`; None, too, where SQLite would open it to be read alone."""
    return identify(path) if os.access(path, os.W_OK) else None


def is_file(database: str) -> bool:
    """Whether the database of this name is a file, not in memory."""
    return database != ":memory:" and not database.startswith("file:")


# Of the process, file and device that it is of. Closed by nobody: see below.
_open: dict[tuple[int, int, int], sqlite3.Connection] = {}

_is_serving = False


def serve(**kwargs: Any) -> None:
    """Keep the database open from now on, between requests, too.

    The last connection that closes removes what SQLite puts beside the database, after writing all of it back. Each
    request would pay for that; and on a full disk, where nothing can be put there again, not even reading would work.
    """
    global _is_serving
    _is_serving = True


def is_serving() -> bool:
    """Whether this process keeps the database open."""
    return _is_serving


def _keep_open(path: str) -> None:
    with suppress(OSError, sqlite3.Error):  # which a query tells
        found = os.stat(path)
        here = (os.getpid(), found.st_dev, found.st_ino)
        if here not in _open:
            connection = sqlite3.connect(path, check_same_thread=False)
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
            _open[here] = connection


@contextmanager
def patience(connection: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
    """Wait for other writers no longer than this. On another database, that is its settings' affair."""
    if is_shared(connection):
        yield
        return
    wrapper = cast("DatabaseWrapper", connection)
    wrapper.ensure_connection()
    wrapper.patience_seconds = seconds
    set_busy_timeout(wrapper.connection, wrapper.timeout_seconds)
    try:
        yield
    finally:
        wrapper.patience_seconds = None
        if wrapper.connection is not None:
            set_busy_timeout(wrapper.connection, wrapper.timeout_seconds)


def set_busy_timeout(connection: sqlite3.Connection, seconds: float) -> None:
    """Say how long SQLite waits for its lock."""
    connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}").close()


def files_of(path: str) -> list[str]:
    """A database's file, and what is put beside it; the latter may be missing."""
    return [path, f"{path}-wal", f"{path}-shm", f"{path}{TURNS_SUFFIX}"]


def keep_private(path: str) -> None:
    """Make a missing database, empty, with mode 0600, which SQLite gives to the files that it puts beside it."""
    if not is_file(path):
        return
    # One that is there must not be opened here: closing it again would drop the locks that SQLite holds for other
    # threads of this process, as POSIX has it.
    with suppress(OSError):  # which the first query tells
        if not os.path.exists(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    for name in files_of(path):
        with suppress(OSError):
            mode = stat.S_IMODE(os.stat(name).st_mode)
            if mode & 0o007:
                os.chmod(name, mode & ~0o007)
