"""The bytes of every version of every asset, each under its SHA-256.

They are on the disk before the row that names them is committed. With PostgreSQL they are in the database as well: it
may serve several nodes, and each gets there what was uploaded to another one. With SQLite they are nowhere else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction

from assets.shared import SharedChunk
from iotsupport.durable import sync_directory
from iotsupport.mirror.files import CHUNK_BYTES, MirrorError, MirrorStorage, StagedFile, State, mirror_storage, try_lock

DAMAGED = "The kept bytes of this version are missing or damaged. Upload the file again."


def storage() -> MirrorStorage:
    return mirror_storage("blobs")


class StagedBlob(StagedFile):
    """Bytes of an upload, hashed as they arrive; gone with the object unless they were committed."""

    def __init__(self) -> None:
        # Known from here on: whoever makes a storage may hold a lock while the garbage collector comes to `remove`.
        self._blobs = storage()
        with self._blobs.explained():
            super().__init__(self._blobs.directory)
        self._md5 = hashlib.md5(usedforsecurity=False)  # what Arduino's HTTPUpdate checks

    def write(self, chunk: bytes) -> None:
        """Raises ``ValidationError`` past the size limit."""
        check_size(self.size + len(chunk))
        super().write(chunk)
        self._md5.update(chunk)

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    def keep(self) -> None:
        """Put the bytes under their digest, for good once the transaction commits. Raises :class:`MirrorError`.

        Another upload of the same bytes may be in flight, so each puts a file of its own there, and a rollback
        takes away only what it brought. What was kept in a transaction that was rolled back may be so once more.
        """
        sha256 = self.sha256
        with self._blobs.explained():
            if self.state is State.STAGED:
                self.sync()
                with self._blobs.lock():
                    target = Path(self._blobs.path(sha256))
                    self.move(target, State.IN_PLACE if target.exists() else State.KEPT)
                sync_directory(self._blobs.directory)
            SharedChunk.objects.keep(sha256, self.path)
        transaction.on_commit(self._commit)

    def _commit(self) -> None:
        self.state = State.IN_PLACE
        self.close()

    def remove(self) -> None:
        # Under its digest, there may be another upload's file by now.
        with self._blobs.lock():
            if _is_same_file(self.path, self.descriptor):
                self.path.unlink()


def check_size(size: int) -> None:
    """Raise ``ValidationError`` for more bytes than an asset may have."""
    if size > settings.ASSET_MAX_BYTES:
        message = (
            f"The file has more than {settings.ASSET_MAX_BYTES} bytes. Send a smaller one, or raise ASSET_MAX_BYTES."
        )
        raise ValidationError(message, code="TOO_LARGE")


def copy(sha256: str, alias: str) -> StagedFile:
    """Stage the bytes kept under a digest for the storage of this name.

    Raises :class:`MirrorError`, also where they are missing or damaged.
    """
    path = storage().path(sha256)
    if not os.path.exists(path):
        _fetch(sha256)
    try:
        with open(path, "rb") as file:
            staged = mirror_storage(alias).stage(iter(partial(file.read, CHUNK_BYTES), b""))
    except FileNotFoundError as error:
        raise MirrorError(DAMAGED) from error
    if staged.sha256 != sha256:
        staged.close()
        raise MirrorError(DAMAGED)
    return staged


def _fetch(sha256: str) -> None:
    """Bring to this disk what another node shared, if it did."""
    staged = storage().stage(SharedChunk.objects.read(sha256))
    if staged.sha256 != sha256:
        staged.close()
        return
    with storage().explained(), storage().lock():
        storage().replace(sha256, staged)


def collect_garbage(is_referenced: Callable[[str], bool]) -> list[str]:
    """Remove what killed uploads left, and bytes that no version names any more. Returns the names removed."""
    blobs = storage()
    with blobs.explained():
        SharedChunk.objects.collect_garbage(is_referenced)
        removed = [path.name for path in blobs.leftovers(remove=True)]
        return removed + [name for name in blobs.names() if _remove_unless(is_referenced, name)]


def _remove_unless(is_referenced: Callable[[str], bool], name: str) -> bool:
    path = Path(storage().path(name))
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False  # another one was quicker
    with file:
        # Locked while the upload that brought it is not committed: so look in the database after locking.
        if not try_lock(file) or is_referenced(name):
            return False
        with storage().lock():
            is_ours = _is_same_file(path, file.fileno())
            if is_ours:
                path.unlink()
            return is_ours


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
