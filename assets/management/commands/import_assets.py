from __future__ import annotations

from pathlib import Path

from assets.models import Asset
from assets.names import normalise_filename
from iotsupport.management.importing import ImportCommand


class Command(ImportCommand):
    help = "Take over a directory of asset files, byte for byte."
    manager = Asset.objects

    def import_file(self, path: Path, *, dry_run: bool) -> str:
        warnings = Asset.objects.judge_file(path)
        outcome = super().import_file(path, dry_run=dry_run)
        for warning in warnings if outcome != "unchanged" else []:
            self.stderr.write(f"{path.name!r}: warning: {warning}")
        return outcome

    def name_of(self, path: Path) -> str:
        return normalise_filename(path.name)
