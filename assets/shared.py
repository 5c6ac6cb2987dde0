"""The bytes of versions in the database, in parts: with PostgreSQL only, where other nodes fetch what one was sent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from django.db import models, transaction

from iotsupport.mirror.files import CHUNK_BYTES


class SharedChunkManager(models.Manager["SharedChunk"]):
    """Asked only where there may be other nodes."""

    def keep(self, sha256: str, path: Path) -> None:
        """Share the bytes of a file, unless they are. Call in the transaction that saves the row which names them."""
        while not self._lock(sha256):
            with path.open("rb") as file:
                self._add(sha256, 0, file.read(CHUNK_BYTES))  # also of an empty file
                for number in itertools.count(1):
                    if not (content := file.read(CHUNK_BYTES)):
                        break
                    self._add(sha256, number, content)

    def _lock(self, sha256: str) -> bool:
        """Keep the garbage collector from them until the commit; return whether they are there."""
        locked = self.select_for_update(no_key=True).filter(sha256=sha256, number=0)
        return locked.only("pk").first() is not None

    def _add(self, sha256: str, number: int, content: bytes) -> None:
        # Another upload of the same bytes may have brought it in this moment.
        self.bulk_create([SharedChunk(sha256=sha256, number=number, content=content)], ignore_conflicts=True)

    def read(self, sha256: str) -> Iterator[bytes]:
        """Yield shared bytes; nothing where they are not shared."""
        # One at a time: an asset may be larger than the memory that there is.
        for number in itertools.count():
            chunk = self.filter(sha256=sha256, number=number).first()
            if chunk is None:
                return
            yield bytes(chunk.content)

    def collect_garbage(self, is_referenced: Callable[[str], bool]) -> None:
        """Remove what no version names any more."""
        for sha256 in list(self.filter(number=0).values_list("sha256", flat=True)):
            if not is_referenced(sha256):
                self._remove_unless(is_referenced, sha256)

    def _remove_unless(self, is_referenced: Callable[[str], bool], sha256: str) -> None:
        with transaction.atomic(using=self.db):
            # Locked by an upload that is not committed: it is about to be named. Else look again, now that it is ours.
            is_ours = self.select_for_update(skip_locked=True).filter(sha256=sha256, number=0).only("pk").first()
            if is_ours and not is_referenced(sha256):
                self.filter(sha256=sha256).delete()


class SharedChunk(models.Model):
    """A part of the bytes of a version."""

    sha256 = models.CharField(max_length=64)
    number = models.PositiveIntegerField()
    content = models.BinaryField()

    objects = SharedChunkManager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["sha256", "number"], name="one_chunk_for_each_number")]

    def __str__(self) -> str:
        return f"{self.sha256}/{self.number}"
