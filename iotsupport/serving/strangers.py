"""Requests of strangers wait for one another, so that they leave threads and the interpreter to others.

No stranger is who comes with a session or token that was valid in this process before. That decides about nothing but
who is served first: what somebody may do, the view and the database say as ever.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable

from django.conf import settings

from iotsupport.serving import credentials
from iotsupport.serving.ahead_of_django import METRICS, find_file

# Open to everybody, and answered from what all share.
GLANCES = {"/health", METRICS}

# The least used are forgotten.
MOST = 2000

_known: OrderedDict[bytes, None] = OrderedDict()
_lock = threading.Lock()


def note_valid(secret: str) -> None:
    """Remember the key of a session, or a token, that was valid just now."""
    digest = _digest(secret)
    with _lock:
        _known[digest] = None
        _known.move_to_end(digest)
        if len(_known) > MOST:
            _known.popitem(last=False)


def has_to_wait(method: str, path: str, headers: Iterable[tuple[str, str]]) -> bool:
    """Whether ``iotsupport.serving.worker`` begins with a request only when others like it are done.

    ``headers`` have names in capitals. Not a download of a file that is there, which takes no time to speak of, nor
    what bounds itself: see :mod:`iotsupport.monitoring.glance`.
    """
    if any(_digest(secret) in _known for secret in _secrets(headers)):
        return False
    if method not in {"GET", "HEAD"}:
        return True
    environ = {"HTTP_AUTHORIZATION": ",".join(value for name, value in headers if name == "AUTHORIZATION")}
    place = path.removeprefix("/api")
    if place in GLANCES:
        return place == METRICS and not credentials.may_read_metrics(environ)
    file = find_file(path)
    return not (file and credentials.is_device(environ) and os.path.exists(file))


def _secrets(headers: Iterable[tuple[str, str]]) -> Iterable[str]:
    session = f"{settings.SESSION_COOKIE_NAME}="
    for name, value in headers:
        if name == "AUTHORIZATION":
            yield value.partition(" ")[2]
        elif name == "COOKIE":
            for cookie in value.split(";"):
                if cookie.strip().startswith(session):
                    yield cookie.strip().removeprefix(session)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def forget() -> None:
    """Take everybody for a stranger, for tests."""
    with _lock:
        _known.clear()
