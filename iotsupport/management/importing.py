"""What the commands share that take over the files of a directory."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from iotsupport.bulk import bulk_change
from iotsupport.checks import INSTALLATION
from iotsupport.editing.origins import Origin, changing
from iotsupport.management.progress import Progress


class Taken(NamedTuple):
    """What became of one file."""

    outcome: str
    """``taken``, ``replaced``, ``unchanged``, ``refused`` or ``passed over``."""
    reason: str = ""
    warnings: Sequence[str] = ()


def refused(error: Exception) -> Taken:
    return Taken("refused", " ".join(error.messages) if isinstance(error, ValidationError) else str(error))


class ImportCommand(BaseCommand, ABC):
    """Takes over a directory; says of each file whether it was taken, replaced, unchanged, or refused and why."""

    requires_system_checks = INSTALLATION
    # So many files are taken over at a time.
    together = 1
    # What is said of a second file of one name.
    has_same_name = "has the same name"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outcomes: Counter[str] = Counter()
        self._names: dict[str, str] = {}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("directory", metavar="DIR", type=Path)
        parser.add_argument("--dry-run", action="store_true", help="only report what would happen")

    @abstractmethod
    def name_of(self, path: Path) -> str:
        """Return the name under which a file would be kept: of two files with the same one, the first is taken."""

    @abstractmethod
    def take(self, paths: Sequence[Path], *, dry_run: bool) -> Iterable[Taken]:
        """Take files with different names, and return what became of each."""

    def read_beside(self, directory: Path, *, dry_run: bool) -> set[str]:
        """Read what lies beside the files, and is about them; return its names."""
        return set()

    def handle(self, *, directory: Path, dry_run: bool, verbosity: int, **options: Any) -> None:
        if not directory.is_dir():
            raise CommandError(f"{directory} is not a directory. Name the one that holds the files.")
        try:
            paths = sorted(directory.iterdir())
        except OSError as error:
            raise CommandError(f"{directory} cannot be read: {error.strerror}. Run this as a user who may.") from error
        # Where somebody watches, thousands of lines about what is well would hide the others.
        self._is_brief = self.stdout.isatty() and verbosity < 2
        self._progress = Progress(self.stdout, len(paths))
        with bulk_change(), changing(Origin(part_of="import")):
            read = self.read_beside(directory, dry_run=dry_run)
            self._take_all([path for path in paths if path.name not in read], dry_run)
        self._progress.clear()
        self._summarise(dry_run)

    def _take_all(self, paths: list[Path], dry_run: bool) -> None:
        waiting: dict[Path, Taken | None] = {}  # None where it is still to be taken
        names: dict[str, Path] = {}
        for path in paths:
            name = ""
            taken = _pass_over(path)
            if taken is None:
                try:
                    name = self.name_of(path)
                except ValidationError as error:
                    taken = refused(error)
            if len(names) >= self.together or name in names:
                self._finish(waiting, names, dry_run)
                waiting, names = {}, {}
            if taken is None and name in self._names:
                reason = f"{self._names[name]!a} {self.has_same_name}. Remove one of the two."
                taken = Taken("refused", reason)
            if taken is None:
                names[name] = path
            waiting[path] = taken
        self._finish(waiting, names, dry_run)

    def _finish(self, waiting: dict[Path, Taken | None], names: dict[str, Path], dry_run: bool) -> None:
        """Take those that wait for it, and report of all of them, in their order."""
        for (name, path), taken in zip(names.items(), self.take(list(names.values()), dry_run=dry_run), strict=True):
            waiting[path] = taken
            if taken.outcome != "refused":
                self._names[name] = path.name
        for path, outcome in waiting.items():
            if outcome is not None:  # all are something by now
                self.report(path.name, outcome)
        self._progress.show(self._outcomes.total())

    def report(self, name: str, taken: Taken) -> None:
        self._outcomes[taken.outcome] += 1
        if taken.reason:
            self._progress.clear()
            self.stderr.write(f"{name!r}: {taken.outcome}: {taken.reason}")
        elif not self._is_brief:
            self.stdout.write(f"{name}: {taken.outcome}")
        for warning in taken.warnings:
            self._progress.clear()
            self.stderr.write(f"{name!r}: warning: {warning}")

    def _summarise(self, dry_run: bool) -> None:
        outcomes = self._outcomes
        names = ["taken", "replaced", "unchanged", "refused", *(["passed over"] if outcomes["passed over"] else [])]
        summary = ", ".join(f"{outcomes[name]} {name}" for name in names)
        self.stdout.write(f"{summary}{'; nothing was changed (--dry-run)' if dry_run else ''}")
        if outcomes["refused"]:
            raise CommandError("Some files were refused. Correct them, then run this again: it goes on where it was.")


def _pass_over(path: Path) -> Taken | None:
    """Say why something in the directory is no file to take; None for what is one."""
    if path.name.startswith("."):
        return Taken("passed over", "its name starts with a dot.")
    if path.is_file():
        return None
    if path.is_dir():
        return Taken("passed over", "it is a directory. What is in it needs an import of its own.")
    if path.is_symlink():
        return Taken("passed over", "it is a link that leads nowhere. Put the file there, or remove the link.")
    return Taken("passed over", "it is no regular file.")
