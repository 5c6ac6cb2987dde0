"""How mirrored files are served: whole or in part, with exact lengths, and not at all while they are unchanged.

:func:`respond` speaks WSGI alone, so that a wrapper ahead of Django can answer what the views answer;
:func:`mirror_response` is the same for a view. Neither needs a database. The rules are those of RFC 9110.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import FileIO
from typing import Any, NamedTuple

from django.http import FileResponse, Http404, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import http_date, parse_etags, parse_http_date_safe

from iotsupport.mirror.files import MirrorStorage
from iotsupport.serving.contents import CHUNK_BYTES, Content, Digests, content_of, digests_of, open_file

# Where a front server keeps bytes under their SHA-256, for itself alone: "internal" in deploy/nginx.conf.
BYTES_BY_SHA256 = "/_blobs/"

# One range. No more digits than Python converts.
BYTE_RANGE = re.compile("bytes=([0-9]{0,999})-([0-9]{0,999})", re.ASCII | re.IGNORECASE)


_http_date = lru_cache(maxsize=1024)(http_date)


class FileSlice:
    """Some bytes of an open file, to be read or, from the file's position on, to be sent by ``sendfile``."""

    def __init__(self, file: FileIO, part: range) -> None:
        file.seek(part.start)
        self._file = file
        self._left = len(part)

    def __len__(self) -> int:
        return self._left

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(chunk)
        return chunk

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


class Answer(NamedTuple):
    """What to send. A body has to be closed; ``wsgi.file_wrapper`` takes it."""

    status: int
    headers: dict[str, str]
    body: FileSlice | None = None


IsRunning = Callable[[Mapping[str, Any], Content, Digests], bool]
"""Given a WSGI request and what a file holds: whether the client is to hear that it has that, though it sent no
validator. The content is open meanwhile."""


class MirroredFile(FileResponse):
    block_size = CHUNK_BYTES


def mirror_response(
    request: HttpRequest,
    storage: MirrorStorage,
    name: str,
    *,
    content_type: str,
    with_digests: bool = False,
    is_running: IsRunning | None = None,
) -> HttpResponseBase:
    """Answer a GET or HEAD for a mirrored file, as :func:`respond` does.

    Raises ``Http404`` where there is none, and :class:`MirrorError` where the whole directory is away.
    """
    try:
        answer = respond(
            storage.path(name),
            request.META,
            content_type=content_type,
            with_digests=with_digests,
            is_running=is_running,
        )
    except FileNotFoundError as error:
        storage.check_there()
        raise Http404(f"There is no file {name}.") from error
    return _as_response(answer)


def made_response(request: HttpRequest, body: bytes, modified: int, *, content_type: str) -> HttpResponseBase:
    """Answer a GET or HEAD for bytes that were made from a file of this date, as if they were a file."""
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    status, headers, sent = _judge(request.META, etag, modified, len(body), {"Content-Type": content_type})
    response = _as_response(Answer(status, headers))
    if sent is not None and request.method != "HEAD":
        response.streaming_content = [body[sent.start : sent.stop]]
    return response


def _as_response(answer: Answer) -> StreamingHttpResponse:
    # Never a plain HttpResponse: Django's middleware would give a 304 the length 0, as if the file were empty.
    response = StreamingHttpResponse() if answer.body is None else MirroredFile(answer.body)
    response.status_code = answer.status
    del response["Content-Type"]
    for header, value in answer.headers.items():
        response[header] = value
    return response


def respond(
    path: str,
    environ: Mapping[str, Any],
    *,
    content_type: str,
    with_digests: bool = False,
    is_running: IsRunning | None = None,
) -> Answer:
    """Answer a WSGI request for a file: conditional, and with at most one range.

    ``with_digests`` adds ``x-MD5`` and ``x-SHA256`` (what Arduino's HTTPUpdate checks) and ``Repr-Digest`` (RFC 9530);
    all are of the whole file, also beside a part of it. Where ``is_running`` says so, the answer is 304. nginx may ask
    to send these bytes itself, see :func:`_leave_to_nginx`. Raises ``FileNotFoundError`` for anything but a regular
    file that everybody may read.
    """
    file = open_file(path)
    answer = None
    try:
        answer = _answer(file, environ, content_type, with_digests, is_running)
        if with_digests and environ.get("HTTP_X_SENDFILE_TYPE") == "X-Accel-Redirect":
            answer = _leave_to_nginx(answer)
        return answer
    finally:
        if answer is None or answer.body is None:
            file.close()


def matches_any(header: str, etag: str | None, *, strong: bool = False) -> bool:
    """Whether an ``If-Match`` (strong) or ``If-None-Match`` header names the ETag; None stands for nothing there."""
    if etag is None:
        return False
    named = parse_etags(header)
    return named == ["*"] or etag in (named if strong else [tag.removeprefix("W/") for tag in named])


