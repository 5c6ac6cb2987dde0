from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from iotsupport import audit
from iotsupport.backup.archive import Manifest
from iotsupport.backup.models import BackupRecord
from iotsupport.backup.places import Piped, new_file
from iotsupport.backup.writing import write_backup
from iotsupport.errors import DATABASE_ERRORS
from iotsupport.management.backups import BackupCommand

PIPE = "-"
# The migration that made the table of :class:`BackupRecord`.
NOTED_SINCE = "0007_backups"


class Command(BackupCommand):
    help = "Write one archive of everything: rows, bytes of assets, the secret key. A server may run meanwhile."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="such as backup.zip; - is standard output")
        parser.add_argument("--overwrite", action="store_true", help="replace the file, when the new one is whole")

    def handle(self, *, file: str, overwrite: bool, **options: Any) -> None:
        said = self.stderr if file == PIPE else self.stdout
        with self.explained():
            watch = self.watch(said)
            if file == PIPE:
                target: Any = Piped(sys.stdout.buffer)
                manifest = write_backup(target, watch)
            else:
                with new_file(Path(file), overwrite=overwrite) as target:
                    manifest = write_backup(target, watch)
        self._note(manifest, target.size)
        audit.tell("made", "iotsupport.backup", None if file == PIPE else Path(file).name, bytes=target.size)
        self.tell(manifest, target.size, said)

    def _note(self, manifest: Manifest, size: int) -> None:
        if NOTED_SINCE not in manifest.migrations["iotsupport"]:
            return  # it is made before the database is migrated
        try:
            BackupRecord.objects.note(made_at=manifest.made_at, size=size)
        except DATABASE_ERRORS as error:
            # Of a disk that cannot be written, a backup is all the more needed.
            self.stderr.write(f"The backup is whole, but that it was made could not be noted in the database: {error}")
