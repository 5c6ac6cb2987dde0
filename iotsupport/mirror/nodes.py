"""Several servers on one PostgreSQL, each with a mirror of its own: what one saves, the others follow.

A save tells its file's name in its own transaction (``NOTIFY``), so the others hear of it exactly when it is committed.
On each node one process listens, and makes the file equal to its row. After a time without hearing, it compares
everything.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connection, connections

from iotsupport.bulk import bulk_change
from iotsupport.errors import DATABASE_ERRORS
from iotsupport.mirror.after_commit import changed
from iotsupport.mirror.comparison import reconcile
from iotsupport.mirror.files import MirrorError, MirrorStorage, mirror_storage
from iotsupport.mirror.following import follow
from iotsupport.mirror.rows import MirroredModel, mirrored_models
from iotsupport.monitoring.logs import AT_LENGTH
from iotsupport.threads import Background

logger = logging.getLogger(__name__)

CHANNEL = "iotsupport_mirror"

# Of the machine, or of the host of a container: a random number of each start.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# How often what could not be followed is tried again, and a lost database.
RETRY_SECONDS = 1.0
# So many failures in a row say that the next one fails, too: the rest has its turn a second later.
FAILURES_AT_ONCE = 3

# A process that saved a file here has put it in place by then, or died before it could.
OWN_SECONDS = 2.0

# More within a second than a person saves: announced at the pace of an import.
MANY = 20

# After a comparison with failures the next one waits, and so long that comparing takes a twentieth of the time.
COMPARE_SECONDS = 10.0
COMPARE_FACTOR = 20


def tell_others_of_changes() -> None:
    """From now on, the files that this process changes are told to the other nodes."""
    changed.connect(tell_others, dispatch_uid="iotsupport.tell_others")


def tell_others(sender: type[MirroredModel], filenames: Sequence[str], using: str, **kwargs: Any) -> None:
    """Delivered when the transaction is committed, and never else."""
    node = node_of(mirror_storage(sender.storage_alias))
    with connections[using].cursor() as cursor:
        payloads = [f"{node} {sender.storage_alias} {filename}" for filename in filenames]
        cursor.execute("SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload", [CHANNEL, payloads])


def node_of(storage: MirrorStorage) -> str:
    """Tell mirrors apart, on one machine and across machines. No two names are one directory's."""
    directory = storage.directory.stat()
    # Where the kernel has none, a name has to do. Who takes another node's saves for its own follows, too: later.
    machine = BOOT_ID.read_text().strip() if BOOT_ID.exists() else platform.node()
    return f"{machine}:{directory.st_dev}:{directory.st_ino}"


class Change(NamedTuple):
    model: type[MirroredModel]
    filename: str
    is_own: bool
    """Saved on this node, by a process that sees to the file itself."""


class File(NamedTuple):
    model: type[MirroredModel]
    filename: str


class Look(NamedTuple):
    """When to see whether a file that was saved here is in place, and whether it was found behind before."""

    at: float
    was_behind: bool = False


