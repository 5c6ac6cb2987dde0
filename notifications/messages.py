"""What subscribers are told over MQTT: that a file has new bytes to download."""

from __future__ import annotations

import json
from typing import NamedTuple

CONFIGS_TOPIC = "iotsupport/updates/configs"
ASSETS_TOPIC = "iotsupport/updates/assets"
TOPICS = [CONFIGS_TOPIC, ASSETS_TOPIC]


class Message(NamedTuple):
    """The message that announces one file, as the file was last saved when this was made."""

    topic: str
    filename: str
    revision: int
    """What the announcement's row held then: an acknowledgement counts only while it still does."""
    is_bulk: bool = False
    """Goes out after those that a person waits for."""
    tries: int = 0
    """How often it failed before."""

    @property
    def file(self) -> tuple[str, str]:
        """Topic and file name. Of two messages about one file, one is enough: devices download the newest bytes."""
        return self.topic, self.filename

    @property
    def payload(self) -> bytes:
        """JSON in UTF-8: escaped, a letter beyond ASCII would take six bytes or twelve, and small boards have few."""
        return json.dumps({"filename": self.filename}, ensure_ascii=False).encode()
