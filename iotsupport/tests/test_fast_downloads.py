"""The answers ahead of Django are the views' answers, to the byte."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from iotsupport.mirror.files import MirrorStorage, mirror_storage
from iotsupport.serving import contents
from iotsupport.serving.ahead_of_django import FastDownloadsMiddleware
from iotsupport.serving.worker import parse_quick_request
from iotsupport.tests.support.images import make_image
from iotsupport.tests.support.properties import PATIENT_WITH_FIXTURES

MAC = "aa-bb-cc-dd-ee-ff"
CONFIG = b'{"deviceName": "lamp"}'
ASSET = bytes(range(256)) * 1024  # more than is read at once
ETAG = f'"{hashlib.sha256(CONFIG).hexdigest()}"'
ASSET_ETAG = f'"{hashlib.sha256(ASSET).hexdigest()}"'
NOW = "Fri, 01 Jan 2999 00:00:00 GMT"
LONG_AGO = "Fri, 01 Jan 1999 00:00:00 GMT"

# Paths as a server decodes them.
ANSWERED_FAST = [
    f"/configs/{MAC}.json",
    f"/esp32/config/{MAC}.json",
    f"/api/configs/{MAC}.json",
    f"/api/esp32/config/{MAC}.json",
    "/assets/firmware.bin",
    "/api/assets/firmware.bin",
    "/assets/-_.7",
    "/assets/empty",
]
LEFT_TO_THE_VIEW = [
    # Other spellings.
    f"/configs/{MAC.upper()}.json",
    "/configs/aabbccddeeff.json",
    "/configs/aa:bb:cc:dd:ee:ff.json",
    "/configs/aa-bb-cc-dd-ee:ff.json",
    f"/configs/{MAC}.JSON",
    f"/configs/{MAC}.json\n",
    f"/configs/{MAC}\n.json",
    # Unknown, withheld, unusable.
    "/configs/00-00-00-00-00-00.json",
    "/configs/11-11-11-11-11-11.json",
    "/configs/.json",
    "/configs/x.json",
    "/assets/none.bin",
    "/assets/withheld.bin",
    # Made of another file.
    "/assets/firmware.bin.md5",
    "/api/assets/firmware.bin.sha256",
    "/assets/image.bin.manifest.json",
    "/assets/firmware.bin.manifest.json",
    "/assets/withheld.bin.md5",
    "/assets/.hidden",
    "/assets/.new-0123456789abcdef0123456789abcdef",
    "/configs/.new-0123456789abcdef0123456789abcdef",
    "/configs/.new-0123456789abcdef0123456789abcdef.json",
    "/assets/two..dots",
    "/assets/..",
    "/assets/../configs/aa-bb-cc-dd-ee-ff.json",
    "/assets/" + "x" * 200,
    "/assets/" + "x" * 201,
    "/assets/with space.bin",
    "/assets/Schl\u00c3\u00bcssel.bin",
    "/assets/\u00ff.bin",
    "/assets/nul\0.bin",
    "/assets/firmware.bin\n",
    "/assets/firmware.bin/",
    "/assets/directory",
    "/assets/link",
    "/assets/%66irmware.bin",
    "/assets/a/b",
    "/assets/a\\b",
    "/assets/",
    # Elsewhere.
    f"//configs/{MAC}.json",
    f"/api//configs/{MAC}.json",
    f"/api/api/configs/{MAC}.json",
    f"/apiconfigs/{MAC}.json",
    f"/configs//{MAC}.json",
    f"/Configs/{MAC}.json",
    f"/x/../configs/{MAC}.json",
    f"http://localhost/configs/{MAC}.json",
    f"configs/{MAC}.json",
    "",
    "/",
    "*",
]
HEADERS: list[dict[str, str]] = [
    {},
    {"HTTP_HOST": "anything.example:99"},
    {"HTTP_COOKIE": "csrftoken=bad; sessionid=x; messages=y"},
    {"QUERY_STRING": "a=1&b=%2e"},
    {"CONTENT_LENGTH": "0", "CONTENT_TYPE": "text/plain; charset=none"},
    {"HTTP_ACCEPT_ENCODING": "gzip", "HTTP_X_REQUESTED_WITH": "XMLHttpRequest"},
    {"HTTP_IF_NONE_MATCH": ETAG},
    {"HTTP_IF_NONE_MATCH": f'W/{ASSET_ETAG}, "x"'},
    {"HTTP_IF_NONE_MATCH": "*"},
    {"HTTP_IF_NONE_MATCH": '"x"', "HTTP_IF_MODIFIED_SINCE": NOW},
    {"HTTP_IF_MODIFIED_SINCE": NOW},
    {"HTTP_IF_MODIFIED_SINCE": LONG_AGO},
    {"HTTP_IF_MODIFIED_SINCE": "yesterday"},
    {"HTTP_IF_MATCH": ETAG},
    {"HTTP_IF_MATCH": '"x"'},
    {"HTTP_IF_UNMODIFIED_SINCE": LONG_AGO},
    {"HTTP_RANGE": "bytes=0-0"},
    {"HTTP_RANGE": "bytes=5-"},
    {"HTTP_RANGE": "bytes=-3"},
    {"HTTP_RANGE": "bytes=70000-200000"},
    {"HTTP_RANGE": "bytes=0-1,3-4"},
    {"HTTP_RANGE": "bytes=9999999-"},
    {"HTTP_RANGE": "bytes=1-2", "HTTP_IF_RANGE": ASSET_ETAG},
    {"HTTP_RANGE": "bytes=1-2", "HTTP_IF_RANGE": '"x"'},
]


class Answered(NamedTuple):
    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Both:
    """The same request to the view and to the wrapper ahead of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.view = WSGIHandler()
        self.fast = FastDownloadsMiddleware(self._fall_through)
        self.fell_through = False

    def _fall_through(self, environ: Any, start_response: Any) -> Any:
        self.fell_through = True
        return self.view(environ, start_response)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[Answered, Answered]:
        """What the view answers, and what the wrapper does."""
        self.fell_through = False
        return call(self.view, environ(path, method, headers)), call(self.fast, environ(path, method, headers))


