"""Whether a board says that it runs just what it asks for: told by its headers and the file alone.

Arduino's ``HTTPUpdate`` sends what runs with each request: ``x-ESP32-sketch-md5``, the MD5 of the file, and
``x-ESP32-sketch-sha256``, what is appended to the image; ``ESPhttpUpdate`` sends ``x-ESP8266-sketch-md5``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from assets.identity import inspect_open
from assets.images import Inspection
from assets.models import UNCHANGED_WHERE_RUNNING
from iotsupport.serving.contents import CHUNK_BYTES, Content, Digests

# In every process; an inspection takes less than a kilobyte.
CACHED = 1024

# The ESP8266's flasher writes the flash mode into the third byte: QIO, QOUT, DIO or DOUT.
ESP8266_MAGIC = {0xE9, 0xEA}
FLASH_MODE_OFFSET = 2
FLASH_MODES = range(4)
ESP8266_MOST_BYTES = 16 * 1024 * 1024


def says_it_runs(environ: Mapping[str, Any], content: Content, digests: Digests) -> bool:
    """Whether the asset's choice is to tell such boards that there is nothing new, and this is one."""
    if not content.mode & UNCHANGED_WHERE_RUNNING:
        return False
    if environ.get("HTTP_X_ESP32_MODE", "sketch") == "sketch":
        if _said(environ, "HTTP_X_ESP32_SKETCH_MD5") == digests.md5:
            return True
        sha256 = _said(environ, "HTTP_X_ESP32_SKETCH_SHA256")
        if sha256 and sha256 == _image_sha256(content):
            return True
    md5 = _said(environ, "HTTP_X_ESP8266_SKETCH_MD5")
    if not md5 or environ.get("HTTP_X_ESP8266_MODE", "sketch") != "sketch":
        return False
    return md5 == digests.md5 or md5 in flashed_md5s(content)


def _said(environ: Mapping[str, Any], name: str) -> str:
    return str(environ.get(name, "")).strip().lower()


def _image_sha256(content: Content) -> str:
    image = inspection_of(content).image
    return image.image_sha256 if image is not None else ""


@lru_cache(maxsize=CACHED)
def inspection_of(content: Content) -> Inspection:
    return inspect_open(content.descriptor)


@lru_cache(maxsize=CACHED)
def flashed_md5s(content: Content) -> frozenset[str]:
    """MD5s of an image for the ESP8266 as it is in the flash, with each flash mode; none of any other file."""
    start = os.pread(content.descriptor, FLASH_MODE_OFFSET + 1, 0)
    if len(start) <= FLASH_MODE_OFFSET or start[0] not in ESP8266_MAGIC or content.size > ESP8266_MOST_BYTES:
        return frozenset()
    digests = []
    for mode in FLASH_MODES:
        digests.append(hashlib.md5(start[:FLASH_MODE_OFFSET] + bytes([mode]), usedforsecurity=False))
    position = len(start)
    while chunk := os.pread(content.descriptor, CHUNK_BYTES, position):
        for digest in digests:
            digest.update(chunk)
        position += len(chunk)
    return frozenset(digest.hexdigest() for digest in digests)
