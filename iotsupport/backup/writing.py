"""Making an archive: rows at one moment, the bytes that they name, the secret key, and what all of it must be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Protocol, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from django.conf import settings
from django.db import connection
from django.utils import timezone

from iotsupport import __version__
from iotsupport.backup.archive import (
    BLOBS,
    COMMENT,
    COMMENT_BYTES,
    MANIFEST,
    SECRET_KEY,
    Manifest,
    Member,
    Rows,
    Watch,
    rows_name,
)
from iotsupport.backup.kept import KeptBytes, kept_bytes
from iotsupport.backup.tables import migrations_of, tables_of
from iotsupport.database import is_shared
from iotsupport.database.snapshots import snapshot
from iotsupport.mirror.files import MirrorError

# So much is written at a time, at least.
BUFFER_BYTES = 1024 * 1024
PRIVATE_FILE = 0o100600 << 16


class Target(Protocol):
    """Where an archive goes, and what went there so far: its SHA-256 in hexadecimal, and how many bytes."""

    size: int

    @property
    def sha256(self) -> str: ...

    def write(self, chunk: bytes) -> None: ...


def write_backup(target: Target, watch: Watch) -> Manifest:
    """Write an archive of everything; return what is in it. Raises :class:`BackupError` and database errors."""
    kept, archive = kept_bytes(), ArchiveWriter(target)
    with kept.hold(), ExitStack() as moment, archive.ended():
        moment.enter_context(snapshot(connection))
        migrations = migrations_of(connection.alias)
        manifest = Manifest(timezone.now(), __version__, connection.vendor, migrations, members=archive.members)
        names = _write_rows(archive, manifest, kept, watch)
        if not is_shared(connection):
            moment.close()  # else the bytes may be in the database, where another node may remove them
        show = watch(len(names))
        for done, sha256 in enumerate(sorted(names), 1):
            if not _write_bytes(archive, sha256, kept.read(sha256)):
                manifest.lost.append(sha256)
            show(done)
        moment.close()
        with archive.member(SECRET_KEY, ZIP_STORED) as write:
            write(settings.SECRET_KEY.encode())
        archive.finish(manifest)
    return manifest


def _write_rows(archive: ArchiveWriter, manifest: Manifest, kept: KeptBytes, watch: Watch) -> set[str]:
    """Write all tables; return the names of the bytes that they name."""
    tables = tables_of(manifest.migrations).values()
    show, done = watch(sum(table.count(connection.alias) for table in tables)), 0
    names: set[str] = set()
    for table in tables:
        column = kept.named_by.get(table.label)
        naming = None if column is None else table.index_of(column)
        count = 0
        with archive.member(rows_name(table.label), ZIP_DEFLATED) as write:
            for row in table.select(connection.alias):
                write(table.encode(row))
                if naming is not None:
                    names.add(row[naming])
                count += 1
                show(done + count)
        done += count
        manifest.tables.append(Rows(table.label, table.columns, count, table.last_key(connection.alias)))
    return names


def _write_bytes(archive: ArchiveWriter, sha256: str, chunks: Iterator[bytes]) -> bool:
    """Return whether they are what they are called."""
    with suppress(MirrorError):
        first = next(chunks, b"")
        with archive.member(f"{BLOBS}{sha256}", ZIP_STORED) as write, suppress(MirrorError):
            write(first)
            for chunk in chunks:
                write(chunk)
        return archive.members[-1].sha256 == sha256
    return False


class ArchiveWriter:
    """Writes members one after the other, and nothing twice: neither memory nor a second file has to hold any."""

    def __init__(self, target: Target) -> None:
        self.members: list[Member] = []
        self._target = target
        self._stream = _Stream(target)
        self._zip = ZipFile(cast(IO[bytes], self._stream), "w", ZIP_STORED)

    @contextmanager
    def member(self, name: str, packing: int) -> Iterator[Callable[[bytes], None]]:
        """Yield what to call with its bytes, as they come."""
        info = ZipInfo(name, timezone.now().timetuple()[:6])
        info.compress_type, info.external_attr = packing, PRIVATE_FILE
        digest, size, buffer = hashlib.sha256(), 0, bytearray()

        def write(chunk: bytes) -> None:
            nonlocal size
            size += len(chunk)
            digest.update(chunk)
            buffer.extend(chunk)
            if len(buffer) >= BUFFER_BYTES:
                file.write(bytes(buffer))
                buffer.clear()

        # How large it is becomes known at its end: so room for the largest is left.
        with self._zip.open(info, "w", force_zip64=True) as file:
            yield write
            file.write(bytes(buffer))
        self.members.append(Member(name, size, digest.hexdigest()))

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, and the end of the archive."""
        encoded = manifest.encode()
        with self.member(MANIFEST, ZIP_DEFLATED) as write:
            write(encoded)
        self._zip.comment = bytes(COMMENT_BYTES)
        self._stream.is_held = True
        self._zip.close()
        self._target.write(self._stream.take()[:-COMMENT_BYTES])
        self._target.write(COMMENT + self._target.sha256.encode())

    @contextmanager
    def ended(self) -> Iterator[None]:
        """Let go of an archive that is not finished when the block ends."""
        try:
            yield
        finally:
            self._stream.is_held = True
            self._zip.close()


class _Stream:
    """What :class:`ZipFile` writes to, and cannot seek in."""

    def __init__(self, target: Target) -> None:
        self._target, self._buffer = target, bytearray()
        self.is_held = False

    def write(self, chunk: bytes) -> int:
        self._buffer.extend(chunk)
        if len(self._buffer) >= BUFFER_BYTES and not self.is_held:
            self._target.write(self.take())
        return len(chunk)

    def flush(self) -> None:
        """Called by :class:`ZipFile` again and again: what is there waits until it is much."""

    def take(self) -> bytes:
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken
