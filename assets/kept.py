"""The bytes of every version, as a backup takes and brings them (:class:`iotsupport.backup.kept.KeptBytes`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import ClassVar

from django.db import connection

from assets import blobs
from assets.blobs import BLOBS
from assets.shared import SharedChunk
from iotsupport.database import is_shared
from iotsupport.durable import sync_directory
from iotsupport.mirror.files import MirrorError, mirror_storage


class KeptBlobs:
    named_by: ClassVar[dict[str, str]] = {"assets.asset": "sha256", "assets.historicalasset": "sha256"}

    def hold(self) -> AbstractContextManager[None]:
        return blobs.held()

    def read(self, sha256: str) -> Iterator[bytes]:
        return blobs.read(sha256)

    def keep(self, sha256: str, chunks: Iterable[bytes]) -> None:
        storage = mirror_storage(BLOBS)
        with storage.explained():
            if storage.matches(sha256, sha256):
                return
        staged = storage.stage(chunks)
        if staged.sha256 != sha256:
            staged.close()
            raise MirrorError(blobs.DAMAGED)
        with storage.explained(), storage.lock():
            storage.replace(sha256, staged)
            sync_directory(storage.directory)

    def share(self, sha256: str) -> None:
        if is_shared(connection):
            with mirror_storage(BLOBS).explained():
                SharedChunk.objects.keep(sha256, blobs.path_of(sha256))
