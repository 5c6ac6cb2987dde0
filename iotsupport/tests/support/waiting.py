"""Waiting for what another process or thread does, where nothing tells of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

# Seconds that a test waits before it fails; never for something that should not happen. Several times what the longest
# wait takes: the machine may be slow, or busy with something else. Less than the limit of pytest, which says less.
LIMIT = 200

# Between two looks: what is waited for needs the processor, too.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.005, 0.1


def looks() -> Iterator[bool]:
    """Yield True for each look that is due, ever less often; then, when the limit is over, False for the last one."""
    deadline, pause, nobody = time.monotonic() + LIMIT, SHORTEST_PAUSE, threading.Event()
    while time.monotonic() < deadline:
        yield True
        nobody.wait(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)
    yield False


def poll(look: Callable[[], T], is_there: Callable[[T], bool]) -> T:
    """Return what is seen once it is there. For what only a request can show."""
    for may_come in looks():
        if is_there(seen := look()):
            return seen
        assert may_come, seen
    raise AssertionError("looks() ended.")


def eventually(is_so: Callable[[], object], otherwise: Callable[[], object] = lambda: None) -> None:
    """Wait until something holds; ``otherwise`` says more where it never does."""
    for may_come in looks():
        if is_so():
            return
        assert may_come, otherwise()
