"""Downloads that are answered ahead of Django: byte for byte what the views answer, for a fraction of the work.

Only what is usual is answered here. Anything else about a request, and every refusal, is the view's.
"""

from __future__ import annotations

import http
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING
from wsgiref.util import FileWrapper

from iotsupport.downloads import CHUNK_BYTES, Answer, respond
from iotsupport.mirror import MirrorStorage

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# A body up to here is read and sent as bytes: cheaper than preparing ``sendfile``.
SMALL_BYTES = CHUNK_BYTES

STATUS_LINES = {status: f"{status} {http.HTTPStatus(status).phrase}" for status in [200, 206, 304, 412]} | {
    416: "416 Requested Range Not Satisfiable"
}


@dataclass(frozen=True, slots=True)
class FastDownloads:
    """What one kind of file looks like from outside."""

    # Of a whole path, without ``/api``; its only group is the file's name. Must match no name that the view refuses
    # or changes, and no temporary file.
    path: re.Pattern[str]
    storage: Callable[[], MirrorStorage]
    content_type: str
    with_digests: bool = False
    # Told the status and the seconds of each answer.
    count: Callable[[int, float], None] | None = None


_registered: list[FastDownloads] = []


def register(downloads: FastDownloads) -> None:
    """Have these downloads answered ahead of Django; for :meth:`AppConfig.ready`."""
    _registered.append(downloads)


class FastDownloadsMiddleware:
    """A WSGI application that answers usual downloads itself and leaves everything else to another one."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = _answer(environ)
        if answer is None:
            return self._application(environ, start_response)
        start_response(STATUS_LINES[answer.status], list(answer.headers.items()))
        body = answer.body
        if body is None:
            return []
        if len(body) > SMALL_BYTES:
            wrapper: Callable[..., Iterable[bytes]] = environ.get("wsgi.file_wrapper", FileWrapper)
            return wrapper(body, CHUNK_BYTES)
        try:
            return [body.read()]
        finally:
            body.close()


def _answer(environ: WSGIEnvironment) -> Answer | None:
    """Answer a usual GET or HEAD for a file that is there."""
    if environ["REQUEST_METHOD"] not in {"GET", "HEAD"} or environ.get("SCRIPT_NAME"):
        return None
    start = perf_counter()
    path = environ.get("PATH_INFO", "").removeprefix("/api")
    for downloads in _registered:
        if found := downloads.path.fullmatch(path):
            break
    else:
        return None
    try:
        answer = respond(
            f"{downloads.storage().location}/{found[1]}",
            environ,
            content_type=downloads.content_type,
            with_digests=downloads.with_digests,
        )
    except OSError:  # Nothing to serve, or trouble: the view says which.
        return None
    if downloads.count is not None:
        downloads.count(answer.status, perf_counter() - start)
    return answer
