"""Check-ins of boards, and a way to have them written at once."""

from __future__ import annotations

import hashlib
from typing import Any

from iotsupport.boards.checkins import CheckIn
from iotsupport.boards.collector import CheckInCollector
from iotsupport.boards.writing import write

MAC = "aa-bb-cc-dd-ee-ff"
# 2026-11-27 12:00 UTC
NOON = 1_795_780_800.0


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def etag(content: str) -> str:
    return f'"{sha256(content)}"'


def fetched(content: str, *, mac_address: str = MAC, at: float = NOON, **fields: Any) -> CheckIn:
    """A board was sent its configuration, whole."""
    config = {"kind": "configs", "filename": f"{mac_address}.json", "etag": etag(content)}
    return check_in(at, **config | fields)


def asked(mac_address: str = MAC, *, at: float = NOON, **fields: Any) -> CheckIn:
    """A board asked for a configuration that is not there."""
    return fetched("", mac_address=mac_address, at=at, **{"status": 404, "etag": "", "way": "view"} | fields)


def updated(mac_address: str = MAC, *, at: float = NOON, **fields: Any) -> CheckIn:
    """A board downloaded firmware; with an empty MAC address, somebody else did."""
    asset = {"kind": "assets", "filename": "firmware.bin", "etag": etag("firmware")}
    return check_in(at, **asset | {"mac_address": mac_address.replace("-", ":").upper()} | fields)


def check_in(at: float, **fields: Any) -> CheckIn:
    usual: dict[str, Any] = {"way": "worker", "at": at, "method": "GET", "status": 200, "remote": "192.0.2.7"}
    return CheckIn(**usual | fields)


class Collector(CheckInCollector):
    """One without a thread: it writes when it is told to."""

    def __init__(self, now: float = NOON) -> None:
        self.time = now
        super().__init__(write, now=lambda: self.time)
        self.is_serving = True

    def _wake(self) -> None:
        pass


def note(*check_ins: CheckIn) -> None:
    """Have these noted together, as of a moment after the last of them."""
    collector = Collector(max(check_in.at for check_in in check_ins))
    for check_in in check_ins:
        collector.note(check_in)
    collector.flush()
