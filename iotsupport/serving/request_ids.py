"""Each request has an id. A front server sends its own, which answers repeat; else :mod:`current_request` makes one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from iotsupport.serving.clients import may_be_front_server

HEADER = "X-Request-ID"
# What WSGI calls it.
SENT = "HTTP_X_REQUEST_ID"

WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def sent_in(environ: Mapping[str, Any]) -> str | None:
    """Return the id that a request came with; None for what is no id, or does not come from a front server.

    Anybody else could have the log say that somebody's request did what another one does.
    """
    sent = environ.get(SENT)
    if not sent or WELL_FORMED.fullmatch(sent) is None or not may_be_front_server(environ.get("REMOTE_ADDR", "")):
        return None
    return str(sent)


def repeat(environ: Mapping[str, Any], headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Add the id that a request came with to the headers of its answer."""
    sent = sent_in(environ)
    return headers if sent is None else [*headers, (HEADER, sent)]
