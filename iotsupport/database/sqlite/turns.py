"""Whoever writes to an SQLite database waits for its turn: first come, first served, in all processes of a machine.

SQLite's own busy handler sleeps longer and longer, and whoever comes meanwhile goes first: with eight writers, an
unlucky one waits for seconds. So writers queue here before they ask SQLite for its lock. That stays what keeps two of
them apart, also from programs that know nothing of turns: where none can be had, only the order is lost.

All of it is the kernel's locks (fcntl(2), "Open file description locks") on an empty file beside the database, which
go with the process that holds them, however it ends. A writer locks the byte at the number of nanoseconds at which it
came, and may write when no byte before its own is locked and it gets the first byte of the file. Of each process, only
the thread that came first looks for that, the others wait for that one: so few poll, and whoever is next does so while
another still writes. A thread that is woken as the writer ends was measured to be later than one that polls.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from weakref import WeakSet

from iotsupport.database.sqlite import TURNS_SUFFIX

# Between two looks: an eighth of the time that was waited, within these.
LEAST_PAUSE_SECONDS = 0.0005
MOST_PAUSE_SECONDS = 0.02

# ``struct flock``: type, whence, start, length, process.
FLOCK = struct.Struct("@hhqqi4x")
WRITING = 0  # the byte of whoever writes


class Turn:
    """A place in the queue, then the right to write; given up by :meth:`leave`, and where nobody has it any more."""

    is_late = False
    """Whether it was waited for so long that who waited notices."""

    place = 0
    """The byte that it locked."""

    _file: int | None = None

    def __init__(self, path: str | None) -> None:
        # No file object: of what goes together, the garbage collector may close that first, and forget to unlock it.
        self._file = None if path is None else _open(path)
        _turns.add(self)

    def queue(self, came_at: int) -> bool:
        """Take the place of the nanosecond, or the next that is free; return whether there is a queue at all."""
        self.place = came_at
        try:
            while self._file is not None and not self._lock(self.place):
                self.place += 1
        except OSError:  # a file system without locks
            self.leave()
        return self._file is not None

    def has_come(self) -> bool:
        """Whether nobody is before this one, or writes; if so, this one does from now on."""
        return not self._is_locked(1, self.place) and self._lock(WRITING)

    def leave(self) -> None:
        """Let the next one write. Idempotent."""
        if self._file is not None:
            file, self._file = self._file, None
            # A child that was forked meanwhile has the same open file: closing it here would not unlock it.
            with suppress(OSError):
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
            os.close(file)

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    def __del__(self) -> None:
        self.leave()

    def _lock(self, byte: int) -> bool:
        try:
            self._ask(fcntl.F_OFD_SETLK, byte, 1)
        except BlockingIOError:
            return False
        return True

    def _is_locked(self, begin: int, end: int) -> bool:
        answer = self._ask(fcntl.F_OFD_GETLK, begin, end - begin)
        return bool(FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def _ask(self, command: int, begin: int, length: int) -> bytes:
        assert self._file is not None  # noqa: S101 - for mypy
        return fcntl.fcntl(self._file, command, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, begin, length, 0))


class Queue:
    """Those of this process who wait to write to one database."""

    def __init__(self, database: str) -> None:
        self._path = database + TURNS_SUFFIX
        self._changing = threading.Lock()
        self._is_somebody_first = False
        self._waiting: deque[threading.Lock] = deque()
        self._last_place = 0

    def wait(self, seconds: float) -> Turn:
        """Return when it is the caller's turn. Raises ``TimeoutError`` where it does not come in time.

        Where no file can be locked, such as on a disk that is full, everybody's turn is now.
        """
        deadline = time.monotonic() + seconds
        turn = Turn(self._path)
        with self._changing:
            # Locked at once, not when it is first in its process: meanwhile, others would be served that came later.
            # And in the order of the places: one that waits for one behind it would wait for ever.
            if not turn.queue(max(time.monotonic_ns(), self._last_place + 1)):
                return turn
            self._last_place = turn.place
            before = self._queue_here()
        try:
            if before is not None:
                self._become_first(before, deadline)
            self._be_first(turn, deadline)
        except BaseException:
            turn.leave()
            raise
        return turn

    def _queue_here(self) -> threading.Lock | None:
        """Return what to wait for until this thread is the first of this process, unless it is."""
        if not self._is_somebody_first:
            self._is_somebody_first = True
            return None
        before = threading.Lock()
        before.acquire()
        self._waiting.append(before)
        return before

    def _become_first(self, before: threading.Lock, deadline: float) -> None:
        if before.acquire(timeout=max(deadline - time.monotonic(), 0)):
            return
        with self._changing:
            if before in self._waiting:
                self._waiting.remove(before)
                raise TimeoutError
        # It came in this moment.
        self._let_next_be_first()
        raise TimeoutError

    def _be_first(self, turn: Turn, deadline: float) -> None:
        try:
            _poll(turn, deadline)
        finally:
            self._let_next_be_first()

    def _let_next_be_first(self) -> None:
        with self._changing:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_somebody_first = False


def _poll(turn: Turn, deadline: float) -> None:
    began = time.monotonic()
    while not turn.has_come():
        now = time.monotonic()
        if now >= deadline:
            raise TimeoutError
        pause = min(max((now - began) / 8, LEAST_PAUSE_SECONDS), MOST_PAUSE_SECONDS)
        time.sleep(min(pause, deadline - now))


def _open(path: str) -> int | None:
    """Open the file, made where it is missing with the database's owner and mode, as SQLite makes its own."""
    if not hasattr(fcntl, "F_OFD_SETLK"):  # Linux alone has them
        return None
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    except OSError:
        return None
    try:
        found = os.stat(path.removesuffix(TURNS_SUFFIX))
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o600)
        if os.geteuid() == 0:
            os.fchown(file, found.st_uid, found.st_gid)
        os.fchmod(file, found.st_mode & 0o660)
    except OSError:
        return None
    return file


# Those that are held, or waited for; and the queue of each database.
_turns: WeakSet[Turn] = WeakSet()
_queues: dict[str, Queue] = {}


# Of whoever does not queue.
NO_TURN = Turn(None)


def queue_of(database: str) -> Queue:
    return _queues.get(database) or _queues.setdefault(database, Queue(database))


def _forget_parent() -> None:
    for turn in list(_turns):
        turn.forget()
    _queues.clear()  # threads that do not exist here may be first


os.register_at_fork(after_in_child=_forget_parent)
