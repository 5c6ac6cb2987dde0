"""Sample assets, for ``make demo``."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from typing import Any

from django.core.management.base import BaseCommand

from assets.images import BLOCK_BYTES, CHECKSUM_SEED, DESCRIPTOR_MAGIC, MAGIC, xor_of
from assets.models import Asset
from iotsupport.checks import INSTALLATION

FIRMWARE_BYTES = 300 * 1024
# Of them: header, segment's header, descriptor, the checksum's block, digest.
AROUND_BYTES = 24 + 8 + 256 + 16 + 32
# Where the flash is to be read from.
DATA_ADDRESS = 0x3F400020
GLYPHS = range(32, 127)
GLYPH_BYTES = 8
IMAGE_PIXELS = 64


class Command(BaseCommand):
    help = "Make a firmware, a font and an image as samples; those that are there already are left alone."
    requires_system_checks = INSTALLATION

    def handle(self, **options: Any) -> None:
        samples = {"demo-firmware.bin": make_firmware, "demo-font.bin": make_font, "demo-logo.png": make_image}
        for filename, make in samples.items():
            if not Asset.objects.filter(filename=filename).exists():
                Asset.objects.upload(filename, [make()])


def make_firmware() -> bytes:
    """An image for an ESP32 that is recognised as one, and would not start: see ``assets/images.py`` for the layout."""
    noise = random.Random(1)  # noqa: S311 - the same for everybody
    project = b"demo-firmware"
    descriptor = struct.pack(
        "<I12x32s32s16s16s32s32s80x",
        int.from_bytes(DESCRIPTOR_MAGIC, "little"),
        b"1.0.0",
        project,
        b"12:00:00",
        b"Nov  3 2026",
        b"v5.3.1",
        hashlib.sha256(project).digest(),
    )
    segment = descriptor + noise.randbytes(FIRMWARE_BYTES - AROUND_BYTES)
    image = struct.pack("<BB10xH9xB", MAGIC, 1, 0, 1) + struct.pack("<II", DATA_ADDRESS, len(segment)) + segment
    image += b"\0" * (BLOCK_BYTES - 1 - len(image) % BLOCK_BYTES) + bytes([CHECKSUM_SEED ^ xor_of(segment)])
    return image + hashlib.sha256(image).digest()


def make_font() -> bytes:
    """Eight rows of eight pixels for each printable character."""
    noise = random.Random(2)  # noqa: S311 - the same for everybody
    return b"".join(struct.pack("B", code) + noise.randbytes(GLYPH_BYTES) for code in GLYPHS)


def make_image() -> bytes:
    """A PNG with a gradient (RFC 2083: each chunk has its length, its type and its CRC)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", IMAGE_PIXELS, IMAGE_PIXELS, 8, 2, 0, 0, 0)
    rows = b"".join(
        b"\0" + bytes(value for x in range(IMAGE_PIXELS) for value in (4 * x, 4 * y, 160)) for y in range(IMAGE_PIXELS)
    )
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
