"""Who makes a change, by which way, and why: kept with each version of what is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import models
from django.http import HttpRequest
from django.http.response import HttpResponseBase


class Way(models.TextChoices):
    ADMIN = "admin", "admin"
    API = "api", "API"
    COMMAND = "command", "command"
    BULK = "bulk", "change of many"


@dataclass(eq=False)
class Origin:
    """Where the changes come from that are made now."""

    way: Way = Way.COMMAND
    user: User | None = None
    token: str | None = None
    """What the API token is described as; None where there is none."""
    reason: str = ""
    """As it was typed; empty where nobody gave one."""
    part_of: str | None = None
    """What each of several changes is a part of, such as ``change 7``, or how one came about: ``restore``."""
    request: HttpRequest | None = None
    """Whose user it is, as soon as that is known."""

    @property
    def person(self) -> User | None:
        if self.request is None:
            return self.user
        user = getattr(self.request, "user", None)
        return user if user is not None and user.is_authenticated else None


_current: ContextVar[Origin | None] = ContextVar("origin", default=None)


def current() -> Origin:
    """Return the origin of what is saved now: a command's, unless something else was begun."""
    return _current.get() or Origin()


def way() -> Way:
    return current().way


def token() -> str | None:
    """Return what the API token is described as with which the change is made; None where it is made without one."""
    return current().token


@contextmanager
def changing(origin: Origin) -> Iterator[Origin]:
    """Have what is saved in the block come from there."""
    before = _current.set(origin)
    try:
        yield origin
    finally:
        _current.reset(before)


class OriginMiddleware:
    """What a request saves comes from the admin, and from its user; the API says that it is another way."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        with changing(Origin(Way.ADMIN, request=request)):
            return self.get_response(request)
