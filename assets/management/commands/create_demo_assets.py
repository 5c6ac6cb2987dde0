"""Sample assets, for ``make demo``."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

from django.core.management.base import BaseCommand

from assets.models import Asset
from iotsupport.checks import INSTALLATION

FIRMWARE_BYTES = 300 * 1024
ESP32_IMAGE_MAGIC = b"\xe9"
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
    """Bytes that look like an image for an ESP32, and would not start."""
    noise = random.Random(1)  # noqa: S311 - the same for everybody
    return ESP32_IMAGE_MAGIC + noise.randbytes(FIRMWARE_BYTES - 1)


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
