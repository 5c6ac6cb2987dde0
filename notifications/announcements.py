"""What subscribers are told: that a file has new bytes to download."""

from __future__ import annotations

import json
from typing import NamedTuple

CONFIGS_TOPIC = "iotsupport/updates/configs"
ASSETS_TOPIC = "iotsupport/updates/assets"
TOPICS = [CONFIGS_TOPIC, ASSETS_TOPIC]


class Announcement(NamedTuple):
    """One file to announce. Two of the same are one: the newest bytes are what a device downloads."""

    topic: str
    filename: str

    @property
    def payload(self) -> str:
        return json.dumps({"filename": self.filename})
