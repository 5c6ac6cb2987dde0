"""Bodies of requests: how they come in, and how much of what has come is held in memory."""

from __future__ import annotations

import ctypes
import io
import select
import socket
import time
from collections import Counter
from collections.abc import Hashable
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T", bound=Hashable)

# What anybody may send; what is larger, and whose it may be, the application says.
SMALL_BODY_BYTES = 64 * 1024
SMALL_BODY_FIELDS = 1000

# Whoever is slower than that is not waited for.
LEAST_BYTES_A_SECOND = 2048

# Of what one worker holds of unfinished requests: for all clients together, and for one of them.
HELD_BYTES = 16 * 1024 * 1024
HELD_BYTES_OF_ONE = HELD_BYTES // 2

# Of the larger bodies, of those who may send them.
RESERVED_BYTES = 16 * 1024 * 1024

# Read at once of a small body, and of a large one that a thread reads: of that, each wait for the interpreter costs.
CHUNK_BYTES = 64 * 1024
STREAMED_CHUNK_BYTES = 256 * 1024

M_MMAP_THRESHOLD = -3  # as malloc.h has it


class BodyTrouble(OSError):
    """Why a body is not read to its end: an HTTP status, a constant for programs, and a sentence."""

    status, code = 400, "INCOMPLETE"


class BodyTooLarge(BodyTrouble):
    status, code = 413, "TOO_LARGE"


class BodyLate(BodyTrouble):
    status, code = 503, "UNAVAILABLE"


class BodyInChunks(BodyTrouble):
    code = "LENGTH_REQUIRED"


class Allowance(NamedTuple):
    """What somebody may send to an address."""

    most_bytes: int
    most_fields: int
    # Whether a thread reads it bit by bit: it may be larger than memory.
    is_streamed: bool


def deadline(started: float, received_bytes: int, grace_seconds: float) -> float:
    """When the next bytes of a body must have come, on the clock of ``time.monotonic``.

    That is ``grace_seconds`` from now, and no later than so long after they would have come at the least rate.
    """
    return grace_seconds + min(time.monotonic(), started + received_bytes / LEAST_BYTES_A_SECOND)


def incomplete(received_bytes: int, length: int) -> BodyTrouble:
    return BodyTrouble(f"Only {received_bytes} of {length} bytes arrived. Nothing was changed. Send it again.")


def late(received_bytes: int, length: int) -> BodyLate:
    return BodyLate(f"Only {received_bytes} of {length} bytes arrived in time. Nothing was changed. Send it again.")


class UnreadBody(io.RawIOBase):
    """Stands for a body that nobody is to read; remembers that somebody tried."""

    def __init__(self, reason: BodyTrouble) -> None:
        self._reason = reason
        self.trouble: BodyTrouble | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.trouble = self._reason
        raise self._reason


class _Incoming(io.RawIOBase):
    def __init__(self, client: socket.socket, first: bytes, length: int, grace_seconds: float) -> None:
        self._client, self._first, self._length, self._grace_seconds = client, first, length, grace_seconds
        self._received = 0
        self._started = time.monotonic()
        self.trouble: BodyTrouble | None = None

    def readable(self) -> bool:
        return True

    @property
    def is_at_end(self) -> bool:
        return self._received == self._length

    def readinto(self, buffer: Any) -> int:
        room = min(len(buffer), self._length - self._received)
        if not room:
            return 0
        if self._first:
            taken, self._first = self._first[:room], self._first[room:]
            buffer[: len(taken)] = taken
            count = len(taken)
        else:
            count = self._receive(memoryview(buffer)[:room])
        self._received += count
        return count

    def _receive(self, buffer: memoryview) -> int:
        try:
            count = self._client.recv_into(buffer)
        except BlockingIOError:
            self._wait()
            count = self._client.recv_into(buffer)
        if not count:
            raise self._failed(incomplete(self._received, self._length))
        return count

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._client, select.POLLIN)
        seconds = deadline(self._started, self._received, self._grace_seconds) - time.monotonic()
        if seconds <= 0 or not poll.poll(seconds * 1000):
            raise self._failed(late(self._received, self._length))

    def _failed(self, trouble: BodyTrouble) -> BodyTrouble:
        self.trouble = trouble
        return trouble


