"""Rows that have a file: what a model has to say so that its rows are mirrored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, TypeVar

from django.apps import apps
from django.db import IntegrityError, models, transaction

from iotsupport.mirror.files import MirrorStorage, StagedFile, mirror_storage

M = TypeVar("M", bound="MirroredModel")


class MirroredManager(models.Manager[M]):
    def create_or_replace(
        self, change: Callable[[M], None], *, check: Callable[[M | None], None] = lambda current: None, **name: str
    ) -> M:
        """Save the row of this name, new or again, as ``change`` leaves it.

        ``check`` sees what is there now, and raises to refuse; nobody can change it in between.
        """
        try:
            return self._try_to_replace(change, check, name)
        except IntegrityError:
            # Created by somebody else at the same moment: now there is something to replace.
            return self._try_to_replace(change, check, name)

    def _try_to_replace(
        self, change: Callable[[M], None], check: Callable[[M | None], None], name: dict[str, str]
    ) -> M:
        with transaction.atomic():
            current = self.select_for_update().filter(**name).first()
            check(current)
            row = current or self.model(**name)
            change(row)
            row.save()
        return row


class MirroredModel(models.Model):
    """A row whose bytes are mirrored as one file."""

    storage_alias: ClassVar[str]
    filename: Any
    """Name of the mirrored file, and what a notification announces."""
    # The field that the file is named after; and what it was when the row was read.
    name_field: ClassVar[str]
    name_as_read: str | None = None

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        # Outside a transaction, Django commits before it sends post_save: too late to refuse. Inside of one, what is
        # refused takes all of it back.
        with transaction.atomic(using=kwargs.get("using"), savepoint=False):
            super().save(*args, **kwargs)

    @classmethod
    def storage(cls) -> MirrorStorage:
        return mirror_storage(cls.storage_alias)

    @classmethod
    def filename_of(cls, name: str) -> str:
        """What the file of a row of this name is called."""
        return name

    @classmethod
    def with_filename(cls, filename: str, using: str) -> Self | None:
        """The row that is mirrored under this name, as the database has it now."""
        raise NotImplementedError

    @classmethod
    def saved_sha256s(cls, filenames: Sequence[str], using: str) -> dict[str, str]:
        """SHA-256 of what the database has now for those of these file names that are this model's: in one query.

        Every save asks this once, after its commit.
        """
        raise NotImplementedError

    @classmethod
    def remembers(cls, filename: str, sha256: str) -> bool:
        """Whether these bytes were once mirrored under this name, and the history keeps them."""
        raise NotImplementedError

    @property
    def content_sha256(self) -> str:
        """SHA-256 of the mirrored bytes, in hexadecimal."""
        raise NotImplementedError

    @classmethod
    def collect_garbage(cls) -> list[str]:
        """Remove bytes that no version needs; called at start-up and by ``sync_mirror``. Returns what went."""
        return []

    def stage(self) -> StagedFile:
        """Write this row's bytes beside their place. Raises :class:`MirrorError`."""
        raise NotImplementedError

    def is_mirrored(self) -> bool:
        return self.storage().matches(self.filename, self.content_sha256)

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Self:
        row = super().from_db(*args, **kwargs)
        row.name_as_read = row.__dict__.get(cls.name_field)
        return row


def mirrored_models() -> list[type[MirroredModel]]:
    """Every model whose rows are mirrored."""
    return [model for model in apps.get_models() if issubclass(model, MirroredModel)]
