"""Marks a change of many files, such as an import: its announcements let those pass that a person waits for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_bulk: ContextVar[bool] = ContextVar("is_bulk", default=False)


@contextmanager
def bulk_change() -> Iterator[None]:
    """What is saved in this block, by this thread, may be announced later than what is saved elsewhere."""
    token = _is_bulk.set(True)
    try:
        yield
    finally:
        _is_bulk.reset(token)


def is_bulk_change() -> bool:
    return _is_bulk.get()
