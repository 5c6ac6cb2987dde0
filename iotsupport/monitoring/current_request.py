"""The id of the request that a thread works at: whatever it logs has it. See :mod:`iotsupport.serving.request_ids`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def request_id() -> str | None:
    """Return the id of the request that this thread works at; None where it is none."""
    return _current.get()


@contextmanager
def working_at(request_id: str) -> Iterator[None]:
    """Have what this thread does in the block be part of a request."""
    before = _current.set(request_id)
    try:
        yield
    finally:
        _current.reset(before)


def make_id() -> str:
    """Return an id that no other request has: 64 random bits, in hexadecimal."""
    return secrets.token_hex(8)
