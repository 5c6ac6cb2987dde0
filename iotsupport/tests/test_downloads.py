"""What a client gets for a mirrored file: whole, in part, or the word that it has it already."""

from __future__ import annotations

import base64
import dataclasses
import errno
import hashlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.core.exceptions import SuspiciousFileOperation
from django.core.signals import request_finished
from django.db import close_old_connections
from django.http import Http404
from django.test import RequestFactory
from django.utils.http import http_date, parse_http_date
from hypothesis import given
from hypothesis import strategies as st

from iotsupport.mirror.files import MirrorStorage
from iotsupport.serving import contents
from iotsupport.serving.contents import Content
from iotsupport.serving.responses import asked_range, matches_any, mirror_response
from iotsupport.tests.support.properties import PATIENT
from iotsupport.tests.support.waiting import LIMIT

CONTENT = b"0123456789"
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'

# A Monday long ago.
MODIFIED = 1_000_000_000
BEFORE, SAME, AFTER = (http_date(MODIFIED + seconds) for seconds in [-1, 0, 1])


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(autouse=True)
def no_connections_to_close() -> Iterator[None]:
    """A response that is closed tends the connections of the database, which is not asked for here."""
    request_finished.disconnect(close_old_connections)
    yield
    request_finished.connect(close_old_connections)


@pytest.fixture
def mirror(tmp_path: Path) -> MirrorStorage:
    (tmp_path / "mirror").mkdir()
    return MirrorStorage(tmp_path / "mirror")


@pytest.fixture
def file(mirror: MirrorStorage) -> Path:
    """``data.bin`` in the mirror, with ten digits in it, changed long ago."""
    return write(mirror, CONTENT)


def write(mirror: MirrorStorage, content: bytes, modified_ns: int = MODIFIED * 10**9 + 999_999_999) -> Path:
    mirror.replace("data.bin", mirror.stage([content]))
    path = Path(mirror.path("data.bin"))
    os.utime(path, ns=(modified_ns, modified_ns))
    return path


def fetch(
    mirror: MirrorStorage,
    headers: dict[str, str] | None = None,
    method: str = "GET",
    name: str = "data.bin",
    **options: Any,
) -> Got:
    request = RequestFactory().generic(method, "/", headers=headers)
    response = mirror_response(request, mirror, name, content_type="text/x-digits", **options)
    body = b"".join(response)
    response.close()
    return Got(response.status_code, dict(response.items()), body)


