"""What simulated devices run, and how their HTTP clients say so: as those of real boards do, word for word.

Arduino's ``HTTPUpdate`` tells of the sketch that runs each time it asks for a firmware; everything else says only what
its author has it say: see docs/devices.md.
"""

from __future__ import annotations

import hashlib
import http.client
from dataclasses import dataclass, replace
from typing import NamedTuple

CHUNK_BYTES = 64 * 1024

# Of an image (ESP-IDF Programming Guide, "App Image Format"): its first byte; where it says that its own digest is
# appended; the application's descriptor, with the version in it.
IMAGE_MAGIC = 0xE9
HAS_DIGEST = 23
DIGEST_BYTES = 32
DESCRIPTOR = slice(0x20, 0x24)
DESCRIPTOR_MAGIC = bytes.fromhex("3254cdab")
VERSION = slice(0x30, 0x50)
HEAD_BYTES = VERSION.stop

# Of a board with 4 MB of flash, half of it for what comes next.
FLASH_BYTES = 4 * 1024 * 1024
FREE_BYTES = FLASH_BYTES // 2
SDK = "v5.5.1"


class Download(NamedTuple):
    """An asset that came whole."""

    size: int
    etag: str
    md5: str
    digest: str
    """In hexadecimal: the one at the end of an image, or else that of all bytes."""
    version: str | None
    """Of the application, where it is an image that says so."""
    is_image: bool
    check: str
    """Whether the MD5 sum that the server sent with it agrees, in words."""


@dataclass(frozen=True)
class Firmware:
    """What a device runs."""

    project: str
    version: str
    md5: str
    digest: str
    size: int

    @classmethod
    def from_factory(cls, project: str, version: str = "1.4.2") -> Firmware:
        """One that came with the board: no asset of the server."""
        image = f"{project} {version} as it was flashed by cable".encode()
        md5 = hashlib.md5(image, usedforsecurity=False).hexdigest()
        return cls(project, version, md5, hashlib.sha256(image).hexdigest(), 1_000_000)

    def updated(self, download: Download) -> Firmware:
        """What runs after the restart."""
        version = download.version or self.version
        return replace(self, version=version, md5=download.md5, digest=download.digest, size=download.size)

    @property
    def user_agent(self) -> str:
        return f"{self.project}/{self.version}"


class HttpClient:
    """How ESP-IDF's ``esp_http_client`` and ``esp_https_ota`` say what runs: in the user agent that they are given."""

    project = "display"

    def for_config(self, mac_address: str, firmware: Firmware) -> dict[str, str]:
        """Headers of a request for the configuration."""
        return {"User-Agent": firmware.user_agent}

    def for_asset(self, mac_address: str, firmware: Firmware) -> dict[str, str]:
        """Headers of a request for a firmware, or another asset."""
        return {"User-Agent": firmware.user_agent}


class Arduino(HttpClient):
    """Its ``HTTPClient`` with ``setUserAgent`` for configurations, its ``HTTPUpdate`` for a firmware."""

    project = "thermometer"

    def for_asset(self, mac_address: str, firmware: Firmware) -> dict[str, str]:
        mac = mac_address.replace("-", ":").upper()
        return {
            "User-Agent": "ESP32-http-Update",
            "x-ESP32-BASE-MAC": mac,
            "x-ESP32-STA-MAC": mac,
            "x-ESP32-AP-MAC": mac[:-1] + f"{int(mac[-1], 16) ^ 1:X}",
            "x-ESP32-free-space": str(FREE_BYTES),
            "x-ESP32-sketch-size": str(firmware.size),
            "x-ESP32-sketch-md5": firmware.md5,
            "x-ESP32-sketch-sha256": firmware.digest.upper(),
            "x-ESP32-chip-size": str(FLASH_BYTES),
            "x-ESP32-sdk-version": SDK,
            "x-ESP32-mode": "sketch",
            "x-ESP32-version": firmware.version,
        }


class MicroPython(HttpClient):
    """Its ``requests`` has no user agent of its own: the header does as well."""

    project = "light"

    def for_config(self, mac_address: str, firmware: Firmware) -> dict[str, str]:
        return {"x-ESP32-version": firmware.version}

    for_asset = for_config


CLIENTS: list[HttpClient] = [HttpClient(), Arduino(), MicroPython()]


def client_of(mac_address: str) -> HttpClient:
    """A third of all devices has each; of the demo's, the thermometers, the lights and the displays."""
    return CLIENTS[int(mac_address[-2:], 16) % len(CLIENTS)]


def read_asset(response: http.client.HTTPResponse) -> Download | None:
    """Read a file in pieces, as a device with little memory does, and check its length and MD5 sum.

    None stands for none that is new, or none at all. Raises ``ValueError`` for an answer that cannot be right.
    """
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    size, head, end = 0, b"", b""
    while chunk := response.read(CHUNK_BYTES):
        md5.update(chunk)
        sha256.update(chunk)
        size += len(chunk)
        head += chunk[: HEAD_BYTES - len(head)]
        end = (end + chunk)[-DIGEST_BYTES:]
    if response.status in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.NOT_MODIFIED):  # deleted meanwhile, or it has it
        return None
    if response.status != http.HTTPStatus.OK:
        raise ValueError(f"status {response.status}")
    if str(size) != response.headers["Content-Length"]:
        raise ValueError(f"{size} bytes came, but Content-Length is {response.headers['Content-Length']}")
    told = response.headers.get("x-MD5")  # not by nginx, where it sends the mirror's files itself
    if told is not None and told != md5.hexdigest():
        raise ValueError(f"the bytes have the MD5 sum {md5.hexdigest()}, but x-MD5 is {told}")
    is_image = head[:1] == bytes([IMAGE_MAGIC]) and len(head) == HEAD_BYTES
    digest = end.hex() if is_image and head[HAS_DIGEST] == 1 else sha256.hexdigest()
    version = ""
    if is_image and head[DESCRIPTOR] == DESCRIPTOR_MAGIC:
        version = head[VERSION].split(b"\0")[0].decode("ascii", "ignore")
    check = "MD5 agrees" if told else "no MD5 came with them"
    return Download(size, response.headers["ETag"], md5.hexdigest(), digest, version or None, is_image, check)
