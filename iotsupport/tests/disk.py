"""A small disk that a test may fill and make read-only."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

from iotsupport.tests.mosquitto import LIMIT


class Disk:
    """A tmpfs. A context manager; entering it raises ``CalledProcessError`` where mounting is not allowed."""

    def __init__(self, path: Path, size_kib: int = 1024) -> None:
        self.path = path
        self._size_kib = size_kib

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size_kib}k", "tmpfs", str(self.path))
        return self

    def __exit__(self, *exception: object) -> None:
        _run("umount", "--lazy", str(self.path))

    def fill(self) -> None:
        """Leave no room, not even for one more byte in a new file."""
        with (self.path / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"\0" * 4096)
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def free(self) -> None:
        """Make room again. Idempotent."""
        (self.path / "filler").unlink(missing_ok=True)

    def make_read_only(self) -> None:
        # Refused while somebody writes: what was answered may have a temporary file that is about to go.
        deadline, pause = time.monotonic() + LIMIT, threading.Event()
        while True:
            try:
                return _run("mount", "-o", "remount,ro", str(self.path))
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
            pause.wait(0.01)

    def make_writable(self) -> None:
        _run("mount", "-o", "remount,rw", str(self.path))


def may_mount() -> bool:
    """Whether this user may, and the kernel lets it: containers often do not."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
