"""Downloads that are answered ahead of Django: byte for byte what the views answer, for a fraction of the work.

Only what is usual is answered here. Anything else about a request, and every refusal, is the view's.
"""

from __future__ import annotations

import http
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

from iotsupport.serving import credentials
from iotsupport.serving.downloads import Downloads, registered
from iotsupport.serving.responses import CHUNK_BYTES, Answer, FileSlice, respond

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# A body up to here is read and sent as bytes: cheaper than preparing ``sendfile``.
SMALL_BYTES = CHUNK_BYTES

STATUS_LINES = {status: f"{status} {http.HTTPStatus(status).phrase}" for status in [200, 206, 304, 401, 412, 416]}

METRICS = "/metrics"


class FastDownloadsMiddleware:
    """A WSGI application that answers usual downloads itself and leaves everything else to another one."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = answer_usual(environ) or refuse(environ)
        if answer is None:
            return self._application(environ, start_response)
        start_response(STATUS_LINES[answer.status], list(answer.headers.items()))
        body = answer.body
        if body is None:
            return []
        if len(body) > SMALL_BYTES:
            wrapper: Callable[..., Iterable[bytes]] = environ.get("wsgi.file_wrapper", FileWrapper)
            return wrapper(body, CHUNK_BYTES)
        return [_read(body)]

    @staticmethod
    def answer_quickly(environ: Mapping[str, str]) -> tuple[str, Iterable[tuple[str, str]], bytes] | None:
        """Answer what takes no longer than handing it to another thread: status line, headers, body; else None.

        ``iotsupport.serving.worker`` asks, with no more of ``environ`` than :func:`answer_usual` needs.
        """
        answer = answer_usual(environ, only_small=True) or refuse(environ)
        if answer is None:
            return None
        return STATUS_LINES[answer.status], answer.headers.items(), b"" if answer.body is None else _read(answer.body)


def _read(body: FileSlice) -> bytes:
    try:
        return body.read()
    finally:
        body.close()


def _find(path: str) -> tuple[Downloads, str] | None:
    """Return what a path asks for, and the name of the file."""
    path = path.removeprefix("/api")
    for downloads in registered:
        if match := downloads.usual_path.fullmatch(path):
            return downloads, match[1]
    return None


def find_file(path: str) -> str | None:
    """Return where the file of a usual download would be; None for another address."""
    found = _find(path)
    return None if found is None else f"{found[0].storage().location}/{found[1]}"


def answer_usual(environ: Mapping[str, Any], *, only_small: bool = False) -> Answer | None:
    """Answer a usual GET or HEAD for a file that is there.

    Needs of ``environ`` no more than ``REQUEST_METHOD``, ``PATH_INFO`` and the request's conditions; of what else is
    there, ``Downloads.note`` is told.
    """
    if environ["REQUEST_METHOD"] not in {"GET", "HEAD"} or environ.get("SCRIPT_NAME"):
        return None
    start = perf_counter()
    found = _find(environ.get("PATH_INFO", ""))
    if found is None:
        return None
    downloads, name = found
    if (only_small and not downloads.is_small) or not credentials.is_device(environ):
        return None
    try:
        answer = respond(
            f"{downloads.storage().location}/{name}",
            environ,
            content_type=downloads.content_type,
            with_digests=downloads.with_digests,
            is_running=downloads.is_running,
        )
    except OSError:  # Nothing to serve, or trouble: the view says which.
        return None
    if downloads.count is not None:
        downloads.count(answer.status, perf_counter() - start)
    if downloads.note is not None:
        downloads.note(environ, name, answer.status, answer.headers)
    return answer


def refuse(environ: Mapping[str, Any]) -> Answer | None:
    """Answer 401 who has not said what is needed for a download or the metrics; None for all else.

    Needs of ``environ`` what :func:`answer_usual` does, and the fields that say who it is. Whether the file is there is
    not looked at. Who may be known to the view is left to it.
    """
    if environ["REQUEST_METHOD"] not in {"GET", "HEAD"} or environ.get("SCRIPT_NAME"):
        return None
    path = environ.get("PATH_INFO", "").removeprefix("/api")
    if path == METRICS:
        may_have = credentials.may_read_metrics(environ)
        return None if may_have else Answer(401, credentials.refusal_headers(credentials.BEARER))
    if not any(downloads.any_path.fullmatch(path) for downloads in registered):
        return None
    if credentials.is_device(environ) or credentials.may_be_person(environ):
        return None
    credentials.REFUSED.inc()
    return Answer(401, credentials.refusal_headers(credentials.BASIC))