def asked_range(header: str, size: int) -> range | None:
    """Return the part of ``size`` bytes that a ``Range`` header asks for (RFC 9110, section 14.1.2).

    None stands for all of them, since the header is to be ignored; an empty range for one that cannot be satisfied.
    """
    asked = BYTE_RANGE.fullmatch(header)
    if asked is None or asked[0].endswith("=-"):
        return None
    if not asked[1]:
        return range(max(size - int(asked[2]), 0), size)
    first, last = int(asked[1]), int(asked[2] or size)
    if asked[2] and last < first:
        return None
    return range(first, min(last + 1, size))


def _answer(
    file: FileIO, environ: Mapping[str, Any], content_type: str, with_digests: bool, is_running: IsRunning | None
) -> Answer:
    content = content_of(file)
    digests = digests_of(content)
    described = {"Content-Type": content_type}
    if with_digests:
        described |= {"x-MD5": digests.md5, "x-SHA256": digests.sha256, "Repr-Digest": digests.repr_digest}
    has_it = is_running is not None and is_running(environ, content, digests)
    status, headers, sent = _judge(environ, digests.etag, content.modified, content.size, described, has_it=has_it)
    if sent is None or environ["REQUEST_METHOD"] == "HEAD":
        return Answer(status, headers)
    return Answer(status, headers, FileSlice(file, sent))


def _judge(
    environ: Mapping[str, Any],
    etag: str,
    modified: int,
    size: int,
    described: Mapping[str, str],
    *,
    has_it: bool = False,
) -> tuple[int, dict[str, str], range | None]:
    """Return status and headers for a content, and which part of it to send; None for nothing.

    ``described``: what is said beside the content, or a part of it. ``has_it``: the client said so in words of its own.
    """
    headers = {
        "ETag": etag,
        # Of two versions in one second, the mirror dates the later one into the next; HTTP allows no such date.
        "Last-Modified": _http_date(min(modified, int(time.time()))),
        "Cache-Control": "no-cache",
        "Accept-Ranges": "bytes",
        # A script in a page must not run what somebody uploaded as an asset.
        "X-Content-Type-Options": "nosniff",
    }
    outcome = _failed_condition(environ, etag, modified) or (304 if has_it else None)
    if outcome:
        return outcome, headers if outcome == 304 else headers | {"Content-Length": "0"}, None
    part = _asked_part(environ, etag, modified, size)
    if part is not None and not part:
        return 416, headers | {"Content-Range": f"bytes */{size}", "Content-Length": "0"}, None
    headers |= described
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    sent = range(size) if part is None else part
    headers["Content-Length"] = str(len(sent))
    return 200 if part is None else 206, headers, sent


def _leave_to_nginx(answer: Answer) -> Answer:
    """Let nginx send a whole file; what there is to decide about the request is decided.

    Named by its digest rather than by its path, where there may be another file by now.
    """
    if answer.status != 200 or answer.body is None:
        return answer
    sha256 = answer.headers["ETag"].strip('"')
    return Answer(200, answer.headers | {"X-Accel-Redirect": BYTES_BY_SHA256 + sha256, "Content-Length": "0"})


def _failed_condition(environ: Mapping[str, Any], etag: str, modified: int) -> int | None:
    """Return 412 or 304 where the request's conditions demand it (RFC 9110, section 13.2.2)."""
    if "HTTP_IF_MATCH" in environ:
        if not matches_any(environ["HTTP_IF_MATCH"], etag, strong=True):
            return 412
    elif "HTTP_IF_UNMODIFIED_SINCE" in environ:
        since = parse_http_date_safe(environ["HTTP_IF_UNMODIFIED_SINCE"])
        if since is not None and modified > since:
            return 412
    if "HTTP_IF_NONE_MATCH" in environ:
        if matches_any(environ["HTTP_IF_NONE_MATCH"], etag):
            return 304
    elif "HTTP_IF_MODIFIED_SINCE" in environ:
        since = parse_http_date_safe(environ["HTTP_IF_MODIFIED_SINCE"])
        if since is not None and modified <= since:
            return 304
    return None


def _asked_part(environ: Mapping[str, Any], etag: str, modified: int, size: int) -> range | None:
    if environ["REQUEST_METHOD"] != "GET" or "HTTP_RANGE" not in environ:
        return None
    # A date is as good as an ETag here: the mirror gives no two versions the same.
    if_range = environ.get("HTTP_IF_RANGE", etag)
    if if_range != etag and parse_http_date_safe(if_range) != modified:
        return None
    return asked_range(environ["HTTP_RANGE"], size)
