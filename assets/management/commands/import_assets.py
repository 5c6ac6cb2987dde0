from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from django.core.exceptions import ValidationError

from assets.models import Asset
from assets.names import normalise_filename
from iotsupport.management.importing import ImportCommand, Taken, refused
from iotsupport.mirror.files import MirrorError


class Command(ImportCommand):
    help = "Take over a directory of asset files, byte for byte."

    def name_of(self, path: Path) -> str:
        return normalise_filename(path.name)

    def take(self, paths: Sequence[Path], *, dry_run: bool) -> Iterator[Taken]:
        for path in paths:
            try:
                warnings = Asset.objects.judge_file(path)
                outcome = Asset.objects.import_file(path, dry_run=dry_run)
            except (ValidationError, MirrorError, OSError) as error:
                yield refused(error)
            else:
                yield Taken(outcome, warnings=warnings if outcome != "unchanged" else [])
