"""What an image for an ESP32 says of itself, and whether it is whole: told from its bytes, never from its name.

The layout is that of ESP-IDF's ``esp_image_format.h`` and ``esp_app_desc.h``. Images for the ESP8266, which have no
descriptor, and file systems are not recognised, which is no error.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from assets.names import is_unseen

Read = Callable[[int, int], bytes]
"""Returns so many bytes from an offset on; fewer at the end of the file alone."""

MAGIC = 0xE9
HEADER_BYTES = 24
SEGMENT_HEADER_BYTES = 8
MOST_SEGMENTS = 16
CHECKSUM_SEED = 0xEF
# The checksum is the last byte of a block of so many.
BLOCK_BYTES = 16
DIGEST_BYTES = 32

DESCRIPTOR_OFFSET = 0x20
DESCRIPTOR_BYTES = 256
DESCRIPTOR_MAGIC = (0xABCD5432).to_bytes(4, "little")

# Of Secure Boot v2: a sector of its own, behind the image.
SECTOR_BYTES = 4096
SIGNATURE_MAGIC = 0xE7

# Of an image of the whole flash, which may begin with nothing.
ERASED = 0xFF
PARTITION_TABLE_OFFSET = 0x8000
PARTITION_MAGIC = b"\xaa\x50"

CHUNK_BYTES = 1024 * 1024

CHIPS = {
    0: "ESP32",
    2: "ESP32-S2",
    5: "ESP32-C3",
    9: "ESP32-S3",
    12: "ESP32-C2",
    13: "ESP32-C6",
    16: "ESP32-H2",
    18: "ESP32-P4",
    20: "ESP32-C61",
    23: "ESP32-C5",
    25: "ESP32-H21",
    28: "ESP32-H4",
    31: "ESP32-E22",
    32: "ESP32-S31",
}

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
# C's __DATE__ and __TIME__, whatever the compiler's language.
DATE = re.compile(r"([A-Z][a-z]{2}) ([ \d]\d) (\d{4})", re.ASCII)
TIME = re.compile(r"(\d\d):(\d\d):(\d\d)", re.ASCII)

AGAIN = "Build or copy it again."
FULL_FLASH = (
    "This is an image of the whole flash, to be written by cable: boards refuse it over the air. Upload the"
    " application's image, which the same build made beside it."
)


class Image(NamedTuple):
    """What an image says of itself. Digests are hexadecimal; a text that it does not say is empty."""

    chip: str
    """Such as ``ESP32-C3``; the number of one that is not known here."""
    project: str
    version: str
    idf_version: str
    built: str
    """``2026-11-03T14:02:11``, on the clock of the computer that built it, which does not say its time zone."""
    elf_sha256: str
    image_sha256: str
    """What is appended to the image: empty where nothing is, or where that is cut off."""
    signed: bool


class Inspection(NamedTuple):
    """What was found in a file: an image or none, and sentences on why boards would not take it."""

    image: Image | None = None
    warnings: tuple[str, ...] = ()


class _Cut(Exception):
    """The file ends before what it announces."""


def inspect(read: Read, size: int) -> Inspection:
    """Look at a file of so many bytes, in pieces of at most 1 MB. Raises only what ``read`` does."""
    start = read(DESCRIPTOR_OFFSET + DESCRIPTOR_BYTES, 0)
    has_descriptor = start[DESCRIPTOR_OFFSET:].startswith(DESCRIPTOR_MAGIC)
    if start[:1] == bytes([MAGIC]) and has_descriptor:
        if len(start) < DESCRIPTOR_OFFSET + DESCRIPTOR_BYTES:
            return Inspection(None, (_cut_short(size),))
        return _inspect_image(read, size, start)
    if start[:1] in {bytes([MAGIC]), bytes([ERASED])} and read(2, PARTITION_TABLE_OFFSET) == PARTITION_MAGIC:
        return Inspection(None, (FULL_FLASH,))
    return Inspection()


def _inspect_image(read: Read, size: int, start: bytes) -> Inspection:
    body = _Body(read, size)
    warnings = []
    image_sha256 = ""
    signed = False
    count = start[1]
    if not 1 <= count <= MOST_SEGMENTS:
        warnings.append(f"The image is damaged: it announces {count} segments, of 1 to {MOST_SEGMENTS}. {AGAIN}")
    else:
        try:
            warnings += body.check_segments(count)
            if start[23] == 1:
                image_sha256, problems = body.check_digest()
                warnings += problems
            signed = body.check_signature()
        except _Cut:
            warnings.append(_cut_short(size))
    descriptor = start[DESCRIPTOR_OFFSET:]
    chip = int.from_bytes(start[12:14], "little")
    image = Image(
        chip=CHIPS.get(chip, str(chip)),
        project=_text(descriptor[0x30:0x50]),
        version=_text(descriptor[0x10:0x30]),
        idf_version=_text(descriptor[0x70:0x90]),
        built=_built(_text(descriptor[0x60:0x70]), _text(descriptor[0x50:0x60])),
        elf_sha256=descriptor[0x90:0xB0].hex() if any(descriptor[0x90:0xB0]) else "",
        image_sha256=image_sha256,
        signed=signed,
    )
    return Inspection(image, tuple(warnings))


class _Body:
    """Walks through an image once; raises :class:`_Cut` where it ends too early."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size = read, size
        self._end = 0
        self._digest = hashlib.sha256()

    def check_segments(self, count: int) -> list[str]:
        self._take(HEADER_BYTES)
        checksum = CHECKSUM_SEED
        for _ in range(count):
            length = int.from_bytes(self._take(SEGMENT_HEADER_BYTES)[4:], "little")
            for chunk in self._chunks(length):
                checksum ^= xor_of(chunk)
        padding = self._take(BLOCK_BYTES - self._end % BLOCK_BYTES)
        is_right = padding[-1] == checksum
        return [] if is_right else [f"The image's checksum is wrong, so boards refuse it. {AGAIN}"]

    def check_digest(self) -> tuple[str, list[str]]:
        expected = self._digest.hexdigest()
        appended = self._take(DIGEST_BYTES).hex()
        if appended == expected:
            return appended, []
        return appended, [f"The SHA-256 at the image's end is not that of the image, so boards refuse it. {AGAIN}"]

    def check_signature(self) -> bool:
        offset = -(-self._end // SECTOR_BYTES) * SECTOR_BYTES
        if self._read(1, offset) != bytes([SIGNATURE_MAGIC]):
            return False
        if self._size < offset + SECTOR_BYTES:
            raise _Cut
        return True

    def _take(self, count: int) -> bytes:
        return b"".join(self._chunks(count))

    def _chunks(self, count: int) -> Iterator[bytes]:
        if self._end + count > self._size:
            raise _Cut
        while count:
            chunk = self._read(min(count, CHUNK_BYTES), self._end)
            if not chunk:  # the file became shorter meanwhile
                raise _Cut
            self._digest.update(chunk)
            self._end += len(chunk)
            count -= len(chunk)
            yield chunk


def xor_of(data: bytes) -> int:
    """Exclusive-or all bytes: a number is folded in halves, which takes some microseconds where a loop takes ages."""
    number, count = int.from_bytes(data, "little"), len(data)
    while count > 1:
        count = (count + 1) // 2
        number = (number >> 8 * count) ^ (number & ((1 << 8 * count) - 1))
    return number


def _cut_short(size: int) -> str:
    return f"The image is cut short after {size} bytes, so boards refuse it. {AGAIN}"


def _text(field: bytes) -> str:
    """Up to the first null character. It is data: in one Unicode form, and nothing in it is unseen."""
    text = unicodedata.normalize("NFC", field.partition(b"\0")[0].decode(errors="replace"))
    return "".join("\ufffd" if _is_unprintable(character) else character for character in text).strip()


def _is_unprintable(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Zl", "Zp"} or is_unseen(character)


def _built(date: str, time: str) -> str:
    day, clock = DATE.fullmatch(date), TIME.fullmatch(time)
    if not day or not clock or day[1] not in MONTHS:
        return ""
    numbers = [int(day[3]), MONTHS.index(day[1]) + 1, int(day[2]), *map(int, clock.groups())]
    try:
        return datetime(*numbers).isoformat()  # type: ignore[arg-type]
    except ValueError:
        return ""
