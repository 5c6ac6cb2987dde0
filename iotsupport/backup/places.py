"""Where an archive is written to: a file that is whole or not there, or standard output."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from django.conf import settings

from iotsupport.backup.errors import BackupError
from iotsupport.durable import sync_directory
from iotsupport.mirror.files import MirrorStorage, StagedFile, mirror_storage

# It holds what passwords are checked against, and the secret key.
MODE = 0o600

# What our own directories are for: there, a file of another kind is removed, or even served.
OWN = ["configs", "assets", "blobs"]


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[StagedFile]:
    """Yield what to write to; the file has its name when the block ends, and else nothing of it is left.

    Raises :class:`BackupError` and ``MirrorError``.
    """
    _check(path, overwrite)
    storage = MirrorStorage(path.parent.resolve(), label=str(path.parent.resolve()))
    with storage.explained():
        storage.leftovers(remove=True)
        staged = StagedFile(storage)
        try:
            staged.set_mode(MODE)
            yield staged
            staged.sync()
            _check(path, overwrite)
            staged.move(path)
            sync_directory(storage.directory)
        finally:
            staged.close()


def _check(path: Path, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise BackupError(f"{path.parent} is missing. Make it first, or name another file.")
    if os.path.lexists(path) and not path.is_file():
        raise BackupError(f"{path} is no regular file. Name one that is to be made.")
    if os.path.lexists(path) and not overwrite:
        raise BackupError(f"{path} is there already. Name another file, or give --overwrite.")
    own = [*(mirror_storage(alias).directory for alias in OWN), settings.STATIC_ROOT]
    for each in own:
        if path.parent.resolve().is_relative_to(Path(each).resolve()):
            raise BackupError(f"{path} is in {each}, which is the server's own. Name another file.")


class Piped:
    """Standard output, and what went there."""

    def __init__(self, output: IO[bytes]) -> None:
        if output.isatty():
            raise BackupError("Standard output is a terminal. Send it to a program, or name a file.")
        self._output, self._digest = output, hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        self._output.write(chunk)
        self._output.flush()
        self._digest.update(chunk)
        self.size += len(chunk)
