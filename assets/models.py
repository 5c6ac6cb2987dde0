"""Binary files that devices download by name: firmware, fonts, images."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models

from assets import blobs
from assets.identity import Identified, Version, doubts, inspect_open
from assets.images import Image, Inspection
from assets.kept import KeptBlobs
from assets.names import name_of_upload, normalise_filename, validate_filename
from assets.pending import PendingUpload
from assets.shared import SharedChunk
from assets.uploads import MIRROR, StagedBlob, check_size
from iotsupport.characters import fold
from iotsupport.editing.history import VersionQuerySet, Versions
from iotsupport.mirror.files import CHUNK_BYTES, SERVED_MODE, StagedFile, mirror_storage
from iotsupport.mirror.rows import Ahead, MirroredManager, MirroredModel, Wanted

__all__ = ["Asset", "AssetManager", "DeletedAsset", "PendingUpload", "SharedChunk"]

# Fields that make no new version of the bytes.
CHOICES = ["unchanged_where_running"]

# Fields that come back with an earlier version, beside what is found in its bytes.
TAKEN = ["size", "sha256", "md5", *CHOICES]

# What a mirrored file says of its row with its mode, and the fields that it is made from.
UNCHANGED_WHERE_RUNNING = stat.S_IXUSR
DOUBTFUL = stat.S_IXGRP
MARKED = ["unchanged_where_running", "warnings"]


def has_new_bytes(update_fields: Iterable[str] | None) -> bool:
    """Whether a save, of these fields or of all, brings what devices download."""
    return update_fields is None or "sha256" in update_fields


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

    def judge_file(self, path: Path) -> list[str]:
        """Return what :meth:`Asset.judge` says of a file. Raises ``ValidationError`` and ``OSError``."""
        filename = name_of_upload(path.name)
        check_size(path.stat().st_size)
        with path.open("rb") as file:
            inspection = inspect_open(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return (self.filter(filename=filename).first() or self.model(filename=filename)).judge(sha256, inspection)


class Asset(Identified, MirroredModel):
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
    md5 = models.CharField("MD5", max_length=32, editable=False, db_index=True)
    folded = models.TextField(default="", editable=False)  # what searches look at
    # A sketch that updates itself at each boot would else flash the same image for ever. Other clients take a 304 that
    # they did not ask for as a failure, and try again for ever: so it is a choice.
    unchanged_where_running = models.BooleanField(
        "boards that say they run it are told that there is nothing new",
        default=False,
        db_default=False,
        help_text="For boards that update themselves whenever they start. Others may try again and again.",
    )
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
            self.filename = self.spell(self.filename)
        # What may be searched for of an image has no line break.
        self.folded = fold("\n".join([self.filename, self.project, self.version, self.chip, self.idf_version]))
        super().save(*args, **kwargs)

    def set_bytes(self, blob: StagedBlob | PendingUpload) -> None:
        """Make uploaded bytes the current version. Call in the transaction that saves the row."""
        warnings = self.judge(blob.sha256, blob.inspection)
        self.md5, self.sha256, self.size = blob.keep()
        self.ahead = blob.ahead
        self.identify(blob.inspection.image, warnings)

    def judge(self, sha256: str, inspection: Inspection) -> list[str]:
        """Return sentences on why boards may not take these bytes, or not be meant to, as the next version."""
        image = inspection.image
        before = Version(self.sha256, self.image) if self.pk else None
        others = image is not None and image.version and self._versions_of(image).exclude(sha256=sha256).exists()
        return [*inspection.warnings, *doubts(image, before, is_other_bytes=bool(others))]

    def _versions_of(self, image: Image) -> Any:
        return type(self).history.filter(filename=self.filename, project=image.project, version=image.version)

    @classmethod
    def spell(cls, name: str) -> str:
        return normalise_filename(name).strip()

    @classmethod
    def ahead_of(cls, version: Any) -> Ahead:
        return Ahead(version.sha256, blobs.copy(version.sha256, cls.storage_alias))

    def take_version(self, version: Any, ahead: Ahead | None = None) -> None:
        with blobs.open_blob(version.sha256) as file:
            inspection = inspect_open(file.fileno())
        # What there is to say of it now.
        warnings = self.judge(version.sha256, inspection)
        for name in TAKEN:
            setattr(self, name, getattr(version, name))
        self.identify(inspection.image, warnings)

    def save_choice(self) -> None:
        """Save what else there is to choose, without making a version that devices would hear of."""
        self.save(update_fields=CHOICES)

    @property
    def content_sha256(self) -> str:
        return self.sha256

    @property
    def file_mode(self) -> int:
        return _mode(self.unchanged_where_running, self.warnings)

    def stage(self) -> StagedFile:
        staged = blobs.copy(self.sha256, self.storage_alias)
        staged.set_mode(self.file_mode)
        return staged

    @classmethod
    def with_filename(cls, filename: str, using: str) -> Self | None:
        return cls._base_manager.using(using).filter(filename=filename).first()

    @classmethod
    def wanted_files(cls, filenames: Sequence[str], using: str) -> dict[str, Wanted]:
        rows = cls._base_manager.using(using).filter(filename__in=filenames)
        return {
            filename: Wanted(sha256, _mode(*marked))
            for filename, sha256, *marked in rows.values_list("filename", "sha256", *MARKED)
        }

    @classmethod
    def remembers(cls, filename: str, sha256: str) -> bool:
        return bool(cls.history.filter(filename=filename, sha256=sha256).exists())

    @classmethod
    def collect_garbage(cls) -> list[str]:
        PendingUpload.objects.forget()
        # In this order: one that is answered meanwhile is a version by the time that it is not pending any more.
        named_by: list[Any] = [PendingUpload.objects, cls.history, cls.objects]
        return blobs.collect_garbage(lambda sha256: any(rows.filter(sha256=sha256).exists() for rows in named_by))

    @classmethod
    def kept_bytes(cls) -> Any:
        return KeptBlobs()


class DeletedAsset(Asset.history.model):  # type: ignore[name-defined]
    """The deletion of an asset that does not exist since, as the admin lists it."""

    objects = VersionQuerySet.as_manager()

    class Meta:
        proxy = True
        default_permissions: ClassVar[list[str]] = []  # whoever may view assets sees it
        verbose_name = "deleted asset"


def _mode(unchanged_where_running: bool, warnings: list[str]) -> int:
    """What the mode of a mirrored file says of its row: of what is ``MARKED``, in that order."""
    choice = UNCHANGED_WHERE_RUNNING if unchanged_where_running else 0
    return SERVED_MODE | choice | (DOUBTFUL if warnings else 0)