def open_files(directory: Path) -> list[str]:
    """Those of the directory that this process has open: threads of other tests open and close what they need."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            paths.append(str(descriptor.readlink()))
    return [path for path in paths if path.startswith(f"{directory}/")]


class TestAWholeFile:
    def test_is_sent_with_these_headers_and_no_others(self, mirror, file):
        got = fetch(mirror)

        assert got == Got(
            200,
            {
                "Content-Type": "text/x-digits",
                "Content-Length": "10",
                "Cache-Control": "no-cache",
                "ETag": ETAG,
                "Last-Modified": "Sun, 09 Sep 2001 01:46:40 GMT",
                "Accept-Ranges": "bytes",
                "X-Content-Type-Options": "nosniff",
            },
            CONTENT,
        )

    def test_has_its_digests_where_they_are_wanted(self, mirror, file):
        got = fetch(mirror, with_digests=True)

        sha256 = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
        assert got.headers["x-MD5"] == hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
        assert got.headers["Repr-Digest"] == f"sha-256=:{sha256}:"

    def test_has_the_same_headers_for_head_and_no_body(self, mirror, file):
        got = fetch(mirror, method="HEAD", with_digests=True)

        assert got == fetch(mirror, with_digests=True)._replace(body=b"")

    def test_may_be_empty(self, mirror):
        write(mirror, b"")

        got = fetch(mirror)

        assert (got.status, got.body, got.headers["Content-Length"]) == (200, b"", "0")

    def test_may_be_larger_than_what_is_read_at_once(self, mirror):
        content = os.urandom(contents.CHUNK_BYTES * 3 + 1)
        write(mirror, content)

        got = fetch(mirror)

        assert got.body == content
        assert got.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'

    def test_is_closed_with_the_response(self, mirror, file):
        fetch(mirror)
        fetch(mirror, {"Range": "bytes=1-2"})
        fetch(mirror, {"Range": "bytes=99-"})
        fetch(mirror, {"If-None-Match": "*"})
        fetch(mirror, method="HEAD")
        with pytest.raises(Http404):
            fetch(mirror, name="none.bin")

        assert open_files(mirror.directory) == []
        response = mirror_response(RequestFactory().get("/"), mirror, "data.bin", content_type="text/x-digits")
        assert open_files(mirror.directory) == [str(file)]
        response.close()

    def test_is_what_it_was_when_the_answer_began(self, mirror, file):
        response = mirror_response(RequestFactory().get("/"), mirror, "data.bin", content_type="text/x-digits")

        write(mirror, b"new and longer than before")

        assert b"".join(response) == CONTENT
        response.close()


class TestNoFile:
    @pytest.mark.parametrize("name", ["none.bin", "data.bin/x", "directory", "\0", "x" * 300, "\udc80"])
    def test_is_404(self, mirror, file, name):
        (file.parent / "directory").mkdir()

        with pytest.raises(Http404):
            fetch(mirror, name=name)

    def test_is_404_where_it_is_withheld(self, mirror, file):
        mirror.withhold("data.bin")

        with pytest.raises(Http404, match=r"There is no file data\.bin\."):
            fetch(mirror)

    def test_is_404_for_a_symbolic_link(self, mirror, file):
        (file.parent / "link").symlink_to(file)

        with pytest.raises(Http404):
            fetch(mirror, name="link")

    def test_is_404_for_a_named_pipe_that_nobody_writes_to(self, mirror, file):
        os.mkfifo(file.parent / "pipe", 0o644)

        with pytest.raises(Http404):
            fetch(mirror, name="pipe")

    def test_is_not_said_of_a_file_that_cannot_be_opened_just_now(self, mirror, file, monkeypatch):
        def fail(path: str, flags: int) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(contents.os, "open", fail)

        with pytest.raises(OSError, match="Too many open files"):
            fetch(mirror)

    def test_is_looked_for_outside_of_the_mirror(self, mirror, file):
        with pytest.raises(SuspiciousFileOperation):
            fetch(mirror, name="../data.bin")


class TestETag:
    def test_is_the_same_for_the_same_bytes_written_again(self, mirror, file):
        before = fetch(mirror)

        write(mirror, CONTENT, modified_ns=2 * MODIFIED * 10**9)

        assert fetch(mirror).headers["ETag"] == before.headers["ETag"]

    def test_differs_for_other_bytes_of_the_same_length_and_date(self, mirror, file):
        fetch(mirror)

        write(mirror, CONTENT[::-1])

        assert fetch(mirror).headers["ETag"] == f'"{hashlib.sha256(CONTENT[::-1]).hexdigest()}"'

    def test_is_made_once_for_each_content(self, mirror, file):
        fetch(mirror)
        misses = contents.digests_of.cache_info().misses

        fetch(mirror)
        fetch(mirror, method="HEAD")

        assert contents.digests_of.cache_info().misses == misses

    @pytest.mark.parametrize("changed", ["device", "inode", "modified_ns", "changed_ns", "size"])
    def test_is_made_again_when_anything_about_the_file_changes(self, changed):
        content = Content(device=1, inode=2, modified_ns=3, changed_ns=4, size=5, descriptor=6)

        assert content == dataclasses.replace(content, descriptor=7)
        assert content != dataclasses.replace(content, **{changed: 99})

    def test_is_kept_for_a_bounded_number_of_files(self):
        assert contents.digests_of.cache_info().maxsize == contents.CACHED_DIGESTS


class TestLastModified:
    def test_is_never_in_the_future(self, mirror):
        write(mirror, CONTENT, modified_ns=(int(time.time()) + 3600) * 10**9)

        assert parse_http_date(fetch(mirror).headers["Last-Modified"]) <= time.time()

    def test_that_is_cut_to_now_does_not_hide_a_later_version(self, mirror):
        write(mirror, CONTENT, modified_ns=(int(time.time()) + 3600) * 10**9)
        shown = fetch(mirror).headers["Last-Modified"]

        assert fetch(mirror, {"If-Modified-Since": shown}).status == 200
        assert fetch(mirror, {"If-Range": shown, "Range": "bytes=5-"}).status == 200


class TestConditions:
    OTHER = '"0000"'

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"If-None-Match": ETAG}, 304),
            ({"If-None-Match": f"W/{ETAG}"}, 304),
            ({"If-None-Match": f'{OTHER}, W/"1", {ETAG}'}, 304),
            ({"If-None-Match": "*"}, 304),
            ({"If-None-Match": OTHER}, 200),
            ({"If-None-Match": ETAG.strip('"')}, 200),
            ({"If-None-Match": ""}, 200),
            ({"If-Modified-Since": SAME}, 304),
            ({"If-Modified-Since": AFTER}, 304),
            ({"If-Modified-Since": "Sunday, 09-Sep-01 01:46:40 GMT"}, 304),
            ({"If-Modified-Since": BEFORE}, 200),
            ({"If-Modified-Since": "yesterday"}, 200),
            ({"If-Modified-Since": ""}, 200),
            # The date counts only where there is no ETag.
            ({"If-None-Match": OTHER, "If-Modified-Since": AFTER}, 200),
            ({"If-None-Match": "", "If-Modified-Since": AFTER}, 200),
            ({"If-None-Match": ETAG, "If-Modified-Since": BEFORE}, 304),
            ({"If-Match": ETAG}, 200),
            ({"If-Match": "*"}, 200),
            ({"If-Match": f"{OTHER}, {ETAG}"}, 200),
            ({"If-Match": OTHER}, 412),
            ({"If-Match": f"W/{ETAG}"}, 412),
            ({"If-Match": ""}, 412),
            ({"If-Unmodified-Since": SAME}, 200),
            ({"If-Unmodified-Since": BEFORE}, 412),
            ({"If-Unmodified-Since": "yesterday"}, 200),
            ({"If-Match": ETAG, "If-Unmodified-Since": BEFORE}, 200),
            ({"If-Match": OTHER, "If-Unmodified-Since": AFTER}, 412),
            # First what must hold, then whether anything is new, then which part.
            ({"If-Match": OTHER, "If-None-Match": ETAG}, 412),
            ({"If-Match": ETAG, "If-None-Match": ETAG}, 304),
            ({"If-Unmodified-Since": BEFORE, "If-Modified-Since": AFTER}, 412),
            ({"If-None-Match": ETAG, "Range": "bytes=0-1"}, 304),
            ({"If-None-Match": ETAG, "Range": "bytes=99-"}, 304),
            ({"If-Match": OTHER, "Range": "bytes=99-"}, 412),
            ({"If-None-Match": OTHER, "Range": "bytes=99-"}, 416),
            ({"If-None-Match": OTHER, "Range": "bytes=0-1"}, 206),
        ],
    )
    def test_are_answered_alike_for_get_and_head(self, mirror, file, headers, status):
        assert fetch(mirror, headers).status == status
        assert fetch(mirror, headers, method="HEAD").status == (200 if status in {206, 416} else status)

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_that_say_nothing_is_new_get_no_body(self, mirror, file, method):
        got = fetch(mirror, {"If-None-Match": ETAG}, method=method, with_digests=True)

        assert got == Got(
            304,
            {
                "ETag": ETAG,
                "Last-Modified": SAME,
                "Cache-Control": "no-cache",
                "Accept-Ranges": "bytes",
                "X-Content-Type-Options": "nosniff",
            },
            b"",
        )

    def test_that_fail_get_an_empty_body(self, mirror, file):
        got = fetch(mirror, {"If-Match": self.OTHER})

        assert (got.status, got.headers["Content-Length"], got.body) == (412, "0", b"")

    def test_match_nothing_where_nothing_is(self):
        assert not matches_any("*", None)
        assert not matches_any(ETAG, None, strong=True)


class TestRange:
    @pytest.mark.parametrize(
        ("asked", "content_range", "body"),
        [
            ("bytes=0-0", "bytes 0-0/10", b"0"),
            ("bytes=9-9", "bytes 9-9/10", b"9"),
            ("bytes=9-", "bytes 9-9/10", b"9"),
            ("bytes=-1", "bytes 9-9/10", b"9"),
            ("bytes=5-", "bytes 5-9/10", b"56789"),
            ("bytes=2-4", "bytes 2-4/10", b"234"),
            ("bytes=5-99", "bytes 5-9/10", b"56789"),
            ("bytes=5-" + "9" * 500, "bytes 5-9/10", b"56789"),
            ("bytes=0-", "bytes 0-9/10", CONTENT),
            ("bytes=-99", "bytes 0-9/10", CONTENT),
            ("Bytes=2-4", "bytes 2-4/10", b"234"),
        ],
    )
    def test_is_sent_alone(self, mirror, file, asked, content_range, body):
        got = fetch(mirror, {"Range": asked}, with_digests=True)

        whole = fetch(mirror, with_digests=True)
        assert got == Got(206, whole.headers | {"Content-Range": content_range, "Content-Length": str(len(body))}, body)

    @pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=" + "9" * 500 + "-"])
    def test_outside_of_the_file_is_416(self, mirror, file, asked):
        got = fetch(mirror, {"Range": asked})

        assert (got.status, got.headers["Content-Range"], got.headers["Content-Length"]) == (416, "bytes */10", "0")
        assert got.body == b""

    @pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"])
    def test_of_an_empty_file_is_416(self, mirror, asked):
        write(mirror, b"")

        got = fetch(mirror, {"Range": asked})

        assert (got.status, got.headers["Content-Range"]) == (416, "bytes */0")

    @pytest.mark.parametrize(
        "asked",
        [
            "bytes=0-1,4-5",
            "bytes=0-1,",
            "bytes=4-2",
            "bytes=-",
            "bytes=",
            "bytes",
            "",
            "bytes=a-b",
            "bytes=1",
            "bytes=--1",
            "bytes= 0-1",
            "bytes=0-1x",
            "bytes=²-",
            "bytes=" + "9" * 5000 + "-",
            "seconds=0-1",
        ],
    )
    def test_that_is_not_one_range_of_bytes_is_ignored(self, mirror, file, asked):
        assert fetch(mirror, {"Range": asked}) == fetch(mirror)

    def test_is_ignored_for_head(self, mirror, file):
        assert fetch(mirror, {"Range": "bytes=0-1"}, method="HEAD") == fetch(mirror, method="HEAD")

    @pytest.mark.parametrize(
        ("if_range", "status"),
        [
            (ETAG, 206),
            (SAME, 206),
            (f"W/{ETAG}", 200),
            ('"0000"', 200),
            (BEFORE, 200),
            (AFTER, 200),
            ("", 200),
            ("*", 200),
        ],
    )
    @pytest.mark.parametrize("asked", ["bytes=5-", "bytes=99-"])
    def test_is_honoured_only_while_the_file_is_the_same(self, mirror, file, asked, if_range, status):
        expected = 416 if status == 206 and asked == "bytes=99-" else status

        assert fetch(mirror, {"Range": asked, "If-Range": if_range}).status == expected


@PATIENT
@given(st.binary(max_size=20), st.integers(0, 25), st.none() | st.integers(0, 25))
def test_a_range_from_its_first_byte_is_a_slice(content: bytes, first: int, last: int | None):
    part = asked_range(f"bytes={first}-{'' if last is None else last}", len(content))

    if last is not None and last < first:
        assert part is None
    else:
        assert part is not None
        assert content[part.start : part.stop] == content[first : None if last is None else last + 1]
        assert bool(part) == (first < len(content))


@PATIENT
@given(st.binary(max_size=20), st.integers(0, 25))
def test_a_range_of_the_last_bytes_is_a_slice(content: bytes, count: int):
    part = asked_range(f"bytes=-{count}", len(content))

    assert part is not None
    assert content[part.start : part.stop] == (content[-count:] if count else b"")


@PATIENT
@given(st.text(st.characters(max_codepoint=255)) | st.from_regex(r"bytes=[0-9]*-[0-9]*", fullmatch=True))
def test_any_range_header_is_within_the_file_or_ignored(header: str):
    part = asked_range(header, 10)

    assert not part or 0 <= part.start < part.stop <= 10


class Server(NamedTuple):
    mirror: MirrorStorage
    port: int

    def connect(self, receive_bytes: int | None = None) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        connection.sock = socket.socket()
        if receive_bytes:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.sock.settimeout(LIMIT)
        connection.sock.connect(("127.0.0.1", self.port))
        return connection

    def get(self, headers: dict[str, str] | None = None, method: str = "GET") -> Got:
        connection = self.connect()
        connection.request(method, "/data.bin", headers=headers or {})
        response = connection.getresponse()
        got = Got(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return got


@pytest.fixture(params=[[], ["--no-sendfile"]], ids=["sendfile", "no sendfile"])
def server(request: pytest.FixtureRequest, mirror: MirrorStorage, tmp_path: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor = str(listener.fileno())
        application = f"iotsupport.tests.support.download_server:serve({str(mirror.directory)!r})"
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--threads=4", *request.param]
        process = subprocess.Popen(
            [*command, f"--bind=fd://{descriptor}", application],
            pass_fds=[listener.fileno()],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(settings.BASE_DIR)},
        )
        port = listener.getsockname()[1]
    # From here on the server alone holds the port: connections wait for it, or are refused where it did not start.
    yield Server(mirror, port)
    process.terminate()
    process.wait(LIMIT)


@pytest.mark.processes
class TestOverASocket:
    def test_a_file_comes_whole_or_in_part_with_its_exact_length(self, server):
        content = os.urandom(1_000_003)
        write(server.mirror, content)

        whole = server.get()
        part = server.get({"Range": "bytes=70000-270000"})
        last = server.get({"Range": "bytes=-1"})

        assert (whole.status, whole.body) == (200, content)
        assert whole.headers["Content-Length"] == "1000003"
        assert "Transfer-Encoding" not in whole.headers
        assert (part.status, part.body) == (206, content[70000:270001])
        assert part.headers["Content-Range"] == "bytes 70000-270000/1000003"
        assert part.headers["Content-Length"] == "200001"
        assert (last.status, last.body) == (206, content[-1:])

    def test_answers_without_a_body_leave_the_connection_usable(self, server):
        write(server.mirror, CONTENT)
        connection = server.connect()
        lengths = []

        for method, headers in [
            ("HEAD", {}),
            ("GET", {"If-None-Match": ETAG}),
            ("GET", {"If-Match": '"0"'}),
            ("GET", {"Range": "bytes=99-"}),
            ("GET", {}),
        ]:
            connection.request(method, "/data.bin", headers=headers)
            response = connection.getresponse()
            body = response.read()
            assert "Transfer-Encoding" not in response.headers
            lengths.append((response.status, response.headers["Content-Length"], len(body)))
        connection.close()

        assert lengths == [(200, "10", 0), (304, None, 0), (412, "0", 0), (416, "0", 0), (200, "10", 10)]

    def test_a_file_replaced_during_a_slow_download_comes_whole_and_old(self, server):
        old, new = os.urandom(16_000_000), os.urandom(15_000_000)
        write(server.mirror, old)
        slow = server.connect(receive_bytes=8192)
        slow.request("GET", "/data.bin")
        response = slow.getresponse()
        beginning = response.read(1000)

        write(server.mirror, new)

        assert server.get().body == new
        assert response.headers["Content-Length"] == "16000000"
        assert beginning + response.read() == old
        slow.close()

    def test_a_download_that_was_cut_short_is_resumed_only_while_the_file_is_the_same(self, server):
        old, new = os.urandom(200_000), os.urandom(200_000)
        write(server.mirror, old)
        etag = server.get(method="HEAD").headers["ETag"]

        resumed = server.get({"Range": "bytes=150000-", "If-Range": etag})
        write(server.mirror, new)
        restarted = server.get({"Range": "bytes=150000-", "If-Range": etag})

        assert (resumed.status, resumed.body) == (206, old[150000:])
        assert (restarted.status, restarted.body) == (200, new)
