"""A zip that somebody sent is read, and trusted in nothing: not in its sizes, its names, nor that it is one.

Nothing of it is unpacked to the disk. :mod:`zipfile` reads what was found sound here: before that, it would make an
object of each of a million members, and it believes a member that says it lies where another one does.
"""

from __future__ import annotations

import lzma
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from django.core.exceptions import ValidationError

MOST_FILES = 60_000
MOST_UNPACKED_BYTES = 256 * 1024 * 1024
MOST_BYTES = 64 * 1024 * 1024

# APPNOTE.TXT, 4.3.16 and 4.3.12: the record at the end, and the head of one member in the central directory.
END = struct.Struct("<4s4H2LH")
MEMBER = struct.Struct("<4s6H3L5H2L")
LOCAL_HEAD_BYTES = 30
ENCRYPTED = 0x1 | 0x40 | 0x2000
UTF_8 = 0x800

# Of the central directory: a name, and what programs add to it.
MOST_BYTES_OF_MEMBER = 200

DRIVE = re.compile("[A-Za-z]:")
BROKEN = (BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, zlib.error, lzma.LZMAError)

DAMAGED = "This is no zip, or not all of it. Make it anew, then send it again."


class RefusedZip(ValidationError):
    """A zip of which nothing is taken. The message is a sentence."""

    def __init__(self, message: str, code: str = "INVALID_ZIP") -> None:
        super().__init__(message, code=code)

    def __str__(self) -> str:
        return str(self.message)


class Unzipped:
    """The members of a sound zip, by name."""

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive
        self._unpacked_bytes = 0
        self.names = [info.filename for info in archive.infolist() if not info.is_dir()]

    def read(self, name: str, most_bytes: int) -> bytes:
        """The bytes of one. Raises ``ValidationError`` where they are too many, and :class:`RefusedZip`."""
        info = self._archive.getinfo(name)
        with _explained(), self._archive.open(info) as member:
            data = member.read(most_bytes + 1)
        self._unpacked_bytes += len(data)
        if self._unpacked_bytes > 2 * MOST_UNPACKED_BYTES:  # each is read once to look at it, and once to take it
            raise _too_large()
        if len(data) > most_bytes:
            raise ValidationError(f"It has more than {most_bytes} bytes. Shorten it.", code="TOO_LARGE")
        if len(data) != info.file_size:
            raise RefusedZip(f"{name[:100]!a} has another size than the zip says. {DAMAGED}")
        return data


@contextmanager
def open_zip(file: IO[bytes]) -> Iterator[Unzipped]:
    """Look at a zip from end to end, and have its members read in the block. Raises :class:`RefusedZip`."""
    members_begin = _check_end(file)
    with _explained():
        archive = ZipFile(file)
    with archive:
        _check_members(archive.infolist(), members_begin)
        yield Unzipped(archive)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RefusedZip:
        raise
    except BROKEN as error:
        raise RefusedZip(DAMAGED) from error


def _check_end(file: IO[bytes]) -> int:
    """Check the record at the end, and how many members there are; return where their directory begins."""
    size = file.seek(0, os.SEEK_END)
    if size > MOST_BYTES:
        raise RefusedZip(f"The zip has {size} bytes; {MOST_BYTES} are allowed. Send several.", "TOO_LARGE")
    if size < END.size:
        raise RefusedZip(DAMAGED)
    file.seek(size - END.size)
    signature, disk, first_disk, here, count, length, begin, comment = END.unpack(file.read(END.size))
    if signature != b"PK\5\6" or comment:
        raise RefusedZip(f"Something follows the end of the zip, or its end is missing. {DAMAGED}")
    if max(count, here) > MOST_FILES or 0xFFFFFFFF in (length, begin):
        raise _too_many(count)
    if disk or first_disk or here != count or begin + length != size - END.size:
        raise RefusedZip(DAMAGED)
    if length > MOST_FILES * MOST_BYTES_OF_MEMBER:
        raise RefusedZip(f"The names in the zip are too long, or too many. At most {MOST_FILES} files are taken.")
    file.seek(begin)
    if _count(file.read(length)) != count:
        raise RefusedZip(DAMAGED)
    return int(begin)


def _count(directory: bytes) -> int:
    """How many members there really are: a reader goes by the length of their directory."""
    count = position = 0
    while position < len(directory):
        if position + MEMBER.size > len(directory):
            raise RefusedZip(DAMAGED)
        fields = MEMBER.unpack_from(directory, position)
        if fields[0] != b"PK\1\2":
            raise RefusedZip(DAMAGED)
        position += MEMBER.size + sum(fields[10:13])  # of the name, what was added, and the remark
        count += 1
        if count > MOST_FILES:
            raise _too_many(count)
    return count


def _check_members(members: list[ZipInfo], directory_begins: int) -> None:
    seen: set[str] = set()
    end = said_bytes = 0
    for info in sorted(members, key=lambda member: member.header_offset):
        _check_name(info)
        _check_kind(info)
        if info.filename in seen:
            raise RefusedZip(f"{info.filename[:100]!a} is in the zip twice. Leave one of the two out.")
        seen.add(info.filename)
        if info.header_offset < end:
            raise RefusedZip("Files of the zip overlap, as those do that are made to fill a disk. Nothing is taken.")
        end = info.header_offset + LOCAL_HEAD_BYTES + len(info.filename.encode()) + info.compress_size
        said_bytes += info.file_size
    if end > directory_begins:
        raise RefusedZip(DAMAGED)
    if said_bytes > MOST_UNPACKED_BYTES:
        raise _too_large()


def _check_name(info: ZipInfo) -> None:
    name = info.filename
    if not info.flag_bits & UTF_8 and not name.isascii():
        raise RefusedZip("A name in the zip is not in UTF-8. Make the zip with a program that writes UTF-8.")
    shown = f"{name[:100]!a}"
    if name != info.orig_filename or not name.isprintable():
        raise RefusedZip(f"The name {shown} holds what cannot be seen. Rename the file.")
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or "\\" in name or DRIVE.match(name) or not {"", ".", ".."}.isdisjoint(parts):
        raise RefusedZip(f"{shown} is a path that leads out of the zip. Nothing is taken.")


def _check_kind(info: ZipInfo) -> None:
    shown = f"{info.filename[:100]!a}"
    if info.flag_bits & ENCRYPTED:
        raise RefusedZip(f"{shown} is encrypted. Make the zip without a password.")
    if info.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:
        raise RefusedZip(f"{shown} is packed in a way that is not known here. Make an ordinary zip.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise RefusedZip(f"{shown} is a link or a device, and no file. Put the file itself into the zip.")


def _too_many(count: int) -> RefusedZip:
    return RefusedZip(f"The zip has {count} files or more; {MOST_FILES} are allowed. Send several.", "TOO_MANY_FILES")


def _too_large() -> RefusedZip:
    return RefusedZip(f"Unpacked, the zip has more than {MOST_UNPACKED_BYTES} bytes. Send several.", "TOO_LARGE")
