"""The mirror: files on disk that equal rows of the database.

New bytes are written and synced beside their place while the transaction is open, so that a full or read-only disk
refuses the save. After the commit the file is made equal to what its row says *then*: two saves may commit in one
order and get here in the other; see :mod:`iotsupport.mirror.settling`. A reader sees a whole file, old or new.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, Self, TypeVar, cast

from django.apps import apps
from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, storages
from django.db import IntegrityError, models, transaction
from django.utils.deconstruct import deconstructible

logger = logging.getLogger(__name__)

M = TypeVar("M", bound="MirroredModel")

# Never a public name: those do not start with a dot.
TEMPORARY_PREFIX = ".new-"

# Readable by the web server's user. A file that the database does not know is denied this bit, and is not served.
SERVED_MODE = 0o644

CHUNK_BYTES = 1024 * 1024

# How long a change waits for others to change a directory, and between two looks. flock(2) itself would wait for ever.
LOCK_SECONDS = 10.0
LOCK_POLL_SECONDS = 0.002

# Of the machine, or of the host of a container: a random number of each start.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# Where PostgreSQL tells other nodes which files to look at; see iotsupport.mirror.nodes.
CHANNEL = "iotsupport_mirror"


class MirrorError(Exception):
    """Bytes could not be stored. The message is a sentence for a person; nothing was changed."""


class MirrorBehindError(MirrorError):
    """The row is committed, but its file could not be made equal to it. Nothing may be announced."""


class StagedFile:
    """New bytes beside their place: under a random name, locked while they are in flight.

    The file goes with the object unless it was put in place: a transaction that rolls back drops its ``on_commit``
    callbacks, and with them what they hold. What a killed process leaves is not locked, which is how
    :meth:`MirrorStorage.leftovers` knows it.
    """

    # No file object: of what goes together, the garbage collector may close that first, and with it goes the lock.
    _descriptor: int | None = None

    def __init__(self, directory: Path) -> None:
        self._descriptor, self.path = _create_locked(directory)
        self._digest = hashlib.sha256()
        self._in_place = False
        self.size = 0

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]
        self._digest.update(chunk)
        self.size += len(chunk)

    def sync(self) -> Self:
        """Bring everything that was written to the disk."""
        os.fsync(self.descriptor)
        return self

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def move(self, target: Path) -> None:
        """Take the place of ``target``, at once."""
        os.replace(self.path, target)
        self.path = target
        self._in_place = True

    def close(self) -> None:
        """Let go; a file that is not in place is removed. Idempotent."""
        if self._descriptor is None:
            return
        try:
            if not self._in_place:
                self.remove()
        except (OSError, MirrorError) as error:
            logger.warning("%s is left until the next start: %s", self.path, error)
        finally:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def remove(self) -> None:
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
        # A sweep took it for a leftover before it was locked.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def try_lock(file: IO[bytes] | int) -> bool:
    """Lock an open file, or a descriptor, for this handle, unless another one has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _give_to_owner(path: Path) -> None:
    """Let a command that root runs leave nothing behind that the server's user cannot open; SQLite does the same."""
    if os.geteuid() == 0:
        owner = os.stat(settings.DATA_DIR)
        os.chown(path, owner.st_uid, owner.st_gid)


