"""What the commands share that take over the files of a directory, one by one."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from iotsupport.bulk import bulk_change
from iotsupport.checks import INSTALLATION
from iotsupport.mirror.files import MirrorError


class ImportingManager(Protocol):
    def import_file(self, path: Path, *, dry_run: bool) -> str: ...


class ImportCommand(BaseCommand):
    """Takes over a directory; says of each file whether it was taken, replaced, unchanged, or refused and why."""

    requires_system_checks = INSTALLATION
    manager: ImportingManager
    # What is said of a second file of one name.
    has_same_name = "has the same name"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken: dict[str, str] = {}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("directory", metavar="DIR", type=Path)
        parser.add_argument("--dry-run", action="store_true", help="only report what would happen")

    def name_of(self, path: Path) -> str:
        """Return the name under which a file would be kept: of two files with the same one, the first is taken."""
        raise NotImplementedError

    def import_file(self, path: Path, *, dry_run: bool) -> str:
        """Take one file, and return what became of it. Raises ``ValidationError`` and ``MirrorError``."""
        name = self.name_of(path)
        if name in self._taken:
            raise ValidationError(f"{self._taken[name]!a} {self.has_same_name}. Remove one of the two.")
        outcome = self.manager.import_file(path, dry_run=dry_run)
        self._taken[name] = path.name
        return outcome

    def handle(self, *, directory: Path, dry_run: bool, **options: Any) -> None:
        if not directory.is_dir():
            raise CommandError(f"{directory} is not a directory. Name the one that holds the files.")
        outcomes: Counter[str] = Counter()
        try:
            paths = sorted(directory.iterdir())
        except OSError as error:
            raise CommandError(f"{directory} cannot be read: {error.strerror}. Run this as a user who may.") from error
        with bulk_change():
            for path in paths:
                outcomes[self._report(path, dry_run)] += 1
        names = ["taken", "replaced", "unchanged", "refused", *(["passed over"] if outcomes["passed over"] else [])]
        summary = ", ".join(f"{outcomes[name]} {name}" for name in names)
        self.stdout.write(f"{summary}{'; nothing was changed (--dry-run)' if dry_run else ''}")
        if outcomes["refused"]:
            raise CommandError("Some files were refused. Correct them, then run this again: it goes on where it was.")

    def _report(self, path: Path, dry_run: bool) -> str:
        if reason := _why_passed_over(path):
            self.stderr.write(f"{path.name!r}: passed over: {reason}")
            return "passed over"
        try:
            outcome = self.import_file(path, dry_run=dry_run)
        except (ValidationError, MirrorError, OSError) as error:
            reason = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            self.stderr.write(f"{path.name!r}: refused: {reason}")
            return "refused"
        self.stdout.write(f"{path.name}: {outcome}")
        return outcome


def _why_passed_over(path: Path) -> str | None:
    """Say why something in the directory is no file to take; None for what is one."""
    if path.name.startswith("."):
        return "its name starts with a dot."
    if path.is_file():
        return None
    if path.is_dir():
        return "it is a directory. What is in it needs an import of its own."
    if path.is_symlink():
        return "it is a link that leads nowhere. Put the file there, or remove the link."
    return "it is no regular file."
