"""Connections to SQLite's files that are kept between requests: to open one costs more than what is asked of it.

They belong to the process, not to a thread: there are as many as requests were served at once, and who needs one makes
sure that it is of the file that has the name now.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress

from iotsupport.database import sqlite
from iotsupport.database.sqlite import PrivateConnection, identify

# More than these are closed when nobody uses them: each knows all tables by heart.
MOST_KEPT = 16

_lock = threading.Lock()
_idle: list[PrivateConnection] = []
# Of the process that this one was forked from. To close them, or to let them go, would interfere there.
_of_parent: list[list[PrivateConnection]] = []


def take(path: str) -> PrivateConnection | None:
    """Return a connection to the file that has this path now, if there is one."""
    file = identify(path)
    with _lock:
        found = next((each for each in reversed(_idle) if each.file == file), None) if file is not None else None
        if found is not None:
            _idle.remove(found)
    return found


def keep(connection: PrivateConnection) -> bool:
    """Keep one that nobody uses any more; return whether that is done, or it has to be closed."""
    if not sqlite.is_serving() or connection.file is None or identify(connection.path) != connection.file:
        return False
    try:
        # What it has read is in the kernel's memory, too, where all share it.
        connection.execute("PRAGMA shrink_memory").close()
    except sqlite3.Error:
        return False
    with _lock:
        replaced = [each for each in _idle if each.path == connection.path and each.file != connection.file]
        _idle[:] = [each for each in _idle if each not in replaced]
        has_room = len(_idle) < MOST_KEPT
        if has_room:
            _idle.append(connection)
    for each in replaced:
        with suppress(sqlite3.Error):
            each.close()
    return has_room


def _leave_to_parent() -> None:
    global _lock
    _lock = threading.Lock()
    _of_parent.append(_idle.copy())
    _idle.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
