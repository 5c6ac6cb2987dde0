"""Waiting for the disk with many files at a time: for their new bytes, and for the old ones to be freed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from iotsupport.mirror.files import MirrorStorage, StagedFile

# ext4 writes one journal for all who wait at the same time: one after the other, two hundred files took forty times as
# long. syncfs(2) would also wait for whatever else is written to the disk, such as a backup.
THREADS = 16


def stage_together(storage: MirrorStorage, files: Iterable[Iterable[bytes]]) -> list[StagedFile]:
    """Write and sync new bytes of many files beside their places. Raises :class:`MirrorError`; then none is left."""
    staged: list[StagedFile] = []
    try:
        for chunks in files:
            staged.append(StagedFile(storage))
            for chunk in chunks:
                staged[-1].write(chunk)
        with storage.explained(), ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(os.fsync, [each.descriptor for each in staged]))
    except BaseException:
        for each in staged:
            each.close()
        raise
    return staged


class Replaced:
    """Files whose names others take, kept open meanwhile: freeing one may wait for the disk, here for milliseconds."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def keep(self, path: str) -> None:
        """Call it before the file is replaced or removed."""
        with suppress(OSError):
            self.descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))


@contextmanager
def freed_together() -> Iterator[Replaced]:
    """Free what was replaced in the block when it ends: so long, nobody has to keep a directory locked."""
    replaced = Replaced()
    try:
        yield replaced
    finally:
        if replaced.descriptors:
            with ThreadPoolExecutor(THREADS) as threads:
                list(threads.map(os.close, replaced.descriptors))