class StreamedBody(io.BufferedReader):
    """A large body that a thread waits for. Raises :class:`BodyTrouble` where not all of it comes, or not in time."""

    def __init__(self, client: socket.socket, first: bytes, length: int, grace_seconds: float) -> None:
        """``first`` is what has come already."""
        self._incoming = _Incoming(client, first, length, grace_seconds)
        super().__init__(self._incoming, STREAMED_CHUNK_BYTES)

    @property
    def trouble(self) -> BodyTrouble | None:
        return self._incoming.trouble

    @property
    def is_at_end(self) -> bool:
        return self._incoming.is_at_end


class Ledger(Generic[T]):
    """How much memory unfinished requests take, of each client and altogether; and who must go when it is too much.

    Counts what has come, not what was said to come: thousands who send nothing cost nothing.
    """

    def __init__(self, most_bytes: int, most_bytes_of_one: int) -> None:
        self._most_bytes, self._most_bytes_of_one = most_bytes, most_bytes_of_one
        self._total = 0
        self._of_clients: Counter[str] = Counter()
        self._held: dict[T, tuple[str, int]] = {}
        # Those that may go, of each client, in the order in which they began.
        self._unfinished: dict[str, dict[T, None]] = {}

    def hold(self, client: str, request: T, count: int) -> None:
        """Note how much has come of a request by now; it may have to go until :meth:`keep` is called."""
        grown = count - self._held.get(request, (client, 0))[1]
        self._held[request] = client, count
        self._of_clients[client] += grown
        self._total += grown
        self._unfinished.setdefault(client, {})[request] = None

    def who_must_go(self, client: str, newest: T) -> T | None:
        """Return the request to be given up now, after ``newest`` of this client has grown; None where all may stay."""
        if self._of_clients[client] <= self._most_bytes_of_one:
            if self._total <= self._most_bytes:
                return None
            client = max(self._of_clients, key=lambda each: self._of_clients[each])
        # A quick sender is done before many that came later could push it out.
        return next(iter(self._unfinished.get(client, {})), newest)

    def keep(self, request: T) -> None:
        """Let a request stay until it is released: all of it has come."""
        if request in self._held:
            self._finish(self._held[request][0], request)

    def release(self, request: T) -> None:
        if request not in self._held:
            return
        client, count = self._held.pop(request)
        self._finish(client, request)
        self._total -= count
        self._of_clients[client] -= count
        if not self._of_clients[client]:
            del self._of_clients[client]

    def _finish(self, client: str, request: T) -> None:
        unfinished = self._unfinished.get(client, {})
        unfinished.pop(request, None)
        if not unfinished:
            self._unfinished.pop(client, None)


class Reservations(Generic[T]):
    """Memory for bodies whose whole length is given room before the first byte of it is read."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._taken: dict[T, int] = {}

    def take(self, request: T, count: int) -> bool:
        """Give a request room, if there is some, and return whether. One alone may be larger than all of it."""
        if self._taken and sum(self._taken.values()) + count > self._most_bytes:
            return False
        self._taken[request] = count
        return True

    def has(self, request: T) -> bool:
        return request in self._taken

    def give_back(self, request: T) -> bool:
        """Return whether it had room."""
        return self._taken.pop(request, None) is not None


def give_memory_back(least_bytes: int) -> None:
    """Have pieces of memory from this size on go back to the system when they are let go (mallopt(3)).

    Else thousands of half requests, of which a few are held at a time, left holes that nothing else fitted in: the
    worker grew by 200 MB.
    """
    with suppress(AttributeError, OSError):  # Another C library has no such function.
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, least_bytes)
