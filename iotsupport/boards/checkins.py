"""What one download told of a board: as it was heard, and as it can be stored."""

from __future__ import annotations

import re
import unicodedata
from codecs import getincrementaldecoder
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from iotsupport.boards.mac_addresses import find_mac_address
from iotsupport.serving.clients import storable_address_of

Way = Literal["worker", "view", "nginx"]
Kind = Literal["configs", "assets"]

WAYS: tuple[Way, ...] = ("worker", "view", "nginx")

# Of a header value. What is longer is cut when it is heard: a flood of long ones must not take memory.
MOST_CHARS = 200

# "Seen" is no finer: what says nothing new within it is not written.
MINUTE = 60.0

# The content's SHA-256, strong or weak; of a list, nothing is known.
ETAG = re.compile(r'\s*(?:W/)?"([0-9a-f]{64})"\s*', re.ASCII)

DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}", re.ASCII)

# What a board calls itself for us: "kitchen/1.4.2". Libraries call themselves so, too, and say nothing of a firmware.
PRODUCT = re.compile(r"([^/]{1,100})/(v?[0-9][\w.+-]{0,99})", re.ASCII | re.IGNORECASE)
LIBRARIES = {
    "curl",
    "esp-idf",
    "esp32 http client",
    "esp32httpclient",
    "esp8266httpclient",
    "esphome",
    "go-http-client",
    "httpie",
    "mozilla",
    "okhttp",
    "python-requests",
    "python-urllib",
    "wget",
}


class CheckIn(NamedTuple):
    """One download, as whoever answered it knows it. Text that is not known is empty.

    Header values are those that came, cut to :data:`MOST_CHARS` and otherwise as they are: the collector's thread
    cleans them. Nothing but the first seven has to be given.
    """

    way: Way
    at: float
    """When it was answered: seconds since 1970 (``time.time``)."""
    kind: Kind
    filename: str
    """As the mirror has it: ``aa-bb-cc-dd-ee-ff.json``, ``firmware.bin``."""
    method: str
    status: int
    etag: str
    """The answer's, with its quotation marks, as the application makes it: of the content's SHA-256."""
    mac_address: str = ""
    """Of an asset's download: as the header says it, in any spelling. Of a configuration's, its name says it."""
    reaches_end: bool = True
    """Of a 206: whether the file's last byte was in it."""
    remote: str = ""
    """The address that was connected; and what it sent as ``X-Forwarded-For``, for ``serving.clients.address_of``."""
    forwarded: str = ""
    if_none_match: str = ""
    user_agent: str = ""
    version: str = ""
    sketch_md5: str = ""
    sketch_sha256: str = ""
    sdk_version: str = ""
    chip_size: str = ""

    @property
    def board(self) -> str:
        """By what it says which board it is; empty where it does not."""
        return self.filename if self.kind == "configs" else self.mac_address

    @property
    def is_download(self) -> bool:
        """Whether somebody has the file now who asked for it: sent whole, to its end, or known to be unchanged."""
        return self.method == "GET" and (self.status in {200, 304} or (self.status == 206 and self.reaches_end))

    @property
    def is_asking(self) -> bool:
        """Whether a board asked for a configuration that is not there."""
        return self.kind == "configs" and self.status == 404


@dataclass(slots=True)
class Report:
    """What is to be written of one board: cleaned, and of several check-ins what the later ones say."""

    mac_address: str
    at: float
    asked: int = 0
    """How often it asked for a configuration that is not there."""
    holds_sha256: str | None = None
    holds_at: float | None = None
    last_address: str | None = None
    address_before: str | None = None
    """Another one, from which it was seen since the last report."""
    two_addresses_at: float | None = None
    """When it was seen from two of them within a minute."""
    user_agent: str = ""
    runs_version: str = ""
    runs_md5: str = ""
    runs_sha256: str = ""
    sdk_version: str = ""
    chip_size: int | None = None
    runs_filename: str = ""
    runs_asset_sha256: str = ""

    def add(self, later: Report) -> None:
        """Take what a later one says."""
        if later.last_address and self.last_address and later.last_address != self.last_address:
            self.address_before = self.last_address
            # While the database is away, a report takes what comes for as long as that lasts.
            if abs(later.at - self.at) < MINUTE:
                self.two_addresses_at = later.at
        if later.runs_version and self.runs_version and later.runs_version != self.runs_version:
            # It was another firmware that had these.
            self.runs_md5 = self.runs_sha256 = ""
        if later.runs_md5 or later.runs_sha256:
            self.runs_md5, self.runs_sha256 = later.runs_md5, later.runs_sha256
        self.at = later.at
        self.asked += later.asked
        if later.holds_sha256 is not None:
            self.holds_sha256, self.holds_at = later.holds_sha256, later.holds_at
        self.last_address = later.last_address or self.last_address
        self.user_agent = later.user_agent or self.user_agent
        self.runs_version = later.runs_version or self.runs_version
        self.sdk_version = later.sdk_version or self.sdk_version
        self.chip_size = self.chip_size if later.chip_size is None else later.chip_size


