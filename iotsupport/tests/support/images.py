"""Images for the ESP32, made from the documented layout, with nothing of the parser in it."""

from __future__ import annotations

import hashlib
import struct
from functools import cache, reduce
from operator import xor

CHIP_IDS = {"ESP32": 0, "ESP32-S2": 2, "ESP32-C3": 5, "ESP32-S3": 9, "ESP32-C6": 13}

ELF_SHA256 = hashlib.sha256(b"kitchen.elf").hexdigest()


@cache
def make_image(
    chip_id: int = 5,
    *,
    project: bytes = b"kitchen",
    version: bytes = b"1.4.2",
    segments: int = 3,
    has_digest: bool = True,
    signed: bool = False,
    filling: bytes = b"\x5a",
    date: bytes = b"Nov  3 2026",
    time: bytes = b"14:02:11",
) -> bytes:
    """An application, as ``idf.py build`` or Arduino make one."""
    descriptor = struct.pack(
        "<II8x32s32s16s16s32s32s80x",
        0xABCD5432,
        0,
        version,
        project,
        time,
        date,
        b"v5.3.1",
        bytes.fromhex(ELF_SHA256),
    )
    assert len(descriptor) == 256
    parts = [descriptor + filling * 1000, *[filling * (100 + 7 * number) for number in range(1, segments)]]
    image = struct.pack("<BBBBIB3xHBHH4xB", 0xE9, segments, 2, 0x20, 0x40080000, 0xEE, chip_id, 0, 0, 99, has_digest)
    assert len(image) == 24
    for number, part in enumerate(parts):
        image += struct.pack("<II", 0x3F400000 + number, len(part)) + part
    image += b"\0" * (15 - len(image) % 16)
    image += bytes([reduce(xor, b"".join(parts), 0xEF)])
    if has_digest:
        image += hashlib.sha256(image).digest()
    if signed:
        image += b"\xff" * (-len(image) % 4096) + (b"\xe7\x02" + b"s" * 1214).ljust(4096, b"\xff")
    return image


def make_full_flash(chip_id: int = 0, *, has_bootloader_first: bool = False) -> bytes:
    """What a cable writes from the first byte of the flash on: boot loader, partition table, application."""
    boot_loader = struct.pack("<BB", 0xE9, 1).ljust(0x3000, b"\x11")
    flash = boot_loader if has_bootloader_first else b"\xff" * 0x1000 + boot_loader
    flash = flash.ljust(0x8000, b"\xff") + b"\xaa\x50\x01\x00"
    return flash.ljust(0x10000, b"\xff") + make_image(chip_id)


def make_esp8266_image() -> bytes:
    """One without a descriptor."""
    return struct.pack("<BBBBI", 0xE9, 1, 0, 0x40, 0x4010F000) + struct.pack("<II", 0x4010F000, 64) + b"8266" * 200
