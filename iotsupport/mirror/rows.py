"""Rows that have a file: what a model has to say so that its rows are mirrored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, models, transaction

from iotsupport.database.names import lock_names
from iotsupport.mirror.files import SERVED_MODE, StagedFile, mirror_storage

M = TypeVar("M", bound="MirroredModel")


class Wanted(NamedTuple):
    """What a mirrored file is to be: the SHA-256 of its bytes in hexadecimal, and its mode."""

    sha256: str
    mode: int = SERVED_MODE


@dataclass(eq=False)
class Ahead:
    """New bytes of a row, staged ahead of the transaction that saves it: while that is open, nobody else can save."""

    value: str
    """Of the row's ``bytes_field``: they are used if it is what is saved in the end."""
    staged: StagedFile | None
    """None once they are taken."""

    def close(self) -> None:
        """Remove what nobody took."""
        if self.staged is not None:
            self.staged.close()


class MirroredManager(models.Manager[M]):
    @contextmanager
    def locked(self, name: str, ahead: Ahead | None = None) -> Iterator[M]:
        """The row of this name, to be changed; it is saved when the block ends. Where there is none, a new one.

        The name is spelled as rows have it. Until then nobody else can change it, delete it, or create one of that
        name. What the block raises refuses the change, and ``ahead`` goes with it. A new one has no ``pk``.
        """
        try:
            with transaction.atomic(using=self.db):
                row = self._lock(name)
                if row is None and self.model.lock_names([name], self.db):
                    row = self._lock(name)  # created meanwhile
                if row is None:
                    row = self.model(**{self.model.name_field: name})
                row.ahead = ahead
                yield row
                row.save(using=self.db)
        finally:
            if ahead is not None and ahead.staged is not None:
                ahead.close()

    def _lock(self, name: str) -> M | None:
        return self.select_for_update().filter(**{self.model.name_field: name}).first()

    def lock_together(self, names: Collection[str], new: Collection[str]) -> dict[str, M]:
        """The rows of these names that there are, locked until the transaction ends: in one query, in their order.

        The names of ``new``, which are some of them, nobody else creates until then.
        """
        rows = self._lock_all(names)
        missing = [name for name in new if name not in rows]
        if missing and self.model.lock_names(missing, self.db):
            rows |= self._lock_all(missing)  # created meanwhile
        return rows

    def _lock_all(self, names: Collection[str]) -> dict[str, M]:
        name_field = self.model.name_field
        rows = self.select_for_update().filter(**{f"{name_field}__in": names}).order_by(name_field)
        return {getattr(row, name_field): row for row in rows}