def environ(path: str, method: str, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        **headers,
    }


def call(application: Any, asked: dict[str, Any]) -> Answered:
    started: list[Any] = []
    body = application(asked, lambda status, headers: started.append((status, headers)))
    try:
        content = b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    [(status, headers)] = started
    return Answered(status, headers, content)


@pytest.fixture(autouse=True)
def no_connections_to_close() -> Iterator[None]:
    """The database is not asked for here."""
    for signal in [request_started, request_finished]:
        signal.disconnect(close_old_connections)
    yield
    for signal in [request_started, request_finished]:
        signal.connect(close_old_connections)


@pytest.fixture
def both(directories: Path) -> Both:
    configs, assets = mirror_storage("configs"), mirror_storage("assets")
    put(configs, f"{MAC}.json", CONFIG)
    put(configs, "11-11-11-11-11-11.json", b"{}")
    configs.withhold("11-11-11-11-11-11.json")
    for name, content in [("firmware.bin", ASSET), ("-_.7", b"x"), ("empty", b""), ("withheld.bin", b"x")]:
        put(assets, name, content)
    put(assets, "with space.bin", b"x")
    put(assets, "image.bin", make_image())
    assets.withhold("withheld.bin")
    for alias in ["configs", "assets"]:
        (directories / alias / ".new-0123456789abcdef0123456789abcdef").write_bytes(b"not yet")
        (directories / alias / ".new-0123456789abcdef0123456789abcdef").chmod(0o644)
    (directories / "assets" / "directory").mkdir()
    (directories / "assets" / "link").symlink_to("firmware.bin")
    return Both(directories)


def put(mirror: MirrorStorage, name: str, content: bytes) -> None:
    mirror.replace(name, mirror.stage([content]))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ANSWERED_FAST)
