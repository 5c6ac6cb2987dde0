"""Reading an archive that somebody may have damaged, or made to do harm.

:class:`ZipFile` reads what was found sound here: it would believe a directory of any size, and a member that says it
lies where another one does. Nothing is unpacked to the disk, and memory holds no more than a row and a chunk.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from iotsupport.backup.archive import (
    BLOB_NAME,
    BLOBS,
    COMMENT,
    COMMENT_BYTES,
    MANIFEST,
    MOST_MANIFEST_BYTES,
    MOST_SECRET_BYTES,
    ROWS_NAME,
    SECRET_KEY,
    Manifest,
    Member,
    Show,
    rows_name,
)
from iotsupport.backup.errors import BackupError, DamagedError
from iotsupport.backup.tables import MOST_LINE_BYTES
from iotsupport.transfer.unzipping import BROKEN, ENCRYPTED, END

CHUNK_BYTES = 1024 * 1024

# APPNOTE.TXT, 4.3.15, 4.3.14 and 4.3.7: where the record at the end of a large zip is, that record, and the head of a
# member; 4.3.9: what follows the bytes of one whose size was not known before.
LOCATOR = struct.Struct("<4sLQL")
LARGE_END = struct.Struct("<4sQ2H2L4Q")
LOCAL_HEAD = struct.Struct("<4s5H3L2H")
DESCRIPTOR_BYTES = 24
# So much at most is read of what lists the members: some hundred thousand of them.
MOST_DIRECTORY_BYTES = 64 * 1024 * 1024

FOREIGN = "This is no backup of IoT Support, or not all of it."
CHANGED = "The backup is damaged: its bytes are not those that were written."
FORGED = "The backup was not made by IoT Support, or was changed since."


class Archive:
    """An archive whose bytes are those that were written, and whose members are those that its manifest names."""

    def __init__(self, archive: ZipFile, manifest: Manifest) -> None:
        self._archive = archive
        self.manifest = manifest
        self._members = {member.name: member for member in manifest.members}

    def lines(self, label: str) -> Iterator[bytes]:
        """The rows of a table, as they are written. Raises :class:`BackupError`."""
        member = self._members.get(rows_name(label))
        if member is None:
            return
        with self._open(member) as file:
            buffered = io.BufferedReader(file, CHUNK_BYTES)
            while line := buffered.readline(MOST_LINE_BYTES + 1):
                if len(line) > MOST_LINE_BYTES:
                    raise DamagedError(f"A row of {label} is longer than any row can be.")
                yield line

    def blobs(self) -> list[str]:
        """The SHA-256 of all bytes that are kept beside the rows, without those that were damaged before."""
        names = [
            member.name.removeprefix(BLOBS) for member in self.manifest.members if BLOB_NAME.fullmatch(member.name)
        ]
        lost = set(self.manifest.lost)
        return [name for name in names if name not in lost]

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a member. Raises :class:`BackupError`."""
        with self._open(self._members[name]) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def secret_key(self) -> str:
        """Raises :class:`BackupError`."""
        return b"".join(self.chunks(SECRET_KEY)).decode("utf-8", "replace")

    def size_of_blobs(self) -> int:
        return sum(member.size for member in self.manifest.members if member.name.startswith(BLOBS))

    @contextmanager
    def _open(self, member: Member) -> Iterator[_Watched]:
        with _explained(), self._archive.open(member.name) as file:
            yield _Watched(file, member)


class _Watched(io.RawIOBase):
    """What is read of a member: no more than its manifest says, and at its end only if it is what that says."""

    def __init__(self, file: IO[bytes], member: Member) -> None:
        super().__init__()
        self._file, self._member = file, member
        self._digest, self._size = hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _explained():
            chunk = self._file.read(len(buffer))
        self._size += len(chunk)
        self._digest.update(chunk)
        is_whole = self._size == self._member.size and self._digest.hexdigest() == self._member.sha256
        if self._size > self._member.size or (not chunk and not is_whole):
            raise DamagedError(f"{self._member.name} in the backup is not what its manifest says.")
        buffer[: len(chunk)] = chunk
        return len(chunk)


