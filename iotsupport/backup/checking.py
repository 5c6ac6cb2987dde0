"""Looking at all of an archive before anything is taken of it: every row, every byte, and whether they fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from iotsupport.backup.archive import BLOBS, Watch, newer
from iotsupport.backup.errors import DamagedError
from iotsupport.backup.kept import kept_bytes
from iotsupport.backup.reading import Archive
from iotsupport.backup.tables import Row, Table, group, migrations_here, nodes_of, tables_of
from iotsupport.mirror.rows import mirrored_models

DIGEST = re.compile("[0-9a-f]{64}", re.ASCII)
# What no name of a file has that devices download.
IN_NO_NAME = re.compile(r"^\.|[/\\\x00-\x1f\x7f]|\A\Z")


@dataclass
class Checked:
    """An archive all of which was found sound."""

    archive: Archive
    tables: dict[str, Table]
    """As they were in the version that made it."""
    is_earlier: bool
    """Whether that had fewer migrations."""

    def rows(self, label: str) -> Iterator[Row]:
        """The rows of a table, none where it has none. Raises :class:`iotsupport.backup.errors.BackupError`."""
        if label not in self.tables:
            return
        for number, line in enumerate(self.archive.lines(label), 1):
            yield read_row(self.tables[label], number, line)


def check(archive: Archive, watch: Watch) -> Checked:
    """Raise :class:`iotsupport.backup.errors.BackupError` unless all of it can be restored by this version."""
    manifest, here = archive.manifest, migrations_here()
    theirs, ours = set(nodes_of(manifest.migrations)), set(nodes_of(here))
    if not theirs <= ours:
        raise newer(manifest.version)
    tables = tables_of(group(theirs))
    for rows in manifest.tables:
        if rows.label not in tables or rows.columns != tables[rows.label].columns:
            raise DamagedError(f"The rows of {rows.label} are not those of IoT Support {manifest.version[:40]!a}.")
    named = _check_rows(archive, tables, watch)
    _check_kept(archive, named, watch)
    return Checked(archive, tables, theirs != ours)


def read_row(table: Table, number: int, line: bytes) -> Row:
    try:
        return table.decode(line)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"Row {number} of {table.label} in the backup cannot be read: {error}.") from error


def _check_rows(archive: Archive, tables: dict[str, Table], watch: Watch) -> set[str]:
    """Read every row; return what bytes they name."""
    manifest, named, done = archive.manifest, set[str](), 0
    show = watch(sum(rows.count for rows in manifest.tables))
    naming = kept_bytes().named_by
    file_names = {model._meta.label_lower: model.name_field for model in mirrored_models()}
    for rows in manifest.tables:
        table, count = tables[rows.label], 0
        names_bytes = table.index_of(naming[rows.label]) if rows.label in naming else None
        names_file = table.index_of(file_names[rows.label]) if rows.label in file_names else None
        for line in archive.lines(rows.label):
            count += 1
            row = read_row(table, count, line)
            if names_file is not None and IN_NO_NAME.search(row[names_file] or ""):
                raise DamagedError(
                    f"Row {count} of {rows.label} has the name {row[names_file]!a:.100}, which no file has."
                )
            if names_bytes is not None:
                named.add(_check_digest(row[names_bytes], rows.label, count))
            show(done + count)
        if count != rows.count:
            raise DamagedError(
                f"There are {count} rows of {rows.label} in the backup, but {rows.count} are said to be."
            )
        done += count
    return named


def _check_digest(value: object, label: str, number: int) -> str:
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        raise DamagedError(f"Row {number} of {label} in the backup names no bytes.")
    return value


def _check_kept(archive: Archive, named: set[str], watch: Watch) -> None:
    """All that rows name is there, and nothing else, and each is what it is called."""
    manifest = archive.manifest
    lost, there = set(manifest.lost), set(archive.blobs())
    if named != lost | there:
        missing = sorted(named - lost - there)
        what = f"misses the bytes {missing[0]}" if missing else "has bytes that no row names"
        raise DamagedError(f"The backup {what}.")
    digests = {member.name: member.sha256 for member in manifest.members}
    show = watch(len(digests))
    for done, (name, sha256) in enumerate(digests.items(), 1):
        if not name.startswith("rows/"):
            for _ in archive.chunks(name):
                pass  # what is not what the manifest says is refused
        if name.removeprefix(BLOBS) in there and name != f"{BLOBS}{sha256}":
            raise DamagedError(f"{name} in the backup is not what it is called.")
        show(done)