def test_a_usual_download_is_answered_as_the_view_answers_it(both, path, method):
    for headers in HEADERS:
        view, fast = both.ask(path, method, **headers)

        assert fast == view, headers
        assert not both.fell_through


@pytest.mark.parametrize("path", LEFT_TO_THE_VIEW)
def test_anything_unusual_is_left_to_the_view(both, path):
    for headers, method in itertools.product(HEADERS[3:7], ["GET", "HEAD"]):
        view, fast = both.ask(path, method, **headers)

        assert fast == view, headers
        assert both.fell_through


def test_only_what_is_small_is_answered_without_a_thread(both):
    """While an asset is hashed, or read into memory, all other clients of the worker would wait."""
    asked = {
        path: both.fast.answer_quickly({"REQUEST_METHOD": "GET", "PATH_INFO": path})
        for path in [f"/configs/{MAC}.json", "/assets/firmware.bin", "/assets/empty"]
    }

    assert [path for path, answer in asked.items() if answer is not None] == [f"/configs/{MAC}.json"]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "OPTIONS", "get", "PATCH", "TRACE"])
def test_other_methods_are_left_to_the_view(both, method, db):
    view, fast = both.ask("/assets/firmware.bin", method)

    assert fast == view
    assert both.fell_through


def test_below_a_script_name_everything_is_left_to_the_view(both):
    view, fast = both.ask("/assets/firmware.bin", SCRIPT_NAME="/iot")

    assert fast == view
    assert both.fell_through


def test_temporary_and_withheld_files_are_served_by_neither(both):
    for path in [path for path in LEFT_TO_THE_VIEW if re.search("new-|withheld|11-11", path)]:
        view, _ = both.ask(path)

        assert view.status[:3] in {"400", "401", "404"}


def test_a_device_is_told_nothing_about_pages_and_sessions(both):
    view, _ = both.ask("/assets/firmware.bin", HTTP_COOKIE="csrftoken=bad")

    assert [name for name, _ in view.headers] == [
        "ETag",
        "Last-Modified",
        "Cache-Control",
        "Accept-Ranges",
        "X-Content-Type-Options",
        "Content-Type",
        "x-MD5",
        "x-SHA256",
        "Repr-Digest",
        "Content-Length",
    ]


def test_trouble_with_opening_a_file_is_told_by_the_view(both, monkeypatch):
    def fail(path: str, flags: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(contents.os, "open", fail)

    view, fast = both.ask("/assets/firmware.bin")

    assert fast == view
    assert fast.status.startswith("503 ")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"/configs/{MAC}.json", {}, "success"),
        (f"/configs/{MAC}.json", {"HTTP_IF_NONE_MATCH": ETAG}, "success"),
        (f"/configs/{MAC}.json", {"HTTP_IF_MATCH": '"x"'}, "error"),
        (f"/configs/{MAC}.json", {"HTTP_RANGE": "bytes=99-"}, "error"),
        ("/configs/00-00-00-00-00-00.json", {}, "error"),
        ("/configs/x.json", {}, "error"),
    ],
)
def test_both_count_once_and_alike(both, path, headers, status):
    def counts() -> list[float]:
        names = {"operation": "get_raw", "status": status}
        total = REGISTRY.get_sample_value("iot_config_operations_total", names)
        durations = REGISTRY.get_sample_value("iot_config_operation_duration_seconds_count", {"operation": "get_raw"})
        return [total or 0, durations or 0]

    for application in [both.view, both.fast]:
        before = counts()
        call(application, environ(path, "GET", headers))
        assert counts() == [count + 1 for count in before]


def test_an_asset_counts_no_download_of_a_configuration(both):
    before = REGISTRY.get_sample_value("iot_config_operations_total", {"operation": "get_raw", "status": "success"})

    both.ask("/assets/firmware.bin")

    after = REGISTRY.get_sample_value("iot_config_operations_total", {"operation": "get_raw", "status": "success"})
    assert after == before


