from __future__ import annotations

from pathlib import Path

from assets.models import Asset
from iotsupport.management.importing import ImportCommand


class Command(ImportCommand):
    help = "Take over a directory of asset files, byte for byte."

    def import_file(self, path: Path, *, dry_run: bool) -> str:
        return Asset.objects.import_file(path, dry_run=dry_run)
