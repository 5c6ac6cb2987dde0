"""What two boards of the demo that are off did before, for ``make demo``: the others do something themselves."""

from __future__ import annotations

import json
import time
from typing import Any

from django.core.management.base import BaseCommand

from devices.models import DeviceConfig
from iotsupport.boards.checkins import CheckIn, report_of
from iotsupport.boards.models import Board
from iotsupport.boards.pending import Batch
from iotsupport.boards.writing import write
from iotsupport.checks import INSTALLATION
from iotsupport.trial.demo import BEHIND, SILENT

HOUR = 3600.0


class Command(BaseCommand):
    help = "Note, once, what two sample devices did that are off: one is silent, the other one behind."
    requires_system_checks = INSTALLATION

    def handle(self, **options: Any) -> None:
        fetch(SILENT, 75 * HOUR, address="192.0.2.24", user_agent="display/1.3.0")
        if fetch(BEHIND, 2 * HOUR, address="192.0.2.23", user_agent="light/1.4.2"):
            # By somebody, while it was off.
            config = json.loads(DeviceConfig.objects.get(mac_address=BEHIND).content)
            DeviceConfig.objects.put(BEHIND, json.dumps(config | {"night": "off"}, indent=2, ensure_ascii=False))


def fetch(mac_address: str, seconds_ago: float, *, address: str, user_agent: str) -> bool:
    """Note a download of the present configuration; return False where the board was seen before."""
    config = DeviceConfig.objects.filter(mac_address=mac_address).first()
    if config is None or Board.objects.filter(mac_address=mac_address, last_seen__isnull=False).exists():
        return False
    at, etag = time.time() - seconds_ago, f'"{config.content_sha256}"'
    fetched = CheckIn("worker", at, "configs", config.filename, "GET", 200, etag, remote=address, user_agent=user_agent)
    report = report_of(fetched)
    write(Batch([report] if report else []), at)
    return True
