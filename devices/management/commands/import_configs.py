from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from devices.importing import take_files
from devices.writing import TOGETHER
from iotsupport.management.importing import ImportCommand, Taken


class Command(ImportCommand):
    help = "Take over a directory of <mac>.json files, byte for byte."
    has_same_name = "is for the same device"
    together = TOGETHER

    def name_of(self, path: Path) -> str:
        return re.sub("[-:]", "", path.name.lower())

    def take(self, paths: Sequence[Path], *, dry_run: bool) -> list[Taken]:
        return take_files(paths, dry_run=dry_run)
