"""How often something may happen: so many times at once, then once in so many seconds."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple


class _Level(NamedTuple):
    left: float
    at: float


class Buckets:
    """A token bucket for each key, in this process's memory: at most ``most_keys``, the least used are forgotten."""

    def __init__(
        self, burst: int, seconds_for_one: float, most_keys: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._seconds, self._most_keys, self._clock = burst, seconds_for_one, most_keys, clock
        self._levels: OrderedDict[str, _Level] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Return 0 and take one, or the seconds until there is one."""
        with self._lock:
            left = self._left(key)
            if left < 1:
                return (1 - left) * self._seconds
            self._put(key, left - 1)
            return 0.0

    def give_back(self, key: str) -> None:
        with self._lock:
            self._put(key, min(self._left(key) + 1, self._burst))

    def forget(self) -> None:
        with self._lock:
            self._levels.clear()

    def _left(self, key: str) -> float:
        left, at = self._levels.get(key, _Level(self._burst, self._clock()))
        return min(left + (self._clock() - at) / self._seconds, self._burst)

    def _put(self, key: str, left: float) -> None:
        self._levels[key] = _Level(left, self._clock())
        self._levels.move_to_end(key)
        if len(self._levels) > self._most_keys:
            self._levels.popitem(last=False)
