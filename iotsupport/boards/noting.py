"""Where downloads are answered, what they tell is given to the collector: ahead of Django, and by the views."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

from iotsupport.boards.checkins import Kind, Way, check_in_of
from iotsupport.boards.collector import collector
from iotsupport.boards.pending import Said

logger = logging.getLogger(__name__)

# What tells something of a board. A 412 or 416 is an answer to a mistake.
TELLING = {200, 206, 304, 404}


def note_quick(kind: Kind, environ: Mapping[str, Any], filename: str, status: int, headers: Mapping[str, str]) -> None:
    """Note an answer that is given ahead of Django; see ``Downloads.note``. Never raises."""
    if not collector.is_serving or status not in TELLING:
        return
    try:
        # Of a configuration, the main thread has read no more than a few fields of the request, and they are all that
        # can be new: to hash them takes less than to look for each.
        if kind == "configs" and status != 206 and "wsgi.input" not in environ:
            key, said, at = (kind, filename), hash((status, headers.get("ETag"), *environ.values())), time.time()
            if not collector.repeats_at_once(key, said, at, is_download=environ["REQUEST_METHOD"] == "GET"):
                collector.take(check_in_of("worker", kind, filename, environ, status, headers, at), Said(key, said))
        else:
            _note("worker", kind, environ, filename, status, headers)
    except Exception:
        logger.exception("A check-in could not be noted")


def respond_and_note(
    kind: Kind, request: HttpRequest, filename: str, respond: Callable[[], HttpResponseBase]
) -> HttpResponseBase:
    """Return what a view answers for a file, and note it. Raises what ``respond`` does."""
    try:
        response = respond()
    except Http404:
        _note_view(kind, request, filename, 404, {})
        raise
    _note_view(kind, request, filename, response.status_code, response.headers)
    return response


def _note_view(kind: Kind, request: HttpRequest, filename: str, status: int, headers: Mapping[str, str]) -> None:
    if not collector.is_serving or status not in TELLING:
        return
    try:
        _note("view", kind, request.META, filename, status, headers)
    except Exception:
        logger.exception("A check-in could not be noted")


def _note(
    way: Way, kind: Kind, environ: Mapping[str, Any], filename: str, status: int, headers: Mapping[str, str]
) -> None:
    collector.note(check_in_of(way, kind, filename, environ, status, headers, time.time()))
