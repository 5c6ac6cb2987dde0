"""One server serves a data directory: a second one is told which, and does not start. Nor does one while a command has
the directory to itself, such as a restoration.

gunicorn's master holds a lock on a file of the directory for as long as it lives, and writes into it where it can be
found. A master that takes over after SIGUSR2 gets the same lock from the one before; workers give it away at once, so
that none that is left keeps the next start waiting. Nothing here knows of Django.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

FILE_NAME = "server.lock"
# Tells the descriptor to a master that takes over from this one, after SIGUSR2.
VARIABLE = "IOTSUPPORT_LOCK_FD"

# A look at the lock is waited for that long.
PATIENCE_SECONDS, POLL_SECONDS = 2.0, 0.05
# A server that listens no more is about to end: no longer than gunicorn gives it (graceful_timeout), and some.
ENDING_SECONDS, CONNECT_SECONDS = 20.0, 0.5

# Far more than what is written there.
MOST_BYTES = 64 * 1024

_descriptors: list[int] = []
_loaded_at = datetime.now(UTC)


class RunningServer(NamedTuple):
    """A server that serves a data directory."""

    pid: int
    """Of its master; 0 where it has not said so yet."""
    address: str
    """Where it listens, such as ``http://127.0.0.1:8000``; several are separated by commas. Empty: it is a command."""
    started: datetime

    def __str__(self) -> str:
        if not self.pid:
            return "it has just begun, and not said yet where"
        return f"process {self.pid} at {self.address}, started {self.started:%Y-%m-%d %H:%M:%S} UTC"

    @classmethod
    def from_json(cls, said: dict[str, object]) -> Self:
        return cls(int(str(said["pid"])), str(said["address"]), datetime.fromisoformat(str(said["started"])))

    def to_json(self) -> dict[str, object]:
        return {**self._asdict(), "started": self.started.isoformat()}


class TakenError(Exception):
    """Another server serves the directory. The message is a sentence for a person."""


def refusal(data_dir: Path, running: RunningServer) -> str:
    """Say why a second server does not start, and what to do."""
    if running.pid and not running.address:
        return (
            f"A command has DATA_DIR '{data_dir}' to itself: process {running.pid}, started"
            f" {running.started:%Y-%m-%d %H:%M:%S} UTC. Wait for its end, then try again."
        )
    return (
        f"Another server serves DATA_DIR '{data_dir}': {running}. End that one first, or give this one a directory of"
        " its own, such as: DATA_DIR=/tmp/trial"
    )


def take(data_dir: Path) -> None:
    """Hold the lock of a directory from now on, or take it over from the master that started this process.

    Raises :class:`TakenError` where another server has it, and ``OSError`` where it cannot be locked at all.
    """
    if inherited := os.environ.pop(VARIABLE, ""):
        _descriptors[:] = [int(inherited)]
        os.set_inheritable(_descriptors[0], False)
        if _is_of(_descriptors[0], data_dir):
            return
        give_away()  # of the directory that was served before
    file = os.open(data_dir / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _give_to_owner(file, data_dir)
        began = time.monotonic()
        while not _try_lock(file, fcntl.LOCK_EX):
            waited, running = time.monotonic() - began, _latest(_read(file))
            if waited >= PATIENCE_SECONDS and (waited >= ENDING_SECONDS or not _is_ending(running)):
                raise TakenError(refusal(data_dir, running))
            time.sleep(POLL_SECONDS)
    except BaseException:
        os.close(file)
        raise
    _descriptors[:] = [file]


def say_where(addresses: Sequence[str]) -> None:
    """Write into the file who has the lock; a full disk may prevent it."""
    if not _descriptors:
        return
    [file] = _descriptors
    here = RunningServer(os.getpid(), ", ".join(addresses), _loaded_at)
    # After SIGUSR2, the master before lives on for a while, or for good.
    others = [server for server in _read(file) if server.pid != here.pid and _is_alive(server.pid)]
    content = json.dumps([server.to_json() for server in [*others, here]]).encode()
    with suppress(OSError):
        if os.pwrite(file, content, 0) == len(content):
            os.ftruncate(file, len(content))


def leave_to(environ: MutableMapping[str, str]) -> None:
    """Have the program that is about to take this process over hold the lock, too, by this environment of it."""
    environ.pop(VARIABLE, None)
    for descriptor in _descriptors:
        os.set_inheritable(descriptor, True)
        environ[VARIABLE] = str(descriptor)


def give_away() -> None:
    """Hold the lock no more in this process, after a fork; the others that have it go on."""
    while _descriptors:
        os.close(_descriptors.pop())


def running_server(data_dir: Path) -> RunningServer | None:
    """Return the server that serves a data directory now; None where none does, or where that cannot be seen."""
    try:
        file = os.open(data_dir / FILE_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _try_lock(file, fcntl.LOCK_SH) else _latest(_read(file))
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(file)


def _is_ending(server: RunningServer) -> bool:
    """Whether nothing listens at any of its addresses any more: it only ends what is under way."""
    addresses = [address for address in server.address.split(", ") if address]
    return bool(addresses) and not any(map(_listens, addresses))


def _listens(address: str) -> bool:
    """Whether somebody takes connections at an address as gunicorn tells it, of TCP or ``unix:/a/path``."""
    try:
        if address.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(CONNECT_SECONDS)
                client.connect(address.removeprefix("unix:"))
        else:
            parts = urlsplit(address if "//" in address else f"//{address}")
            socket.create_connection((parts.hostname or "", parts.port or 0), CONNECT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _latest(servers: Sequence[RunningServer]) -> RunningServer:
    """The last one that began and lives; of processes that cannot be seen from here, such as a container's, the last.

    A server that has just begun has not said yet where it is.
    """
    living = [server for server in servers if _is_alive(server.pid)]
    unknown = RunningServer(0, "", datetime.now(UTC))
    return [unknown, *servers, *living][-1]


def _read(file: int) -> list[RunningServer]:
    try:
        return [RunningServer.from_json(said) for said in json.loads(os.pread(file, MOST_BYTES, 0) or b"[]")]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _give_to_owner(file: int, data_dir: Path) -> None:
    """What the superuser tried once must not keep the service from its own file."""
    if os.geteuid() == 0:
        owner = os.stat(data_dir)
        with suppress(OSError):
            os.fchown(file, owner.st_uid, owner.st_gid)


def _is_of(file: int, data_dir: Path) -> bool:
    try:
        there, here = os.stat(data_dir / FILE_NAME), os.fstat(file)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