class MirroredModel(models.Model):
    """A row whose bytes are mirrored as one file."""

    storage_alias: ClassVar[str]
    filename: Any
    """Name of the mirrored file, and what a notification announces."""
    # The field that the file is named after; and what it was when the row was read.
    name_field: ClassVar[str]
    suffix: ClassVar[str] = ""
    name_as_read: str | None = None
    # The field that says which bytes a row has; and those that were staged for it, used if they are what is saved.
    bytes_field: ClassVar[str]
    ahead: Ahead | None = None

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        # Outside a transaction, Django commits before it sends post_save: too late to refuse. Inside of one, what is
        # refused takes all of it back. Staged before it begins: while it is open, nobody else can save.
        using = kwargs.get("using") or DEFAULT_DB_ALIAS
        self._stage_ahead(kwargs.get("update_fields"))
        try:
            with transaction.atomic(using=using, savepoint=False):
                if self._state.adding:
                    self.lock_names([getattr(self, self.name_field)], using)
                super().save(*args, **kwargs)
        finally:
            if self.ahead is not None:
                self.ahead.close()
            self.ahead = None

    def _stage_ahead(self, update_fields: Collection[str] | None) -> None:
        if update_fields is not None and self.bytes_field not in update_fields:
            return
        value = getattr(self, self.bytes_field)
        if self.ahead is None or self.ahead.staged is None or self.ahead.value != value:
            self.ahead = Ahead(value, self.stage())

    def take_staged(self) -> StagedFile:
        """The bytes of this row beside their place, for whoever renames or closes them. Raises :class:`MirrorError`."""
        ahead = self.ahead
        if ahead is None or ahead.staged is None or ahead.value != getattr(self, self.bytes_field):
            return self.stage()
        staged, ahead.staged = ahead.staged, None
        if staged.mode != self.file_mode:
            staged.set_mode(self.file_mode)
        return staged

    @classmethod
    def lock_names(cls, names: Iterable[str], using: str) -> bool:
        """Keep others from creating rows of these names, as :func:`iotsupport.database.names.lock_names` does."""
        return lock_names(connections[using], [f"{cls.storage_alias} {name}" for name in names])

    @classmethod
    def filename_of(cls, name: str) -> str:
        """What the file of a row of this name is called."""
        return name + cls.suffix

    @classmethod
    def with_filename(cls, filename: str, using: str) -> Self | None:
        """The row that is mirrored under this name, as the database has it now."""
        raise NotImplementedError

    @classmethod
    def wanted_files(cls, filenames: Sequence[str], using: str) -> dict[str, Wanted]:
        """What the database has now for those of these file names that are this model's: in one query.

        Every save asks this once, after its commit.
        """
        raise NotImplementedError

    @classmethod
    def remembers(cls, filename: str, sha256: str) -> bool:
        """Whether these bytes were once mirrored under this name, and the history keeps them."""
        raise NotImplementedError

    @classmethod
    def spell(cls, name: str) -> str:
        """Return a name as rows have it now; a version may have it from before."""
        return name

    @classmethod
    def ahead_of(cls, version: Any) -> Ahead:
        """Stage the bytes of an earlier version. Raises ``ValidationError`` and :class:`MirrorError`."""
        raise NotImplementedError

    def take_version(self, version: Any, ahead: Ahead | None = None) -> None:
        """Become what an earlier version was, but for its name; ``ahead`` is what :meth:`ahead_of` gave.

        Raises ``ValidationError``, and :class:`MirrorError` where its bytes are gone.
        """
        raise NotImplementedError

    @property
    def content_sha256(self) -> str:
        """SHA-256 of the mirrored bytes, in hexadecimal."""
        raise NotImplementedError

    @property
    def file_mode(self) -> int:
        """Mode of the mirrored file."""
        return SERVED_MODE

    @property
    def wanted_file(self) -> Wanted:
        return Wanted(self.content_sha256, self.file_mode)

    @classmethod
    def collect_garbage(cls) -> list[str]:
        """Remove bytes that no version needs; called at start-up and by ``sync_mirror``. Returns what went."""
        return []

    @classmethod
    def kept_bytes(cls) -> Any | None:
        """Return where bytes are kept that rows only name, as :class:`iotsupport.backup.kept.KeptBytes`."""
        return None

    def stage(self) -> StagedFile:
        """Write this row's bytes beside their place, with its mode. Raises :class:`MirrorError`."""
        raise NotImplementedError

    def is_mirrored(self) -> bool:
        return self.has_bytes_mirrored() and self.has_marks_mirrored()

    def has_bytes_mirrored(self) -> bool:
        """Whether devices get this row's bytes, whatever else the file's mode says."""
        return mirror_storage(self.storage_alias).matches(self.filename, self.content_sha256)

    def has_marks_mirrored(self) -> bool:
        return mirror_storage(self.storage_alias).has_marks(self.filename, self.file_mode)

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Self:
        row = super().from_db(*args, **kwargs)
        row.name_as_read = row.__dict__.get(cls.name_field)
        return row


def mirrored_models() -> list[type[MirroredModel]]:
    """Every model whose rows are mirrored."""
    return [model for model in apps.get_models() if issubclass(model, MirroredModel)]
