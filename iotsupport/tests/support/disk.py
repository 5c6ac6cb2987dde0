"""A small disk that a test may fill, make read-only, and cut the power of."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import time
from pathlib import Path
from typing import Self

from iotsupport.tests.support.waiting import eventually, looks


class Disk:
    """A tmpfs. A context manager; entering it raises ``CalledProcessError`` where mounting is not allowed."""

    def __init__(self, path: Path, size_kib: int = 1024) -> None:
        self.path = path
        self._size_kib = size_kib

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        self._mount()
        return self

    def _mount(self) -> None:
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size_kib}k", "tmpfs", str(self.path))

    def __exit__(self, *exception: object) -> None:
        _run("umount", "--lazy", str(self.path))

    def fill(self) -> None:
        """Leave no room, not even for one more byte in a new file."""
        with (self.path / "filler").open("wb", buffering=0) as filler:
            while _fill(filler):  # what is synced gives back what was put by for it
                os.fsync(filler.fileno())

    def free(self) -> None:
        """Make room again. Idempotent."""
        (self.path / "filler").unlink(missing_ok=True)

    def make_read_only(self) -> None:
        # Refused while somebody writes: what was answered may have a temporary file that is about to go.
        for may_come in looks():
            try:
                _run("mount", "-o", "remount,ro", str(self.path))
                return
            except subprocess.CalledProcessError:
                if not may_come:
                    raise

    def make_writable(self) -> None:
        _run("mount", "-o", "remount,rw", str(self.path))


class Image(Disk):
    """An ext4 file system in a file, as on a disk. A context manager, as :class:`Disk` is."""

    def __init__(self, path: Path, size_kib: int = 64 * 1024) -> None:
        super().__init__(path, size_kib)
        self._file = path.with_suffix(".img")
        self._copies = 0
        self._is_read_only = False

    def _mount(self) -> None:
        if not self._file.exists():
            with self._file.open("wb") as file:
                file.truncate(self._size_kib * 1024)
            # All of it now, so that the kernel does not go on writing in the background.
            _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._file))
        # What is not synced stays in memory, however long: the default would bring it to the disk after five seconds.
        _run("mount", "-o", "loop,commit=3600", str(self._file), str(self.path))

    def __exit__(self, *exception: object) -> None:
        while self.path.is_mount():  # more than once where it is read-only
            _run("umount", "--lazy", str(self.path))
        self._file.unlink()

    def make_read_only(self) -> None:
        """Also while files are open for writing, which go on: as where an error makes the kernel do it."""
        _run("mount", "--bind", str(self.path), str(self.path))
        # Not while a file is open for writing that was opened since: those are open for moments.
        eventually(lambda: _runs("mount", "-o", "remount,bind,ro", str(self.path)))
        self._is_read_only = True

    def make_writable(self) -> None:
        """Idempotent."""
        if self._is_read_only:
            _run("umount", "--lazy", str(self.path))
            self._is_read_only = False

    def sync(self) -> None:
        """Bring all that was written so far to the disk."""
        _run("sync", "--file-system", str(self.path))

    def look(self) -> Path:
        """Return a copy of what would be on the disk if the power were cut now.

        Whatever writes there is stopped: nothing is written while it is copied, so it is of one moment.
        """
        self._copies += 1
        copy = self._file.with_suffix(f".{self._copies}")
        deadline = time.monotonic() + 60
        while True:
            before = self._writes()
            _run("cp", "--sparse=always", str(self._file), str(copy))
            if self._writes() == before:
                return copy
            assert time.monotonic() < deadline, "Something writes to the disk all the time."

    def replace(self, copy: Path) -> None:
        """Mount such a copy in its place, as the machine does when there is power again. Nobody uses it any more."""
        _run("umount", "--lazy", str(self.path))
        copy.replace(self._file)
        self._mount()

    def _writes(self) -> tuple[str, str]:
        """How many writes have ended, and how many operations are on their way (Documentation/block/stat)."""
        device = _run("findmnt", "--noheadings", "--output", "SOURCE", str(self.path)).strip()
        fields = Path(f"/sys/block/{Path(device).name}/stat").read_text().split()
        return fields[4], fields[8]


def _fill(file: io.FileIO) -> bool:
    """Write until there is no room; return whether there was some."""
    begin = file.tell()
    for size in [4096, 512]:  # a small file would fit into what is left of the larger ones
        try:
            while True:
                file.write(b"\0" * size)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return file.tell() > begin


def may_mount() -> bool:
    """Whether this user may, and the kernel lets it: containers often do not."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _runs(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
