from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError

from devices.models import DeviceConfig
from iotsupport.management.importing import ImportCommand


class Command(ImportCommand):
    help = "Take over a directory of <mac>.json files, byte for byte."
    manager = DeviceConfig.objects

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken: dict[str, str] = {}

    def import_file(self, path: Path, *, dry_run: bool) -> str:
        one_spelling = re.sub("[-:]", "", path.name.lower())
        if one_spelling in self._taken:
            raise ValidationError(f"{self._taken[one_spelling]} is for the same device. Remove one of the two.")
        outcome = super().import_file(path, dry_run=dry_run)
        self._taken[one_spelling] = path.name
        return outcome