def report_of(check_in: CheckIn) -> Report | None:
    """Return what a check-in tells of a board; None where it names none."""
    is_config = check_in.kind == "configs"
    mac_address = find_mac_address(check_in.filename.removesuffix(".json") if is_config else check_in.mac_address)
    if mac_address is None:
        return None
    report = Report(
        mac_address,
        check_in.at,
        asked=int(check_in.is_asking),
        last_address=_address(check_in.remote, check_in.forwarded),
        user_agent=clean(check_in.user_agent),
        runs_version=clean(check_in.version, 100),
        runs_md5=_digest(check_in.sketch_md5, 32),
        runs_sha256=_digest(check_in.sketch_sha256, 64),
        sdk_version=clean(check_in.sdk_version, 100),
        chip_size=_size(check_in.chip_size),
    )
    if is_config:
        report.holds_sha256 = _held(check_in)
        report.holds_at = report.at if report.holds_sha256 else None
        report.runs_version = report.runs_version or version_of(report.user_agent)
    return report


def _held(check_in: CheckIn) -> str | None:
    """Return the SHA-256 of what the board holds, as far as this tells."""
    if check_in.is_asking:
        return None
    # "*" is true of anything.
    if check_in.is_download and not (check_in.status == 304 and check_in.if_none_match.strip() == "*"):
        found = ETAG.fullmatch(check_in.etag)
    else:
        found = ETAG.fullmatch(check_in.if_none_match)
    return found[1] if found else None


def version_of(user_agent: str) -> str:
    """Return the firmware's version of a user agent such as ``kitchen/1.4.2``; empty where it is a library's."""
    found = PRODUCT.fullmatch(user_agent)
    return found[2] if found and found[1].strip().casefold() not in LIBRARIES else ""


def clean(text: str, most: int = MOST_CHARS) -> str:
    """Return what can be stored and shown of somebody's text: without what is not printable, and cut."""
    text = text if text.isprintable() else "".join(filter(str.isprintable, text))
    return unicodedata.normalize("NFC", text).strip()[:most]


def _digest(text: str, chars: int) -> str:
    text = text.strip().lower()
    return text if len(text) == chars and DIGEST.fullmatch(text) else ""


def _size(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None


_address = lru_cache(maxsize=1024)(storable_address_of)


# --- What a request says --------------------------------------------------------------------------------------------

# Of a WSGI environment, what ESP32's and ESP8266's libraries call these; the first that is there counts.
_HEADERS = {
    field: [f"HTTP_X_ESP32_{name}", f"HTTP_X_ESP8266_{name}"]
    for field, name in {
        "version": "VERSION",
        "sketch_md5": "SKETCH_MD5",
        "sketch_sha256": "SKETCH_SHA256",
        "sdk_version": "SDK_VERSION",
        "chip_size": "CHIP_SIZE",
    }.items()
}
# Boards on Ethernet have only the second. That of its access point is another one.
_MAC_HEADERS = ["HTTP_X_ESP32_STA_MAC", "HTTP_X_ESP32_BASE_MAC", "HTTP_X_ESP8266_STA_MAC"]


def check_in_of(
    way: Way, kind: Kind, filename: str, environ: Mapping[str, Any], status: int, headers: Mapping[str, str], at: float
) -> CheckIn:
    """Return what a WSGI request tells, with the status and the headers of its answer."""
    return CheckIn(
        way,
        at,
        kind,
        filename,
        str(environ["REQUEST_METHOD"]),
        status,
        headers.get("ETag", ""),
        mac_address="" if kind == "configs" else _first(environ, _MAC_HEADERS),
        reaches_end=status != 206 or reaches_end(headers.get("Content-Range", "")),
        remote=str(environ.get("REMOTE_ADDR", "")),
        forwarded=str(environ.get("HTTP_X_FORWARDED_FOR", ""))[-MOST_CHARS:],
        if_none_match=decode(environ.get("HTTP_IF_NONE_MATCH", "")),
        user_agent=decode(environ.get("HTTP_USER_AGENT", "")),
        **{field: _first(environ, names) for field, names in _HEADERS.items()},
    )


def _first(environ: Mapping[str, Any], names: list[str]) -> str:
    for name in names:
        if value := environ.get(name):
            return decode(value)
    return ""


def decode(value: str) -> str:
    """Return a header's value, which WSGI has as if it were Latin-1, cut; empty where it is not UTF-8."""
    value = value[:MOST_CHARS]
    if value.isascii():
        return value
    try:
        # Not the last one: a character may be cut in the middle.
        return getincrementaldecoder("utf-8")().decode(value.encode("latin-1"), final=False)
    except UnicodeError:
        return ""


def reaches_end(content_range: str) -> bool:
    """Whether an answer's ``Content-Range``, such as ``bytes 0-9/10``, has the file's last byte."""
    last, _, size = content_range.rpartition("-")[2].partition("/")
    return last.isdecimal() and size.isdecimal() and int(last) + 1 == int(size)