PARTS = [
    "/",
    "api",
    "configs",
    "esp32",
    "config",
    "assets",
    MAC,
    ".json",
    "firmware.bin",
    "..",
    ".new-",
    "%2e",
    "\n",
    " ",
]


@settings(PATIENT_WITH_FIXTURES, max_examples=150)
@given(path=st.lists(st.sampled_from(PARTS) | st.characters(max_codepoint=255), max_size=8).map("".join))
def test_any_path_gets_the_answer_of_the_view(both, path):
    view, fast = both.ask("/" + path)

    assert fast == view


VALUES = st.sampled_from([ETAG, ASSET_ETAG, "*", NOW, LONG_AGO, "bytes=1-2", "bytes=-1", ""]) | st.text(
    st.characters(min_codepoint=32, max_codepoint=126), max_size=20
)
CONDITIONS = ["IF_MATCH", "IF_NONE_MATCH", "IF_MODIFIED_SINCE", "IF_UNMODIFIED_SINCE", "IF_RANGE", "RANGE"]


@settings(PATIENT_WITH_FIXTURES, max_examples=150)
@given(
    path=st.sampled_from(ANSWERED_FAST),
    method=st.sampled_from(["GET", "HEAD"]),
    headers=st.dictionaries(st.sampled_from([f"HTTP_{name}" for name in CONDITIONS]), VALUES),
)
def test_any_conditions_get_the_answer_of_the_view(both, path, method, headers):
    view, fast = both.ask(path, method, **headers)

    assert fast == view


class TestQuickRequests:
    """Those that the worker reads without gunicorn's parser."""

    HEAD = b"GET /configs/x.json HTTP/1.1\r\nHost: localhost:8000\r\n"

    @pytest.mark.parametrize(
        "more",
        [
            b"",
            b"User-Agent: ESP32 HTTP Client/1.0\r\nContent-Length: 0\r\n",
            b'if-none-match: "x"\r\nConnection: close\r\n',
            b"x-ESP32-version: 1.4.2\r\nx-ESP32-sketch-md5: 0123456789abcdef0123456789abcdef\r\n",
            b"Accept-Encoding:identity;q=1,chunked;q=0.1,*;q=0\r\nConnection: Keep-Alive\r\n",
        ],
    )
    def test_are_what_devices_send(self, more):
        assert parse_quick_request(self.HEAD + more + b"\r\n", "") is not None

    def test_say_what_gunicorn_says(self):
        environ = parse_quick_request(self.HEAD + b'If-None-Match: "x" \r\n\r\n', "192.0.2.7")

        assert environ == {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/configs/x.json",
            "REMOTE_ADDR": "192.0.2.7",
            "HTTP_HOST": "localhost:8000",
            "HTTP_IF_NONE_MATCH": '"x"',
        }

    @pytest.mark.parametrize(
        "head",
        [
            b"GET /x HTTP/1.1\r\n\r\n",
            b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n",
            b"GET /x HTTP/1.1\nHost: a\r\n\r\n",
            b"GET /x%41 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
            *[
                b"GET /x HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n"
                for line in [
                    b"Host: b",
                    b"Content-Length: 1",
                    b"Content-Length: 00",
                    b"Content-Length: +0",
                    b"Transfer-Encoding: chunked",
                    b"Expect: 100-continue",
                    b"Connection: upgrade",
                    b"If_None_Match: x",
                    b"Range : bytes=0-1",
                    b" folded",
                    b"X-Anything: x",
                    b"Script-Name: /x",
                    b"Range: bytes=0-1\r\nRange: bytes=2-3",
                    b"User-Agent: \xff",
                    b"User-Agent: a\nRange: bytes=0-1",
                    b"no colon",
                ]
            ],
            b"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: \r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: " + b"x" * 5000 + b"\r\n\r\n",
        ],
    )
    def test_are_nothing_else(self, head):
        assert parse_quick_request(head, "") is None
