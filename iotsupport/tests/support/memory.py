"""Where files of tests lie in memory: some thousand databases and mirrors, of which nobody needs one after a crash."""

from __future__ import annotations

import os

SHARED_MEMORY = "/dev/shm"  # noqa: S108
# A run leaves some 150 MB, on each of two databases.
ENOUGH_BYTES = 2 << 30


def directory() -> str | None:
    """A directory of a file system in memory that has room for a run, or ``None``: then they lie on the disk."""
    try:
        room = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    is_enough = room.f_bavail * room.f_frsize >= ENOUGH_BYTES
    return SHARED_MEMORY if is_enough and os.access(SHARED_MEMORY, os.W_OK) else None
