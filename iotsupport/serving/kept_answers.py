"""Answers that are given again, without a thread, for as long as what they tell is fresh: see ``monitoring.glance``.

A view says so of its answer with :func:`keep_until`; strangers may ask for it as often as they like.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from django.http import HttpRequest

from iotsupport.serving import request_ids

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

KEPT_UNTIL = "iotsupport.kept_until"
KEPT_FOR = "iotsupport.kept_for"

# Whether who sends a request may have what was answered to another one.
ForWhom = Callable[[Mapping[str, Any]], bool]

# What else than its address an answer depends on; nothing is kept for any other value.
_SCHEMES = {None, "http", "https"}


class _Kept(NamedTuple):
    until: float
    status_line: str
    headers: list[tuple[str, str]]
    body: bytes
    for_whom: ForWhom


_answers: dict[tuple[str, str | None], _Kept] = {}


def everybody(environ: Mapping[str, Any]) -> bool:
    return True


def keep_until(request: HttpRequest, seconds: float, for_whom: ForWhom = everybody) -> None:
    """Have the answer to a request kept until then, on the clock of ``time.monotonic``."""
    request.META[KEPT_UNTIL], request.META[KEPT_FOR] = seconds, for_whom


def is_kept(request: HttpRequest) -> bool:
    """Whether a view had its answer kept."""
    return KEPT_UNTIL in request.META


def find(environ: Mapping[str, Any]) -> tuple[str, Iterable[tuple[str, str]], bytes] | None:
    """Return what was answered to the same request, if it is fresh: status line, headers, body."""
    if environ["REQUEST_METHOD"] != "GET":
        return None
    kept = _answers.get((environ["PATH_INFO"], environ.get("HTTP_X_FORWARDED_PROTO")))
    if kept is None or time.monotonic() >= kept.until or not kept.for_whom(environ):
        return None
    headers = kept.headers if request_ids.SENT not in environ else request_ids.repeat(environ, kept.headers)
    return kept.status_line, headers, kept.body


def answer(application: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Have an application answer, and keep that where it says so."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start(status_line: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        # Each request has an id of its own.
        started.append((status_line, [each for each in headers if each[0] != request_ids.HEADER]))
        return start_response(status_line, headers, *more)

    body = application(environ, start)
    until, scheme = environ.get(KEPT_UNTIL), environ.get("HTTP_X_FORWARDED_PROTO")
    if until is None or environ["REQUEST_METHOD"] != "GET" or scheme not in _SCHEMES:
        return body
    try:
        content = b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]
    _answers[environ["PATH_INFO"], scheme] = _Kept(until, *started[-1], content, environ[KEPT_FOR])
    return [content]
