"""Binary files that devices download by name: firmware, fonts, images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models

from assets import blobs
from assets.names import name_of_upload, normalise_filename, validate_filename
from assets.shared import SharedChunk
from assets.uploads import MIRROR, StagedBlob, check_size
from iotsupport.characters import fold
from iotsupport.editing.history import Versions
from iotsupport.mirror.files import CHUNK_BYTES, StagedFile, mirror_storage
from iotsupport.mirror.rows import MirroredManager, MirroredModel

__all__ = ["Asset", "AssetManager", "SharedChunk"]


class AssetManager(MirroredManager["Asset"]):
    def upload(self, filename: str, chunks: Iterable[bytes], *, user: User | None = None) -> Asset:
        """Create or replace an asset from a stream.

        Raises ``ValidationError`` for an unusable name or too many bytes, and ``MirrorError`` where they cannot be
        stored.
        """
        filename = name_of_upload(filename)
        blob = StagedBlob()
        try:
            for chunk in chunks:
                blob.write(chunk)
            blob.prepare()
            with self.locked(filename) as asset:
                asset.set_bytes(blob)
                asset.uploaded_by = user
        except Exception:
            blob.discard()
            raise
        return asset

    def import_file(self, path: Path, *, dry_run: bool) -> str:
        """Take over one file; return ``taken``, ``replaced`` or ``unchanged``. Raises as :meth:`upload`."""
        filename = name_of_upload(path.name)
        check_size(path.stat().st_size)
        current = self.filter(filename=filename).first()
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            # Where the kept bytes are lost, this is how they come back.
            if current is not None and current.sha256 == sha256 and mirror_storage(blobs.BLOBS).exists(sha256):
                return "unchanged"
            file.seek(0)
            if not dry_run:
                self.upload(filename, iter(lambda: file.read(CHUNK_BYTES), b""))
        return "taken" if current is None else "replaced"


class Asset(MirroredModel):
    """The current version of one file. Its bytes are kept under their SHA-256, see :mod:`assets.blobs`."""

    storage_alias: ClassVar[str] = MIRROR
    name_field: ClassVar[str] = "filename"
    bytes_field: ClassVar[str] = "sha256"

    filename = models.CharField(
        "file name",
        max_length=200,
        unique=True,
        validators=[validate_filename],
        help_text="Devices download it as /assets/FILENAME.",
    )
    size = models.PositiveBigIntegerField("size in bytes", editable=False)
    sha256 = models.CharField("SHA-256", max_length=64, editable=False)
    md5 = models.CharField("MD5", max_length=32, editable=False)
    folded = models.TextField(default="", editable=False)  # what searches look at
    uploaded_at = models.DateTimeField(auto_now=True)
    uploaded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )

    objects = AssetManager()
    history = Versions(excluded_fields=["folded"])

    class Meta:
        ordering = ["filename"]

    def __str__(self) -> str:
        return self.filename

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.filename != self.name_as_read:
            # An earlier version that comes back may have a name from before names had one form.
            self.filename = normalise_filename(self.filename).strip()
            self.folded = fold(self.filename)
        super().save(*args, **kwargs)

    def set_bytes(self, blob: StagedBlob) -> None:
        """Make uploaded bytes the current version. Call in the transaction that saves the row."""
        self.md5, self.sha256, self.size = blob.keep()
        self.ahead = blob.ahead

    @property
    def content_sha256(self) -> str:
        return self.sha256

    def stage(self) -> StagedFile:
        return blobs.copy(self.sha256, self.storage_alias)

    @classmethod
    def with_filename(cls, filename: str, using: str) -> Self | None:
        return cls._base_manager.using(using).filter(filename=filename).first()

    @classmethod
    def saved_sha256s(cls, filenames: Sequence[str], using: str) -> dict[str, str]:
        return dict(cls._base_manager.using(using).filter(filename__in=filenames).values_list("filename", "sha256"))

    @classmethod
    def remembers(cls, filename: str, sha256: str) -> bool:
        return bool(cls.history.filter(filename=filename, sha256=sha256).exists())

    @classmethod
    def collect_garbage(cls) -> list[str]:
        return blobs.collect_garbage(
            lambda sha256: cls.history.filter(sha256=sha256).exists() or cls.objects.filter(sha256=sha256).exists()
        )
