"""What a version of an asset is, where it is an image for a board: kept with the version, found in its bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from django.db import models

from assets.images import Image, Inspection, inspect


def inspect_open(descriptor: int) -> Inspection:
    """Look at an open file, wherever its position is. Raises ``OSError``."""
    return inspect(partial(os.pread, descriptor), os.fstat(descriptor).st_size)


class Version(NamedTuple):
    """What the next version of an asset is compared with."""

    sha256: str
    image: Image | None


class Identified(models.Model):
    """Fields of what an image says of itself; all are empty for any other file.

    Empty also where the version before this one uploads, which does not know them: of several nodes, one is updated
    after the other.
    """

    chip = models.CharField(max_length=16, default="", db_default="", editable=False)
    project = models.CharField(max_length=32, default="", db_default="", editable=False)
    version = models.CharField(max_length=32, default="", db_default="", editable=False)
    idf_version = models.CharField("ESP-IDF", max_length=32, default="", db_default="", editable=False)
    built = models.CharField(max_length=19, default="", db_default="", editable=False)
    elf_sha256 = models.CharField("SHA-256 of the ELF file", max_length=64, default="", db_default="", editable=False)
    # Boards tell it as their ``sketch-sha256``.
    image_sha256 = models.CharField(
        "SHA-256 at the image's end", max_length=64, default="", db_default="", editable=False, db_index=True
    )
    signed = models.BooleanField(default=False, db_default=False, editable=False)
    # Sentences, as they were when the version was saved.
    warnings = models.JSONField(default=list, db_default=models.Value([], models.JSONField()), editable=False)

    class Meta:
        abstract = True

    @property
    def image(self) -> Image | None:
        if not self.chip:
            return None
        return Image(**{name: getattr(self, name) for name in Image._fields})

    def identify(self, image: Image | None, warnings: list[str]) -> None:
        for name, value in as_fields(image, warnings).items():
            setattr(self, name, value)


def as_fields(image: Image | None, warnings: list[str]) -> dict[str, Any]:
    """What the fields of a row say of an image, or of a file that is none."""
    empty = Image("", "", "", "", "", "", "", False)
    return {**(image or empty)._asdict(), "warnings": warnings}


def describe(image: Image | None) -> dict[str, Any] | None:
    """An image as the API tells it: what it does not say is null."""
    if image is None:
        return None
    return {name: None if value == "" else value for name, value in image._asdict().items()}


def doubts(image: Image | None, before: Version | None, *, is_other_bytes: bool) -> Iterator[str]:
    """Yield sentences on why a version may not be meant to follow the one before.

    ``is_other_bytes``: other bytes of the same project and version have been uploaded under this name.
    """
    former = before.image if before is not None else None
    if former is not None and image is None:
        yield f"The version before is an image for the {former.chip} ({former.project}), and this file is none."
    if image is None:
        return
    if former is not None and image.chip != former.chip:
        yield f"It is for another chip than the version before: {image.chip} instead of {former.chip}."
    if former is not None and image.project != former.project:
        yield f"It is of another project than the version before: {image.project} instead of {former.project}."
    if is_other_bytes:
        yield f"Other bytes were uploaded as version {image.version} before: nobody can tell the two by their version."