class Follower(Background):
    """Listens with a connection of its own."""

    def __init__(self) -> None:
        super().__init__("follower")
        self._retries: dict[File, None] = {}  # the first is the next
        self._looks: dict[File, Look] = {}
        self._compare_at = float("inf")
        self._is_in_trouble = False

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            try:
                with open(settings.DATA_DIR / "follower.lock", "ab", opener=_open_privately) as lock:
                    os.fchmod(lock.fileno(), 0o600)  # earlier versions let other users open it, and so lock it
                    # Held until the process ends; then another process of this node gets it.
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    self._is_in_trouble = False
                    while not self._is_stopping.is_set():
                        self._follow_until_lost()
            except OSError as error:
                self._say_trouble("What other servers save is not followed here until that is repaired: %s", error)
                self._is_stopping.wait(RETRY_SECONDS)

    def _follow_until_lost(self) -> None:
        try:
            with _connect() as listening:
                listening.execute(f"LISTEN {CHANNEL}")
                self._catch_up()
                self._is_in_trouble = False
                while not self._is_stopping.is_set():
                    self._hear(listening)
        except (psycopg.Error, *DATABASE_ERRORS) as error:
            self._say_trouble("Other servers cannot be followed until the database answers: %s", error)
        except Exception:
            # Whatever it was: without this thread, nothing would be followed until the next start.
            logger.exception("Following other servers was interrupted; it goes on")
        connection.close()  # a broken one would be broken for ever
        self._is_stopping.wait(RETRY_SECONDS)

    def _say_trouble(self, sentence: str, error: Exception) -> None:
        if not self._is_in_trouble:
            logger.warning(sentence, error, extra=AT_LENGTH)
        self._is_in_trouble = True

    def _hear(self, listening: psycopg.Connection[Any]) -> None:
        """Follow what is heard within a second, then what is left from before."""
        count = 0
        for notification in listening.notifies(timeout=RETRY_SECONDS):
            change = read_change(notification.payload)
            if change is None:
                continue
            if change.is_own:
                self._looks[File(change.model, change.filename)] = Look(time.monotonic() + OWN_SECONDS)
                continue
            count += 1
            with bulk_change() if count > MANY else nullcontext():
                self._follow(File(change.model, change.filename))
        self._try_again()
        self._look_at_own()
        if time.monotonic() >= self._compare_at:
            self._catch_up()
        connection.close()  # back to the pool: requests need it more
        # Without a question, a connection that nobody serves any more would look like a quiet one.
        listening.execute("SELECT 1")

    def _catch_up(self) -> None:
        """Compare everything: what was changed while nobody listened is not told again."""
        start = time.monotonic()
        failed = []
        with bulk_change():
            for model in mirrored_models():
                failed += reconcile(model, DEFAULT_DB_ALIAS, write=follow).failed
        for sentence in failed:
            logger.error("Could not follow the other servers: %s", sentence, extra=AT_LENGTH)
        now = time.monotonic()
        self._compare_at = now + max(COMPARE_SECONDS, COMPARE_FACTOR * (now - start)) if failed else float("inf")

    def _try_again(self) -> None:
        failures = 0
        for file in list(self._retries):
            failures += not self._follow(file)
            if failures == FAILURES_AT_ONCE:
                return

    def _look_at_own(self) -> None:
        """See to files whose process died, or failed, after the commit.

        It may be announced already: by a node that followed. One that is found behind may have been saved again in
        this moment, so it is looked at once more, unless that save is heard first.
        """
        now = time.monotonic()
        for file, look in list(self._looks.items()):
            if look.at > now:
                continue
            del self._looks[file]
            if look.was_behind:
                self._follow(file)
            elif not _is_equal(file):
                self._looks[file] = Look(now + OWN_SECONDS, was_behind=True)

    def _follow(self, file: File) -> bool:
        """Return whether that worked; what did not is tried again, after everything else."""
        is_new = file not in self._retries
        self._retries.pop(file, None)
        try:
            follow(*file, DEFAULT_DB_ALIAS)
        except (MirrorError, OSError) as error:
            if is_new:
                sentence = "%s was saved, but cannot be followed here yet: %s"
                logger.error(sentence, file.filename, error, extra=AT_LENGTH)
            self._retries[file] = None
            return False
        return True


def _is_equal(file: File) -> bool:
    row = file.model.with_filename(file.filename, DEFAULT_DB_ALIAS)
    try:
        if row is None:
            return not mirror_storage(file.model.storage_alias).exists(file.filename)
        return row.is_mirrored()
    except OSError:
        return False


def read_change(payload: str) -> Change | None:
    """What was saved or deleted on a node; None for what is not known here."""
    node, _, rest = payload.partition(" ")
    alias, _, filename = rest.partition(" ")
    for model in mirrored_models():
        if model.storage_alias == alias:
            return Change(model, filename, is_own=node == _node_here(model))
    return None


def _node_here(model: type[MirroredModel]) -> str:
    try:
        return node_of(mirror_storage(model.storage_alias))
    except OSError:
        return ""  # the directory is missing: whatever is followed, fails, and is tried again


def _open_privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _connect() -> psycopg.Connection[Any]:
    """A connection apart from those that serve requests: it waits."""
    params = connection.get_connection_params()
    params.pop("pool", None)
    return psycopg.connect(**params, autocommit=True)
