"""Files that processes lock: of their own, in ``DATA_DIR/locks``, which no other user can open."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from django.conf import settings


def lock_path(data_dir: Path, name: str) -> Path:
    """Where the lock of this name is."""
    return data_dir / "locks" / f"{name}.lock"


def open_lock(path: Path) -> int:
    """Open a lock's file, made where it is missing; return the descriptor. Raises ``OSError``."""
    flags = os.O_RDONLY | os.O_CLOEXEC  # not for writing: that may be impossible, and others must go on
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        give_to_owner(path.parent)
    descriptor = os.open(path, flags | os.O_CREAT, 0o600)
    give_to_owner(path)
    return descriptor


def try_lock(file: IO[bytes] | int) -> bool:
    """Lock an open file, or a descriptor, for this handle, unless another one has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def give_to_owner(path: Path) -> None:
    """Let a command that root runs leave nothing behind that the server's user cannot open; SQLite does the same."""
    if os.geteuid() == 0:
        owner = os.stat(settings.DATA_DIR)
        os.chown(path, owner.st_uid, owner.st_gid)
