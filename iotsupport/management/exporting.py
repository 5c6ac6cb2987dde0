"""What the commands share that write files into a directory, for scripts and for people who keep them in git."""

from __future__ import annotations

import argparse
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from iotsupport.checks import INSTALLATION
from iotsupport.management.progress import Progress
from iotsupport.mirror.files import CHUNK_BYTES, MirrorError, MirrorStorage, mirror_storage
from iotsupport.mirror.together import stage_together
from iotsupport.transfer.zipping import ZippedFile

# So many are on their way to the disk together.
TOGETHER = 100


class ExportCommand(BaseCommand, ABC):
    """Makes files in a directory equal to rows. Those that are equal already are not touched."""

    requires_system_checks = INSTALLATION
    # Where there are files below the directory.
    directories: ClassVar[list[str]] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("directory", metavar="DIR", type=Path, help="made where it is missing")
        parser.add_argument("--delete", action="store_true", help="also remove the files of what was deleted")

    @abstractmethod
    def count(self) -> int:
        """About how many files there are."""

    @abstractmethod
    def files(self) -> Iterator[ZippedFile]:
        """Each of them."""

    @abstractmethod
    def is_ours(self, name: str) -> bool:
        """Whether a file of this name, which is none of these, can only be one of something that was deleted."""

    def handle(self, *, directory: Path, delete: bool, verbosity: int, **options: Any) -> None:
        _check(directory)
        self._outcomes: Counter[str] = Counter()
        self._is_brief = self.stdout.isatty() and verbosity < 2
        self._progress = Progress(self.stdout, self.count())
        names: set[str] = set()
        files = self.files()
        try:
            directory.mkdir(exist_ok=True)
            for path in MirrorStorage(directory).leftovers(remove=True):
                self._say(path.name, "removed: left by a killed process")
            while some := list(islice(files, TOGETHER)):
                names.update(file.name for file in some)
                self._write(directory, some)
            self._look_for_others(directory, names, delete)
        except (OSError, MirrorError) as error:
            self._progress.clear()
            raise CommandError(f"{directory} cannot be written: {error} What was written until then stays.") from error
        self._progress.clear()
        counts = self._outcomes
        said = [f"{counts[name]} {name}" for name in ["new", "changed", "unchanged", "removed"]]
        self.stdout.write(", ".join(said))

    def _write(self, directory: Path, files: list[ZippedFile]) -> None:
        differing: list[ZippedFile] = []
        for file in files:
            target = directory / file.name
            if not target.is_symlink() and _is_same(target, file):
                self._outcomes["unchanged"] += 1
            else:
                differing.append(file)
                self._say(file.name, "changed" if os.path.lexists(target) else "new")
        by_directory: dict[Path, list[ZippedFile]] = {}
        for file in differing:
            by_directory.setdefault((directory / file.name).parent, []).append(file)
        for parent, group in by_directory.items():
            parent.mkdir(exist_ok=True)
            storage = MirrorStorage(parent, label="export")
            staged = stage_together(storage, [file.read() for file in group])
            for file, each in zip(group, staged, strict=True):
                each.move(directory / file.name)
                each.close()
        self._progress.show(self._outcomes.total())

    def _look_for_others(self, directory: Path, names: set[str], delete: bool) -> None:
        found = [path for name in ["", *self.directories] for path in directory.glob(f"{name}/*" if name else "*")]
        for path in sorted(found):
            name = path.relative_to(directory).as_posix()
            if name in names or not path.is_file() or not self.is_ours(name):
                continue
            if delete:
                path.unlink()
                self._say(name, "removed")
            else:
                self._progress.clear()
                self.stderr.write(f"{name}: it was deleted; --delete removes it.")

    def _say(self, name: str, outcome: str) -> None:
        self._outcomes[outcome.partition(":")[0]] += 1
        if not self._is_brief:
            self.stdout.write(f"{name}: {outcome}")


def _check(directory: Path) -> None:
    """Raise :class:`CommandError` for what is no directory, or one of ours: there, files follow rows by themselves."""
    if directory.exists() and not directory.is_dir():
        raise CommandError(f"{directory} is not a directory. Name one for the files, or one that is to be made.")
    if not directory.parent.is_dir():
        raise CommandError(f"{directory.parent} is missing. Make it first, or name another directory.")
    own = [settings.DATA_DIR, *(mirror_storage(alias).directory for alias in ["configs", "assets", "blobs"])]
    real = Path(os.path.realpath(directory))
    for each in own:
        if real.is_relative_to(os.path.realpath(each)):
            raise CommandError(f"{directory} is in {each}, which is the server's own. Name another directory.")


def _is_same(path: Path, file: ZippedFile) -> bool:
    """Whether these bytes are there. Compared bit by bit: it may be larger than memory."""
    try:
        with path.open("rb") as there:
            if os.fstat(there.fileno()).st_size != file.size:
                return False
            return all(there.read(len(chunk)) == chunk for chunk in _chunks(file.read()))
    except (FileNotFoundError, IsADirectoryError):
        return False


def _chunks(parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in parts:
        for start in range(0, len(part), CHUNK_BYTES):
            yield part[start : start + CHUNK_BYTES]
