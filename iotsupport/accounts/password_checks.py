"""Checking passwords for strangers: one at a time on this server, and for a modest share of one core.

A check costs what the hash of a password is made to cost: guesses, however many come, must not take the processor
from those who download and save. How many that are in a minute follows from what they took on this machine.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from iotsupport.monitoring import shared_files

# Of one core, in the long run, for passwords that are wrong.
SHARE = 0.2
# So many may be wrong at once before that counts.
BURST = 5

# Who waits for the check of another one holds a thread: so many of one process at most, and no longer than that.
MOST_WAITING = 2
PATIENCE_SECONDS = 5.0

FILE = "password-checks"
_PACKED = struct.Struct("dd")


class Busy(Exception):
    """No password can be looked at now."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no password is looked at for {seconds} seconds")
        self.seconds = seconds


class Check:
    """A check of a password that is under way: free for a right one, which is no guess and costs others nothing."""

    is_free = False


class _Account(NamedTuple):
    paid_at: float
    """When what has been used will be within the share, on the machine's monotonic clock."""
    period: float
    """Seconds in which the share of a core makes one check."""


class PasswordChecks:
    """Says when the next password may be checked.

    The processes of one server share one account, in a file; where there is no place for one, each has its own.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock, self._cpu_clock = clock, cpu_clock
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(1 + MOST_WAITING)
        self._account = _Account(0.0, 0.0)

    @contextmanager
    def one(self) -> Iterator[Check]:
        """Look at one password inside; raises :class:`Busy` where none may be looked at, or others take too long."""
        with ExitStack() as stack:
            file = self._begin(stack)
            check, began = Check(), self._cpu_clock()
            try:
                yield check
            finally:
                if not check.is_free:
                    self._charge(file, self._cpu_clock() - began)

    def forget(self) -> None:
        self._account = _Account(0.0, 0.0)

    def _begin(self, stack: ExitStack) -> int | None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        if (ahead := self._seconds_ahead()) > 0:
            raise Busy(ahead)  # without waiting for the one that may be under way
        if not self._places.acquire(blocking=False):
            raise self._busy()
        stack.callback(self._places.release)
        if not self._turn.acquire(timeout=PATIENCE_SECONDS):
            raise self._busy()
        stack.callback(self._turn.release)
        try:
            file = stack.enter_context(shared_files.locked_file(FILE, deadline))
        except TimeoutError:
            raise self._busy() from None
        self._read(file)
        if (ahead := self._seconds_ahead()) > 0:
            raise Busy(ahead)
        return file

    def _busy(self) -> Busy:
        """Say when to come again: by then, all who wait now have had their turn."""
        return Busy(max((1 + MOST_WAITING) * self._account.period * SHARE, 1.0))

    def _read(self, file: int | None) -> None:
        content = shared_files.read(file)
        if len(content) == _PACKED.size:
            account = _Account(*_PACKED.unpack(content))
            # What lies further ahead was written before the machine, and its clock, started again.
            is_of_now = account.paid_at <= self._clock() + BURST * account.period
            self._account = account if is_of_now else _Account(0.0, 0.0)

    def _seconds_ahead(self) -> float:
        """How many seconds too early it is for another check, as far as this process knows."""
        paid_at, period = self._account
        return paid_at - self._clock() - (BURST - 1) * period

    def _charge(self, file: int | None, seconds: float) -> None:
        period = seconds / SHARE
        now = self._clock()
        # However long others took: nobody waits for more than one period.
        self._account = _Account(min(max(self._account.paid_at, now) + period, now + BURST * period), period)
        shared_files.write(file, _PACKED.pack(*self._account))