@deconstructible(path="iotsupport.mirror.rows.MirrorStorage")
class MirrorStorage(FileSystemStorage):
    """A directory of files that are replaced whole: written beside, synced, renamed."""

    def __init__(self, location: str | os.PathLike[str], label: str = "mirror") -> None:
        super().__init__(location=location, allow_overwrite=True, file_permissions_mode=SERVED_MODE)
        self.label = label
        self._locked = threading.local()

    @property
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
        with self.explained():
            staged = StagedFile(self.directory)
            try:
                for chunk in chunks:
                    staged.write(chunk)
                return staged.sync()
            except BaseException:
                # Now: a traceback may keep the object, and what fills the disk, for a while.
                staged.close()
                raise

    def put(self, staged: StagedFile, name: str) -> None:
        """Give staged bytes their name.

        The directory is not synced, which would double the time of a save: after a power cut the start-up makes the
        file equal to its row again, and calls back the devices that got the old one meanwhile.
        """
        target = Path(self.path(name))
        now = time.time_ns()
        with suppress(FileNotFoundError):
            # HTTP dates count seconds: no version may have the date of an earlier one of the same second.
            now = max(now, (target.stat().st_mtime_ns // 10**9 + 1) * 10**9 + now % 10**9)
        os.utime(staged.path, ns=(now, now))
        staged.move(target)
        staged.close()

    def _save(self, name: str, content: File[Any]) -> str:
        self.put(self.stage(content.chunks()), name)
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
            # A file is not removed because nothing is found where its directory was: it may come back with it.
            self.check_there()
            try:
                self._locked.here = True
                yield
            finally:
                self._locked.here = False

    @property
    def lock_path(self) -> Path:
        """Not the directory itself, which other users may read, and so lock: a file that is this user's alone."""
        digest = hashlib.sha256(os.fsencode(os.path.realpath(self.location))).hexdigest()
        return Path(settings.DATA_DIR) / "locks" / f"{self.directory.name}-{digest[:16]}.lock"

    def _open_lock(self) -> IO[bytes]:
        path = self.lock_path
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                _give_to_owner(path.parent)
            # Not for writing: that may be impossible, and others must go on.
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _give_to_owner(path)
        except OSError as error:
            logger.warning("%s cannot be used: %s", path, error)
            raise MirrorError(explain(error, "DATA_DIR")) from error
        return os.fdopen(descriptor, "rb")

    def _wait_for(self, file: IO[bytes]) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        while not try_lock(file):
            if time.monotonic() >= deadline:
                message = (
                    f"Another process keeps the {self.label} directory locked. Try again in a moment; if that does not"
                    f" help, find out which one has {self.lock_path} open, and end it."
                )
                raise MirrorError(message)
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
            # Root may everything but write to a read-only file system, so ask for the reason.
            code = errno.EACCES if self.directory.is_dir() else errno.ENOENT
            raise MirrorError(explain(OSError(code, os.strerror(code)), self.label))

    def probe(self) -> None:
        """Write a little and remove it again. Raises :class:`MirrorError`."""
        with self.explained():
            staged = StagedFile(self.directory)
            try:
                staged.write(b"\0" * 4096)
                staged.sync()
            finally:
                staged.close()


def mirror_storage(alias: str) -> MirrorStorage:
    """The storage of this name in ``STORAGES``."""
    return cast(MirrorStorage, storages[alias])


def explain(error: OSError, label: str) -> str:
    """One sentence on why bytes could not be stored, and what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"No room is left on the disk of the {label} directory. Free some space there, then try again."
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return f"The {label} directory cannot be written. Make it writable for the server's user, then try again."
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return f"The {label} directory is missing. Create it for the server's user, then try again."
    return f"The {label} directory cannot be used ({error.strerror}). Repair it, then try again."


class MirroredManager(models.Manager[M]):
    def create_or_replace(
        self, change: Callable[[M], None], *, check: Callable[[M | None], None] = lambda current: None, **name: str
    ) -> M:
        """Save the row of this name, new or again, as ``change`` leaves it.

        ``check`` sees what is there now, and raises to refuse; nobody can change it in between.
        """
        try:
            return self._try_to_replace(change, check, name)
        except IntegrityError:
            # Created by somebody else at the same moment: now there is something to replace.
            return self._try_to_replace(change, check, name)

    def _try_to_replace(
        self, change: Callable[[M], None], check: Callable[[M | None], None], name: dict[str, str]
    ) -> M:
        with transaction.atomic():
            current = self.select_for_update().filter(**name).first()
            check(current)
            row = current or self.model(**name)
            change(row)
            row.save()
        return row


class MirroredModel(models.Model):
    """A row whose bytes are mirrored as one file."""

    storage_alias: ClassVar[str]
    filename: Any

    # What the row's file was called when the row was read.
    known_filename: str | None = None

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        # Outside a transaction, Django commits before it sends post_save: too late to refuse.
        with transaction.atomic(using=kwargs.get("using")):
            super().save(*args, **kwargs)

    @classmethod
    def storage(cls) -> MirrorStorage:
        return mirror_storage(cls.storage_alias)

    @classmethod
    def with_filename(cls, filename: str, using: str) -> Self | None:
        """The row that is mirrored under this name, as the database has it now."""
        raise NotImplementedError

    @classmethod
    def saved_sha256s(cls, filenames: Sequence[str], using: str) -> dict[str, str]:
        """SHA-256 of what the database has now for those of these file names that are this model's: in one query.

        Every save asks this once, after its commit.
        """
        raise NotImplementedError

    @classmethod
    def remembers(cls, filename: str, sha256: str) -> bool:
        """Whether these bytes were once mirrored under this name, and the history keeps them."""
        raise NotImplementedError

    @property
    def content_sha256(self) -> str:
        """SHA-256 of the mirrored bytes, in hexadecimal."""
        raise NotImplementedError

    @classmethod
    def collect_garbage(cls) -> list[str]:
        """Remove bytes that no version needs; called at start-up and by ``sync_mirror``. Returns what went."""
        return []

    def stage(self) -> StagedFile:
        """Write this row's bytes beside their place. Raises :class:`MirrorError`."""
        raise NotImplementedError

    def is_mirrored(self) -> bool:
        return self.storage().matches(self.filename, self.content_sha256)

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Self:
        row = super().from_db(*args, **kwargs)
        if not row.get_deferred_fields():
            row.known_filename = row.filename
        return row


def node_of(storage: MirrorStorage) -> str:
    """Tell mirrors apart, on one machine and across machines. No two names are one directory's."""
    directory = storage.directory.stat()
    # Where the kernel has none, a name has to do. Who takes another node's saves for its own follows, too: later.
    machine = BOOT_ID.read_text().strip() if BOOT_ID.exists() else platform.node()
    return f"{machine}:{directory.st_dev}:{directory.st_ino}"


def mirrored_models() -> list[type[MirroredModel]]:
    """Every model whose rows are mirrored."""
    return [model for model in apps.get_models() if issubclass(model, MirroredModel)]


@dataclass
class Differences:
    """What a comparison of rows and files found; each list holds file names."""

    written: list[str] = field(default_factory=list)
    """Missing or different: (to be) written."""
    removed: list[str] = field(default_factory=list)
    """Left by a deleted row; the history has these bytes: (to be) removed."""
    unknown: list[str] = field(default_factory=list)
    """Not known to the database, now or earlier: not served, and kept unless asked otherwise."""
    leftovers: list[str] = field(default_factory=list)
    """Temporary files of processes that were killed: (to be) removed."""
    failed: list[str] = field(default_factory=list)
    """Sentences on what could not be repaired."""

    def __bool__(self) -> bool:
        return any([self.written, self.removed, self.unknown, self.leftovers, self.failed])

    @contextmanager
    def noting_failures(self, storage: MirrorStorage) -> Iterator[None]:
        """Go on with the rest when one thing cannot be read or repaired."""
        try:
            with storage.explained():
                yield
        except MirrorError as error:
            self.failed.append(str(error))


# Makes one file equal to its row: of this model, of this name, in this database.
Write = Callable[[type[MirroredModel], str, str], None]


def reconcile(
    model: type[MirroredModel],
    using: str,
    *,
    repair: bool = True,
    delete_unknown: bool = False,
    write: Write,
) -> Differences:
    """Compare every row with its file, and make the files equal unless ``repair`` is false: by calling ``write``."""
    storage = model.storage()
    found = Differences()
    if repair:
        with found.noting_failures(storage), storage.lock():
            pass  # Its file is there from now on: a full disk would not take it.
    with found.noting_failures(storage):
        found.leftovers = [path.name for path in storage.leftovers(remove=repair)]
    if repair:
        with found.noting_failures(storage):
            found.leftovers += model.collect_garbage()
    expected = set()
    for row in model._base_manager.using(using).iterator(chunk_size=100):
        expected.add(row.filename)
        with found.noting_failures(storage):
            if not row.is_mirrored():
                if repair:
                    write(model, row.filename, using)
                found.written.append(row.filename)
    with found.noting_failures(storage):
        surplus = [name for name in storage.names() if name not in expected]
        for filename in surplus:
            with found.noting_failures(storage), suppress(FileNotFoundError):  # deleted meanwhile
                _judge(found, model, filename, using, repair, delete_unknown, write)
    return found


def _judge(
    found: Differences,
    model: type[MirroredModel],
    filename: str,
    using: str,
    repair: bool,
    delete_unknown: bool,
    write: Write,
) -> None:
    """Decide on a file that had no row when the rows were read."""
    storage = model.storage()
    with open(storage.path(filename), "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if model.with_filename(filename, using) is not None:
        return  # saved meanwhile
    if delete_unknown or model.remembers(filename, sha256):
        if repair:
            write(model, filename, using)
        found.removed.append(filename)
        return
    found.unknown.append(filename)
    if repair:
        _withhold(found, model, filename, using)


def _withhold(found: Differences, model: type[MirroredModel], filename: str, using: str) -> None:
    storage = model.storage()
    try:
        with storage.lock():
            if model.with_filename(filename, using) is None:  # and nobody can put one there now
                storage.withhold(filename)
    except (OSError, MirrorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        found.failed.append(f"{filename} is not known, yet it is served: its mode cannot be changed ({reason}).")
