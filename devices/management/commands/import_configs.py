from __future__ import annotations

import re
from pathlib import Path

from devices.models import DeviceConfig
from iotsupport.management.importing import ImportCommand


class Command(ImportCommand):
    help = "Take over a directory of <mac>.json files, byte for byte."
    manager = DeviceConfig.objects
    has_same_name = "is for the same device"

    def name_of(self, path: Path) -> str:
        return re.sub("[-:]", "", path.name.lower())
