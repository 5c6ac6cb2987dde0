"""Files that are replaced whole: new bytes are written and synced beside their place, then given their name.

A reader sees a whole file, old or new. What can go wrong with a disk does so while the bytes are written, before
anything is changed, and is told in a sentence: :class:`MirrorError`.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from functools import cache
from pathlib import Path
from typing import IO, Any, Self, cast

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, storages
from django.utils.deconstruct import deconstructible
from django.utils.functional import cached_property

from iotsupport.mirror.explaining import explain
from iotsupport.mirror.locks import lock_path, open_lock, try_lock

logger = logging.getLogger(__name__)

# Never a public name: those do not start with a dot.
TEMPORARY_PREFIX = ".new-"

# Readable by the web server's user. A file that the database does not know is denied this bit, and is not served. With
# the bits that else make programs of files, rows say what downloads have to know without a database.
SERVED_MODE, MARKS = 0o644, 0o111

CHUNK_BYTES = 1024 * 1024

# How long a change waits for others to change a directory, and between two looks. flock(2) itself would wait for ever.
LOCK_SECONDS, LOCK_POLL_SECONDS = 10.0, 0.002


class MirrorError(Exception):
    """Bytes could not be stored. The message is a sentence for a person; nothing was changed."""


class MirrorBehindError(MirrorError):
    """Rows are committed, but their files could not be made equal to them. Nothing may be announced."""

    sentences: Mapping[str, str] = {}  # one for each file, by its name


class State(Enum):
    """How far new bytes have come."""

    STAGED = "beside their place, under a random name"
    KEPT = "in their place, until the transaction that brought them is rolled back"
    IN_PLACE = "in their place, for good"


class StagedFile:
    """New bytes beside their place: under a random name, locked while they are in flight.

    The file goes with the object unless it is in place for good: a transaction that rolls back drops its ``on_commit``
    callbacks, and with them what they hold. What a killed process leaves is not locked, which is how
    :meth:`MirrorStorage.leftovers` knows it. What goes wrong with the disk is a :class:`MirrorError`.
    """

    state = State.STAGED
    mode = SERVED_MODE

    # No file object: of what goes together, the garbage collector may close that first, and with it goes the lock.
    _descriptor: int | None = None

    def __init__(self, storage: MirrorStorage) -> None:
        self._storage = storage
        with storage.explained():
            self._descriptor, self.path = _create_locked(storage.directory)
        self._digest, self.size = hashlib.sha256(), 0

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        with self._storage.explained():
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
        self._digest.update(chunk)
        self.size += len(chunk)

    def sync(self) -> Self:
        """Bring everything that was written to the disk."""
        with self._storage.explained():
            os.fsync(self.descriptor)
        return self

    def hold(self, name: str) -> None:
        """Have this name, unless the object goes; what had it before is replaced for good."""
        with self._storage.explained(), self._storage.lock():
            target = Path(self._storage.path(name))
            self.move(target, State.IN_PLACE if target.exists() else State.KEPT)

    def set_mode(self, mode: int) -> None:
        with self._storage.explained():
            os.fchmod(self.descriptor, mode)
        self.mode = mode

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def move(self, target: Path, state: State = State.IN_PLACE) -> None:
        """Take the place of ``target``, at once."""
        os.replace(self.path, target)
        self.path, self.state = target, state

    def stay(self) -> None:
        """Be in place for good."""
        self.state = State.IN_PLACE
        self.close()

    def close(self) -> None:
        """Let go; a file that is not in place for good is removed. Idempotent."""
        if self._descriptor is None:
            return
        try:
            if self.state is not State.IN_PLACE:
                self.remove()
        except (OSError, MirrorError) as error:
            logger.warning("%s is left until the next start: %s", self.path, error)
        finally:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def remove(self) -> None:
        """Called once, by :meth:`close`."""
        self.path.unlink(missing_ok=True)

    @property
    def descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError("The staged file is closed.")
        return self._descriptor


def _create_locked(directory: Path) -> tuple[int, Path]:
    while True:
        path = directory / f"{TEMPORARY_PREFIX}{secrets.token_hex(16)}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, SERVED_MODE)  # whatever the umask says
        if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
            return descriptor, path
        path.unlink(missing_ok=True)  # a sweep took it for a leftover before it was locked
        os.close(descriptor)


@deconstructible(path="iotsupport.mirror.files.MirrorStorage")
class MirrorStorage(FileSystemStorage):
    """A directory of files that are replaced whole: written beside, synced, renamed."""

    def __init__(self, location: str | os.PathLike[str], label: str = "mirror") -> None:
        super().__init__(location=location, allow_overwrite=True, file_permissions_mode=SERVED_MODE)
        self.label = label
        self._locked = threading.local()

    @cached_property
    def directory(self) -> Path:
        return Path(self.location)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the operating system says into a sentence: raises :class:`MirrorError`."""
        try:
            yield
        except OSError as error:
            logger.warning("The %s directory cannot be written: %s", self.label, error)
            raise MirrorError(explain(error, self.label)) from error

    def stage(self, chunks: Iterable[bytes]) -> StagedFile:
        """Write and sync new bytes beside their place. Raises :class:`MirrorError`."""
        staged = StagedFile(self)
        try:
            with self.explained():
                for chunk in chunks:
                    staged.write(chunk)
                return staged.sync()
        except BaseException:
            staged.close()  # now: a traceback may keep the object, and what fills the disk, for a while
            raise

    def replace(self, name: str, staged: StagedFile) -> None:
        """Give staged bytes their name.

        The directory is not synced, which would double the time of a save: after a power cut the start-up makes the
        file equal to its row again, and calls back the devices that got the old one meanwhile.
        """
        target, now = Path(self.path(name)), time.time_ns()
        with suppress(FileNotFoundError):
            # HTTP dates count seconds: no version may have the date of an earlier one of the same second.
            now = max(now, (target.stat().st_mtime_ns // 10**9 + 1) * 10**9 + now % 10**9)
        os.utime(staged.path, ns=(now, now))
        staged.move(target)
        staged.close()

    def _save(self, name: str, content: File[Any]) -> str:
        self.replace(name, self.stage(content.chunks()))
        return name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process and thread from changing the directory's names meanwhile.

        Re-entrant: the garbage collector may run while it is held, and close a staged file that needs it too. Raises
        :class:`MirrorError` where that cannot be had in time.
        """
        if getattr(self._locked, "here", False):
            yield
            return
        with self._open_lock() as file:
            self._wait_for(file)
            self.check_there()  # what is not found may come back with its directory
            try:
                self._locked.here = True
                yield
            finally:
                self._locked.here = False

    @property
    def lock_path(self) -> Path:
        # Not the directory itself, which other users may read, and so lock.
        return _lock_path(settings.DATA_DIR, self.directory.name, os.path.realpath(self.location))

    def _open_lock(self) -> IO[bytes]:
        path = self.lock_path
        try:
            return open(open_lock(path), "rb")
        except OSError as error:
            logger.warning("%s cannot be used: %s", path, error)
            raise MirrorError(explain(error, "DATA_DIR")) from error

    def _wait_for(self, file: IO[bytes]) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        while not try_lock(file):
            if time.monotonic() >= deadline:
                raise MirrorError(
                    f"Another process keeps the {self.label} directory locked. Try again in a moment; if that does not"
                    f" help, find out which one has {self.lock_path} open, and end it."
                )
            time.sleep(LOCK_POLL_SECONDS)

    def names(self) -> list[str]:
        """Public names, sorted."""
        with os.scandir(self.directory) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file(follow_symlinks=False))

    def matches(self, name: str, sha256: str) -> bool:
        """Whether the file has these bytes, and may be served."""
        try:
            with open(self.path(name), "rb") as file:
                served = os.fstat(file.fileno()).st_mode & 0o004
                return bool(served) and hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return False

    def has_marks(self, name: str, mode: int) -> bool:
        return not (os.stat(self.path(name)).st_mode ^ mode) & MARKS

    def mark(self, name: str, mode: int) -> None:
        """Change what a file's mode says. Its date stays, and with it the ETag that nginx makes."""
        if not self.has_marks(name, mode):
            os.chmod(self.path(name), mode)

    def withhold(self, name: str) -> None:
        """Keep a file, but let nobody download it."""
        path = Path(self.path(name))
        path.chmod(path.stat().st_mode & ~0o044)

    def leftovers(self, *, remove: bool = False) -> list[Path]:
        """Temporary files that no process holds: what killed ones left behind."""
        found = []
        for path in self.directory.glob(f"{TEMPORARY_PREFIX}*"):
            try:
                with path.open("rb") as file:
                    if not try_lock(file):
                        continue
                    found.append(path)
                    if remove:  # while it is locked: a process that has just made it then makes another
                        path.unlink()
            except FileNotFoundError:
                continue
        return found

    def check_there(self) -> None:
        """Raise :class:`MirrorError` where there is no directory: nothing is known of its files then."""
        if not self.directory.is_dir():
            raise MirrorError(explain(OSError(errno.ENOENT, os.strerror(errno.ENOENT)), self.label))

    def check_writable(self) -> None:
        """Raise :class:`MirrorError` unless names can be changed here. Costs one system call."""
        if not os.access(self.directory, os.W_OK | os.X_OK):
            self.check_there()
            raise MirrorError(explain(OSError(errno.EACCES, os.strerror(errno.EACCES)), self.label))

    def probe(self) -> None:
        """Write a little and remove it again. Raises :class:`MirrorError`."""
        self.stage([b"\0" * 4096]).close()


@cache
def _lock_path(data_dir: Path, name: str, real_path: str) -> Path:
    return lock_path(data_dir, f"{name}-{hashlib.sha256(os.fsencode(real_path)).hexdigest()[:16]}")


def mirror_storage(alias: str) -> MirrorStorage:
    """The storage of this name in ``STORAGES``."""
    return cast(MirrorStorage, storages[alias])
