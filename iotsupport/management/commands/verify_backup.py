from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from iotsupport.management.backups import BackupCommand


class Command(BackupCommand):
    help = "Read all of a backup, say what is in it, and whether this version can restore it. Nothing is changed."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", type=Path)

    def handle(self, *, file: Path, **options: Any) -> None:
        with self.explained(), self.checked(file, self.watch(self.stdout)) as checked:
            manifest, is_earlier = checked.archive.manifest, checked.is_earlier
        self.tell(manifest, file.stat().st_size, self.stdout)
        earlier = " It is of an earlier version; restoring brings it up to date." if is_earlier else ""
        self.stdout.write(f"The backup is whole.{earlier}")
