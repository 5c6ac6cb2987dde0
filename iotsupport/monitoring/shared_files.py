"""Small files that the processes of one server share, beside their metrics: gone with the server."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from iotsupport.monitoring import metrics_directory

POLL_SECONDS = 0.01


@contextmanager
def locked_file(name: str, deadline: float) -> Iterator[int | None]:
    """Yield the descriptor of a file that nobody else has meanwhile; None where there is no place for it.

    Raises ``TimeoutError`` where another process has it until ``deadline``, on the clock of ``time.monotonic``. A
    process that ends, however it does, has it no more.
    """
    directory = metrics_directory.current()
    try:
        file = os.open(f"{directory}/{name}.page", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield None
        return
    try:
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"Another process has {name} for too long.")
            time.sleep(POLL_SECONDS)
        yield file
    finally:
        os.close(file)


def read(file: int | None) -> bytes:
    return b"" if file is None else os.pread(file, os.fstat(file).st_size, 0)


def write(file: int | None, content: bytes) -> None:
    """Replace what is in it; where there is no room, it is empty."""
    if file is None:
        return
    with suppress(OSError):
        os.ftruncate(file, 0)
        if os.pwrite(file, content, 0) < len(content):
            os.ftruncate(file, 0)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
