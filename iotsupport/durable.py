"""Bringing names to the disk: a file that was synced is gone after a power cut if its name was not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

# What a file system says that has no such thing: some network ones, and FUSE.
CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}


def sync_directory(path: Path) -> None:
    """Bring what was made, renamed or removed in a directory to the disk: see fsync(2), Notes. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory and those above it where they are missing, for good. Raises ``OSError``."""
    if path.is_dir():
        return
    if not path.parent.exists():
        make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)
