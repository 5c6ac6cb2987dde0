"""All rows against all files: what differs, and making it equal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from iotsupport.mirror.files import MirrorError, MirrorStorage, mirror_storage
from iotsupport.mirror.rows import MirroredModel


@dataclass
class Differences:
    """What a comparison of rows and files found; each list holds file names."""

    written: list[str] = field(default_factory=list)
    """Missing or different: (to be) written."""
    removed: list[str] = field(default_factory=list)
    """Left by a deleted row; the history has these bytes: (to be) removed."""
    unknown: list[str] = field(default_factory=list)
    """Not known to the database, now or earlier: not served, and kept unless asked otherwise."""
    leftovers: list[str] = field(default_factory=list)
    """Temporary files of processes that were killed: (to be) removed."""
    failed: list[str] = field(default_factory=list)
    """Sentences on what could not be repaired."""

    def __bool__(self) -> bool:
        return any([self.written, self.removed, self.unknown, self.leftovers, self.failed])

    @contextmanager
    def noting_failures(self, storage: MirrorStorage) -> Iterator[None]:
        """Go on with the rest when one thing cannot be read or repaired."""
        try:
            with storage.explained():
                yield
        except MirrorError as error:
            self.failed.append(str(error))


# Makes one file equal to its row: of this model, of this name, in this database.
Write = Callable[[type[MirroredModel], str, str], None]


def reconcile(
    model: type[MirroredModel],
    using: str,
    *,
    repair: bool = True,
    delete_unknown: bool = False,
    write: Write,
) -> Differences:
    """Compare every row with its file, and make the files equal unless ``repair`` is false: by calling ``write``."""
    storage = mirror_storage(model.storage_alias)
    found = Differences()
    if repair:
        with found.noting_failures(storage), storage.lock():
            pass  # Its file is there from now on: a full disk would not take it.
    with found.noting_failures(storage):
        found.leftovers = [path.name for path in storage.leftovers(remove=repair)]
    if repair:
        with found.noting_failures(storage):
            found.leftovers += model.collect_garbage()
    expected = set()
    for row in model._base_manager.using(using).iterator(chunk_size=100):
        expected.add(row.filename)
        with found.noting_failures(storage):
            if not row.is_mirrored():
                if repair:
                    write(model, row.filename, using)
                found.written.append(row.filename)
    with found.noting_failures(storage):
        surplus = [name for name in storage.names() if name not in expected]
        for filename in surplus:
            with found.noting_failures(storage), suppress(FileNotFoundError):  # deleted meanwhile
                _judge(found, model, filename, using, repair, delete_unknown, write)
    return found


def _judge(
    found: Differences,
    model: type[MirroredModel],
    filename: str,
    using: str,
    repair: bool,
    delete_unknown: bool,
    write: Write,
) -> None:
    """Decide on a file that had no row when the rows were read."""
    storage = mirror_storage(model.storage_alias)
    with open(storage.path(filename), "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if model.with_filename(filename, using) is not None:
        return  # saved meanwhile
    if delete_unknown or model.remembers(filename, sha256):
        if repair:
            write(model, filename, using)
        found.removed.append(filename)
        return
    found.unknown.append(filename)
    if repair:
        _withhold(found, model, filename, using)


def _withhold(found: Differences, model: type[MirroredModel], filename: str, using: str) -> None:
    storage = mirror_storage(model.storage_alias)
    try:
        with storage.lock():
            if model.with_filename(filename, using) is None:  # and nobody can put one there now
                storage.withhold(filename)
    except (OSError, MirrorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        found.failed.append(f"{filename} is not known, yet it is served: its mode cannot be changed ({reason}).")