@contextmanager
def open_backup(path: Path, show: Show) -> Iterator[Archive]:
    """Look at an archive from end to end, and have it read in the block. Raises :class:`BackupError`.

    ``show`` is called with how many bytes were looked at.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}. Check its name and its mode.") from error
    with file:
        with _explained():
            _check_bytes(file, show)
            begin = _check_end(file)
            archive = ZipFile(file)
        with archive:
            with _explained():
                _check_places(file, archive.infolist(), begin)
                manifest = _read_manifest(archive)
            yield Archive(archive, manifest)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise DamagedError(CHANGED) from error
    except OSError as error:
        raise BackupError(f"The backup cannot be read: {error.strerror}. Look at the disk that has it.") from error


def _check_bytes(file: IO[bytes], show: Show) -> None:
    """Every byte is what it was, up to the last."""
    left = file.seek(0, os.SEEK_END) - COMMENT_BYTES
    if left < 0:
        raise DamagedError(FOREIGN)
    file.seek(left)
    comment = file.read()
    if not comment.startswith(COMMENT):
        raise DamagedError(FOREIGN)
    file.seek(0)
    digest, done = hashlib.sha256(), 0
    while done < left:
        chunk = file.read(min(CHUNK_BYTES, left - done))
        if not chunk:
            raise DamagedError(CHANGED)  # it became shorter meanwhile
        digest.update(chunk)
        done += len(chunk)
        show(done)
    if comment != COMMENT + digest.hexdigest().encode():
        raise DamagedError(CHANGED)


def _check_end(file: IO[bytes]) -> int:
    """Check where the directory of the members is, and how large; return where it begins."""
    at = file.seek(0, os.SEEK_END) - COMMENT_BYTES - END.size
    signature, disk, first_disk, here, count, length, begin, comment = END.unpack(_read_at(file, at, END.size))
    if signature != b"PK\5\6" or comment != COMMENT_BYTES or disk or first_disk or here != count:
        raise DamagedError(FORGED)
    if at >= LOCATOR.size and (found := _read_at(file, at - LOCATOR.size, LOCATOR.size)).startswith(b"PK\6\7"):
        at = LOCATOR.unpack(found)[2]
        signature, _, _, _, _, _, _, _, length, begin = LARGE_END.unpack(_read_at(file, at, LARGE_END.size))
        if signature != b"PK\6\6":
            raise DamagedError(FORGED)
    if length > MOST_DIRECTORY_BYTES or begin + length != at:
        raise DamagedError(FORGED)
    return int(begin)


def _read_at(file: IO[bytes], position: int, size: int) -> bytes:
    if position < 0:
        raise DamagedError(FORGED)
    file.seek(position)
    found = file.read(size)
    if len(found) != size:
        raise DamagedError(FORGED)
    return found


def _check_places(file: IO[bytes], members: list[ZipInfo], directory_begins: int) -> None:
    """One member follows the other, without anything between, from the first byte to the directory."""
    end = 0
    for info in members:
        if (
            info.header_offset != end
            or info.flag_bits & ENCRYPTED
            or info.compress_type not in {ZIP_STORED, ZIP_DEFLATED}
        ):
            raise DamagedError(FORGED)
        head = LOCAL_HEAD.unpack(_read_at(file, end, LOCAL_HEAD.size))
        end += LOCAL_HEAD.size + head[9] + head[10] + info.compress_size + DESCRIPTOR_BYTES
    if end != directory_begins:
        raise DamagedError(FORGED)


def _read_manifest(archive: ZipFile) -> Manifest:
    """Read it, and compare which members there are, and how large."""
    there = archive.infolist()
    if not there or there[-1].filename != MANIFEST or there[-1].file_size > MOST_MANIFEST_BYTES:
        raise DamagedError(FORGED)
    with archive.open(there[-1]) as file:
        text = file.read(MOST_MANIFEST_BYTES + 1)
    manifest = Manifest.decode(text)
    named = [(member.name, member.size) for member in manifest.members]
    if [(info.filename, info.file_size) for info in there[:-1]] != named:
        raise DamagedError(FORGED)
    _check_names([name for name, _ in named], manifest)
    return manifest


def _check_names(names: list[str], manifest: Manifest) -> None:
    if len(set(names)) != len(names):
        raise DamagedError("The backup has two members of one name.")
    for name in names:
        if name != SECRET_KEY and not ROWS_NAME.fullmatch(name) and not BLOB_NAME.fullmatch(name):
            raise DamagedError(f"The backup has a member {name[:100]!a}, which no backup has.")
    tables = [rows.label for rows in manifest.tables]
    if [name for name in names if ROWS_NAME.fullmatch(name)] != [rows_name(label) for label in tables]:
        raise DamagedError(FORGED)
    secrets = [member for member in manifest.members if member.name == SECRET_KEY]
    if len(secrets) != 1 or secrets[0].size > MOST_SECRET_BYTES:
        raise DamagedError(FORGED)
