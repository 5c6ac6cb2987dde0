from __future__ import annotations

from collections.abc import Iterator

from assets.exporting import files_of
from assets.models import Asset
from iotsupport.management.exporting import ExportCommand
from iotsupport.transfer.zipping import ZippedFile


class Command(ExportCommand):
    help = "Write all assets as files, byte for byte."

    def count(self) -> int:
        return Asset.objects.count()

    def files(self) -> Iterator[ZippedFile]:
        return files_of(Asset.objects.all())

    def is_ours(self, name: str) -> bool:
        # Any file may be called as an asset was: only what was one once is taken for it.
        return bool(Asset.history.filter(filename=name).exists())
