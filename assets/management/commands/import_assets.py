from __future__ import annotations

from pathlib import Path

from assets.models import Asset
from assets.names import normalise_filename
from iotsupport.management.importing import ImportCommand


class Command(ImportCommand):
    help = "Take over a directory of asset files, byte for byte."
    manager = Asset.objects

    def name_of(self, path: Path) -> str:
        return normalise_filename(path.name)
