"""The bytes of every version of every asset, each under its SHA-256.

They are on the disk before the row that names them is committed. With PostgreSQL they are in the database as well: it
may serve several nodes, and each gets there what was uploaded to another one. With SQLite they are nowhere else.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from django.db import connection

from assets.shared import SharedChunk
from iotsupport.database import is_shared
from iotsupport.mirror.files import CHUNK_BYTES, LOCK_POLL_SECONDS, MirrorError, StagedFile, mirror_storage
from iotsupport.mirror.locks import lock_path, open_lock, try_lock

# Where they are, of STORAGES.
BLOBS = "blobs"

# How long who collects waits for who does so, too.
PATIENCE_SECONDS = 1.0

DAMAGED = "The kept bytes of this version are missing or damaged. Upload the file again."


def copy(sha256: str, alias: str) -> StagedFile:
    """Stage the bytes kept under a digest for the storage of this name.

    Raises :class:`MirrorError`, also where they are missing or damaged.
    """
    with open_blob(sha256) as file:
        return stage_copy(file, sha256, alias)


def stage_copy(file: BinaryIO, sha256: str, alias: str) -> StagedFile:
    """Stage the bytes of an open file, which have this digest, as :func:`copy` does."""
    staged = mirror_storage(alias).stage(iter(partial(file.read, CHUNK_BYTES), b""))
    if staged.sha256 != sha256:
        staged.close()
        raise MirrorError(DAMAGED)
    return staged


@contextmanager
def open_blob(sha256: str) -> Iterator[BinaryIO]:
    """The bytes kept under a digest, also where another node has them. Raises :class:`MirrorError` where nobody has."""
    path = path_of(sha256)
    if not path.exists() and is_shared(connection):
        _fetch(sha256)
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise MirrorError(DAMAGED) from error
    with file:
        yield file


def read(sha256: str) -> Iterator[bytes]:
    """Yield the bytes kept under a digest, and write nothing: for a backup.

    Raises :class:`MirrorError` where nobody has them, or they cannot be read.
    """
    if is_shared(connection) and SharedChunk.objects.filter(sha256=sha256).exists():
        yield from SharedChunk.objects.read(sha256)
        return
    try:
        with path_of(sha256).open("rb") as file:
            yield from iter(partial(file.read, CHUNK_BYTES), b"")
    except OSError as error:
        raise MirrorError(DAMAGED) from error


def path_of(sha256: str) -> Path:
    return Path(mirror_storage(BLOBS).path(sha256))


@contextmanager
def held() -> Iterator[None]:
    """Let no process remove any bytes on this node while the block runs: a backup takes them, or brings them.

    Raises ``OSError``.
    """
    with _open_lock() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _open_lock() -> BinaryIO:
    return open(open_lock(lock_path(Path(settings.DATA_DIR), "collecting")), "rb")


def _fetch(sha256: str) -> None:
    """Bring to this disk what another node shared, if it did."""
    blobs = mirror_storage(BLOBS)
    staged = blobs.stage(SharedChunk.objects.read(sha256))
    if staged.sha256 != sha256:
        staged.close()
        return
    with blobs.explained(), blobs.lock():
        blobs.replace(sha256, staged)


def collect_garbage(is_referenced: Callable[[str], bool]) -> list[str]:
    """Remove what killed uploads left, and bytes that no version names any more. Returns the names removed.

    None, while a process holds them; one that collects as well is waited for, some moments.
    """
    blobs = mirror_storage(BLOBS)
    with blobs.explained(), _open_lock() as lock:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not try_lock(lock):
            if time.monotonic() >= deadline:
                return []
            time.sleep(LOCK_POLL_SECONDS)
        if is_shared(connection):
            SharedChunk.objects.collect_garbage(is_referenced)
        removed = [path.name for path in blobs.leftovers(remove=True)]
        return removed + [name for name in blobs.names() if _remove_unless(is_referenced, name)]


def _remove_unless(is_referenced: Callable[[str], bool], name: str) -> bool:
    blobs = mirror_storage(BLOBS)
    path = path_of(name)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False  # another one was quicker
    with file:
        # Locked while the upload that brought it is not committed: so look in the database after locking.
        if not try_lock(file) or is_referenced(name):
            return False
        with blobs.lock():
            is_ours = is_same_file(path, file.fileno())
            if is_ours:
                path.unlink()
            return is_ours


def is_same_file(path: Path, descriptor: int) -> bool:
    """Whether what is open is still what has this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
