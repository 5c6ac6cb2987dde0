"""Requests that are begun in turn, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Lane(Generic[T]):
    """So many requests are under way at once; the others wait in order, without a thread. For one thread to use."""

    def __init__(self, most_at_once: int) -> None:
        self._most_at_once = most_at_once
        self._under_way: set[T] = set()
        self._waiting: dict[T, Callable[[T], None]] = {}

    def enter(self, request: T, begin: Callable[[T], None]) -> None:
        """Have it begin in its turn; then it is under way until it leaves."""
        self._waiting[request] = begin
        self._go_on()

    def leave(self, request: T) -> None:
        """Let it be forgotten, and others begin; nothing, where it is not here."""
        self._waiting.pop(request, None)
        self._under_way.discard(request)
        self._go_on()

    def waiting(self) -> list[T]:
        """Those who have not begun, in order."""
        return list(self._waiting)

    def _go_on(self) -> None:
        while self._waiting and len(self._under_way) < self._most_at_once:
            request = next(iter(self._waiting))
            begin = self._waiting.pop(request)
            self._under_way.add(request)
            begin(request)
