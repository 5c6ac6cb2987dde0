from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from iotsupport import audit
from iotsupport.backup.beginning import ready_to_restore
from iotsupport.backup.restoring import restore
from iotsupport.backup.running import others_are_connected
from iotsupport.management.backups import BackupCommand

AFTERWARDS = (
    "Restored; but others have connected to the database meanwhile. Start their servers again, so that they work with"
    " what was restored."
)
DONE = (
    "Restored. Everybody signs in anew, with the passwords of the backup. Nothing is announced: devices find what is"
    " new for them when they ask."
)
BEHIND = "All rows are restored, but not all files follow them; see above. Then run 'manage.py sync_mirror'."


class Command(BackupCommand):
    help = "Make this installation what a backup has. All of the backup is looked at before anything is changed."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument("--replace", action="store_true", help="give up all that is here")

    def handle(self, *, file: Path, replace: bool, **options: Any) -> None:
        watch = self.watch(self.stdout)
        with self.explained(), ready_to_restore(replace=replace), self.checked(file, watch) as checked:
            size, manifest = file.stat().st_size, checked.archive.manifest
            report = restore(checked, size, watch, replace=replace)
        audit.tell("restored", "iotsupport.backup", file.name, made_at=f"{manifest.made_at:%Y-%m-%dT%H:%M:%SZ}")
        self.tell(manifest, size, self.stdout)
        for remark in report.remarks:
            self.stdout.write(remark)
        for failure in report.failures:
            self.stderr.write(failure)
        if report.failures:
            raise CommandError(BEHIND)
        if others_are_connected():
            raise CommandError(AFTERWARDS)
        self.stdout.write(DONE)
