"""What devices, scripts and people get through deploy/nginx.conf: what the application says, but for what is listed."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import requests
from django.utils.http import http_date
from requests.adapters import HTTPAdapter

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.images import make_image
from iotsupport.tests.support.module_nginx import *  # noqa: F403
from iotsupport.tests.support.mosquitto import Certificates
from iotsupport.tests.support.nginx import Nginx
from iotsupport.tests.support.server import NEW, Client, Installation, Server, sha256, sign_in
from iotsupport.tests.support.waiting import LIMIT, poll

# A Monday long ago.
MODIFIED = 1_000_000_000
MAC = "aa-bb-cc-dd-ee-ff"
CONFIG = b'{"deviceName": "Kitchen", "interval": 1.0}'
FIRMWARE = bytes(range(256)) * 6000
ETAG = f'"{sha256(FIRMWARE)}"'

ASSETS = {
    "firmware.bin": FIRMWARE,
    "empty.bin": b"",
    "data.json": b"{}",
    "UPPER.BIN": b"1",
    "with space.bin": b"2",
    "a+b&c;d=e,f.bin": b"3",
    "100%25.bin": b"4",
    "what?.bin": b"5",
    "größe #1.bin": b"6",
    "x" * 200: b"7",
    "'<>[]{}|^`~$1$uri.bin": b"8",
    "kitchen.bin": make_image(),
}
# Made of an asset by the application alone.
BESIDE = [
    f"{prefix}/assets/{name}"
    for prefix in ["", "/api"]
    for name in [
        "firmware.bin.md5",
        "kitchen.bin.sha256",
        "kitchen.bin.manifest.json",
        "gr%C3%B6%C3%9Fe%20%231.bin.md5",
    ]
]

# Of each connection or request, not of the answer.
HOP = {"server", "date", "connection", "keep-alive", "transfer-encoding", "x-request-id"}
# What the application tells browsers beside every answer.
BROWSERS = {
    "content-security-policy",
    "cross-origin-opener-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
}


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def without(self, *names: str) -> Got:
        return self._replace(headers={name: value for name, value in self.headers.items() if name not in names})


class FromAddress(HTTPAdapter):
    """Connects from this address."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, source_address=(self.address, 0))


@pytest.fixture(scope="module")
def server(template: Installation, directory: Path) -> Iterator[Server]:
    server = Server(template, directory / "data", ASSET_MAX_BYTES="9000000").start(*NEW)
    with server.client() as client:
        assert client.save_config(MAC, CONFIG).ok
        for name, content in ASSETS.items():
            assert client.upload(name, content).ok
    yield server
    server.remove()


@pytest.fixture(scope="module")
def issued(directory: Path) -> Certificates:
    return Certificates(directory, strict=True)


@pytest.fixture(scope="module")
def tls(server: Server, directory: Path, issued: Certificates) -> Iterator[Nginx]:
    """nginx with the lines for HTTPS."""
    nginx = Nginx(directory / "nginx-tls", server, certificates=issued).start()
    yield nginx
    nginx.stop()


@pytest.fixture(params=["nginx", "asking"])
def either(request: pytest.FixtureRequest) -> Nginx:
    return request.getfixturevalue(request.param)


@pytest.fixture
def client(nginx: Nginx, server: Server) -> Iterator[Client]:
    with Client(nginx.url, server.token) as client:
        yield client


def ask(port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Got:
    """Send the path as it is, and nothing that is not named; ``_`` stands for ``-`` in a header's name."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_accept_encoding=True, skip_host="Host" in sent)
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Got(response.status, found, response.read()).without(*HOP)
    finally:
        connection.close()


# The same, once for all who ask it: of what no test changes.
ask_once = cache(ask)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_each_request_of_people_has_an_id_that_nginx_makes(either: Nginx):
    forged = {"X-Request-ID": "of-a-client"}
    paths = ["/configs", "/admin/login/", "/health", "/health"]

    ids = {requests.get(f"{either.url}{path}", headers=forged, timeout=LIMIT).headers["X-Request-ID"] for path in paths}
    assert len(ids) == len(paths)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    for path in [CONFIG_PATHS[0], "/configs/ff-ff-ff-ff-ff-ff.json"]:
        assert "X-Request-ID" not in requests.get(f"{either.url}{path}", headers=forged, timeout=LIMIT).headers


def test_the_configuration_has_no_mistake_and_no_warning(nginx: Nginx):
    done = subprocess.run(nginx.command("-t"), capture_output=True, text=True, timeout=LIMIT)

    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if not re.search(r"syntax is ok|is successful", line)] == []


# --- The same as from the application ----------------------------------------------------------------------------

CONFIG_PATHS = [
    f"/configs/{MAC}.json",
    f"/esp32/config/{MAC}.json",
    f"/api/configs/{MAC}.json",
    f"/api/esp32/config/{MAC}.json",
    "/configs/AA-BB-CC-DD-EE-FF.json",
    "/configs/aa:bb:cc:dd:ee:ff.json",
    "/configs/aabbccddeeff.json",
    "/api/esp32/config/AABBCCDDEEFF.json",
    f"/configs/{MAC}%2Ejson",
    f"/configs/{MAC}.json?t=1",
]
ASSET_PATHS = [f"{prefix}/assets/{quote(name)}" for prefix in ["", "/api"] for name in ASSETS] + [
    "/assets/firmware.bin?version=2",
    "/assets/%66irmware.bin",
]
# nginx walks them before it looks at a directory, as any HTTP library does before it sends them.
WALKED_PATHS = [
    f"/configs/./{MAC}.json",
    f"/configs/../configs/{MAC}.json",
]
REFUSED_PATHS = [
    f"/configs/{MAC}.JSON",
    f"//configs/{MAC}.json",
    f"/configs//{MAC}.json",
    f"/configs/{MAC}.json/",
    f"/configs/{MAC}%0A.json",
    f"/configs/{MAC}.json%0A",
    f"/configs/{MAC}",
    "/configs/aa-bb-cc-dd-ee-00.json",
    "/configs/aa-bb:cc-dd-ee-ff.json",
    "/configs/kitchen.json",
    "/configs/.json",
    "/configs/..json",
    "/configs",
    "/assets",
    "/assets/",
    "/assets/unknown.bin",
    "/assets/Firmware.bin",
    "/assets/.new-0123456789abcdef",
    "/assets/.hidden",
    "/assets/..",
    "/assets/a..b",
    "/assets/%2e%2e%2fdb.sqlite3",
    "/assets/a%2Fb",
    "/assets/a/b",
    "/assets/a%5Cb",
    "/assets/a%0Ab",
    "/assets/a%7Fb",
    "/assets/%E2%80%A8",
    "/assets/%FF.bin",
    "/assets/" + "x" * 201,
    "/assets/" + "y" * 300,
    "/assets/firmware.bin/",
    "/assets/firmware.bin%0A",
    "/blobs/" + sha256(FIRMWARE),
    "/_blobs/" + sha256(FIRMWARE),
    "/.bad_request",
    "/db.sqlite3",
    "/nowhere",
]


@pytest.mark.parametrize("path", [*CONFIG_PATHS, *ASSET_PATHS])
def test_asked_about_a_download_the_application_says_everything(server: Server, asking: Nginx, path: str):
    for method in ["GET", "HEAD"]:
        expected = ask(server.port, path, method)

        got = ask(asking.port, path, method)

        assert got.without(*BROWSERS) == expected.without(*BROWSERS)
        assert got.status == 200


@pytest.mark.parametrize("path", REFUSED_PATHS)
def test_a_refusal_is_the_application_s(server: Server, either: Nginx, path: str):
    for method in ["GET", "HEAD", "DELETE"]:
        expected = ask_once(server.port, path, method)

        assert ask(either.port, path, method) == expected
        assert expected.status >= 400


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [CONFIG_PATHS[0], CONFIG_PATHS[3], ASSET_PATHS[0], "/configs", "/api/assets"])
def test_what_changes_something_is_the_application_s(server: Server, either: Nginx, path: str, method: str):
    expected = ask_once(server.port, path, method, b"{}", Content_Length="2")

    assert ask(either.port, path, method, b"{}", Content_Length="2") == expected
    assert expected.status in {401, 405}


@pytest.mark.parametrize("path", WALKED_PATHS)
def test_the_application_sees_the_path_as_it_was_sent(server: Server, asking: Nginx, path: str):
    assert ask(asking.port, path) == ask(server.port, path)


CONDITIONS = [
    {"If_None_Match": ETAG},
    {"If_None_Match": "W/" + ETAG},
    {"If_None_Match": f'"x", {ETAG}'},
    {"If_None_Match": "*"},
    {"If_None_Match": '"x"'},
    {"If_None_Match": ETAG.strip('"')},
    {"If_Match": ETAG},
    {"If_Match": "W/" + ETAG},
    {"If_Match": "*"},
    {"If_Match": '"x"'},
    {"If_Modified_Since": "date"},
    {"If_Modified_Since": "Sun, 09 Sep 2001 01:46:40 GMT"},
    {"If_Modified_Since": "Sun, 09 Sep 2091 01:46:40 GMT"},
    {"If_Modified_Since": "yesterday"},
    {"If_Modified_Since": "kept"},
    {"If_Modified_Since": "kept", "If_None_Match": '"x"'},
    {"If_Modified_Since": "date", "If_None_Match": '"x"'},
    {"If_Unmodified_Since": "date"},
    {"If_Unmodified_Since": "kept"},
    {"If_Unmodified_Since": "Sun, 09 Sep 2001 01:46:40 GMT"},
    {"Range": "bytes=0-0"},
    {"Range": "bytes=5-"},
    {"Range": "bytes=-5"},
    {"Range": "bytes=0-"},
    {"Range": "bytes=1535999-"},
    {"Range": "bytes=1536000-"},
    {"Range": "bytes=-0"},
    {"Range": "bytes=9-5"},
    {"Range": "bytes=0-1,5-6"},
    {"Range": "bytes=0-1,5-6,9999999-"},
    {"Range": "lines=1-2"},
    {"Range": "bytes=5-9", "If_Range": ETAG},
    {"Range": "bytes=5-9", "If_Range": '"x"'},
    {"Range": "bytes=5-9", "If_Range": "date"},
    {"Range": "bytes=5-9", "If_Range": "kept"},
    {"Range": "bytes=5-9", "If_Match": ETAG},
    {"Range": "bytes=9999999-", "If_Range": '"x"'},
    {"Range": "bytes=5-9", "If_None_Match": ETAG},
    {"Accept_Encoding": "gzip, deflate, br"},
    {"Accept_Encoding": "identity;q=0, gzip"},
    {"TE": "trailers"},
    {"Host": "10.1.2.3"},
    {"X_Sendfile_Type": "X-Accel-Redirect", "If_Match": ETAG},
    {"X_Accel_Redirect": "/_blobs/x"},
]


# The file that nginx sends may be older or newer than the mirrored one.
@pytest.mark.parametrize("kept", [MODIFIED, 2 * MODIFIED])
@pytest.mark.parametrize("headers", CONDITIONS, ids=str)
def test_asked_about_conditions_and_ranges_the_application_judges_them(
    server: Server, asking: Nginx, headers: dict[str, str], kept: int
):
    path = "/assets/firmware.bin"
    os.utime(server.directory("blobs") / sha256(FIRMWARE), (kept, kept))
    dates = {"date": ask(server.port, path, "HEAD").headers["last-modified"], "kept": http_date(kept)}
    headers = {name: dates.get(value, value) for name, value in headers.items()}
    known = {name: value for name, value in headers.items() if not name.startswith("X_")}
    for method in ["GET", "HEAD"]:
        expected = ask(server.port, path, method, None, **known)

        got = ask(asking.port, path, method, None, **headers)

        assert got.without(*BROWSERS) == expected.without(*BROWSERS)


@pytest.mark.parametrize("path", [f"/configs/{MAC}.json", "/assets/firmware.bin"])
def test_nothing_is_compressed(either: Nginx, path: str):
    got = ask(either.port, path, Accept_Encoding="gzip, deflate, br")

    assert "content-encoding" not in got.headers
    assert got.headers["content-length"] == str(len(got.body))


@pytest.mark.parametrize("path", [f"/configs/{MAC}.json", "/assets/firmware.bin"])
def test_a_device_that_speaks_http_1_0_gets_exact_bytes(either: Nginx, path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http.client.HTTPConnection, "_http_vsn_str", "HTTP/1.0")
    monkeypatch.setattr(http.client.HTTPConnection, "_http_vsn", 10)

    got = ask(either.port, path)

    assert (got.status, got.body) == (200, CONFIG if "configs" in path else FIRMWARE)
    assert got.headers["content-length"] == str(len(got.body))


def test_a_request_that_nginx_cannot_read_is_refused_in_json(nginx: Nginx):
    got = ask(nginx.port, f"/configs/{MAC}%00.json")

    assert (got.status, got.headers["content-type"]) == (400, "application/json")
    assert b'"code": "BAD_REQUEST"' in got.body


# --- Whose bytes they are ----------------------------------------------------------------------------------------


def test_asked_about_an_asset_the_application_leaves_the_bytes_to_nginx(server: Server, asking: Nginx, client: Client):
    client.upload("painted.bin", b"the kept bytes")
    # So that one can tell: the application reads the mirror.
    (server.directory("blobs") / sha256(b"the kept bytes")).write_bytes(b"the PAINTED BYTES")

    assert ask(asking.port, "/assets/painted.bin").body == b"the PAINTED BYTES"


@pytest.mark.parametrize("damage", ["missing", "unreadable"])
def test_an_asset_whose_kept_bytes_are_out_of_reach_comes_from_the_application(
    server: Server, asking: Nginx, client: Client, damage: str
):
    content = f"kept bytes that are {damage}".encode()
    # Not one name for both: saved twice in a second, it would be dated ahead, and such a date is cut to the answer's.
    client.upload(f"{damage}.bin", content)
    kept = server.directory("blobs") / sha256(content)
    if damage == "missing":
        kept.unlink()
    else:
        kept.chmod(0o600)

    got = ask(asking.port, f"/assets/{damage}.bin")

    assert got == ask(server.port, f"/assets/{damage}.bin")
    assert (got.status, got.body) == (200, content)


@pytest.mark.parametrize("path", BESIDE)
def test_what_is_made_of_an_asset_is_the_application_s(server: Server, either: Nginx, path: str):
    etag = ask(server.port, path, "HEAD").headers["etag"]
    for method, headers in [
        ("GET", {}),
        ("HEAD", {}),
        ("GET", {"If_None_Match": etag}),
        ("GET", {"Range": "bytes=2-4"}),
    ]:
        expected = ask(server.port, path, method, None, **headers)

        assert ask(either.port, path, method, None, **headers) == expected
        assert expected.status in {200, 206, 304}


def test_a_real_asset_of_such_a_name_goes_first(server: Server, either: Nginx, client: Client):
    client.upload("real.bin", b"x")
    client.upload("real.bin.md5", b"a file of this name")

    assert ask(either.port, "/assets/real.bin.md5").body == b"a file of this name"


def test_a_board_that_says_what_it_runs_is_told_where_that_is_chosen(server: Server, either: Nginx, client: Client):
    content = make_image(project=b"chosen")
    assert client.post(
        "/assets", files={"file": ("chosen.bin", content)}, data={"unchanged_where_running": "true"}
    ).json()["unchanged_where_running"]
    for path in ["/assets/chosen.bin", "/api/assets/chosen.bin"]:
        for said in [
            {"x_ESP32_sketch_md5": md5(content)},
            {"x_ESP32_sketch_sha256": content[-32:].hex().upper()},
            {"x_ESP8266_sketch_md5": md5(content)},
        ]:
            got = ask(either.port, path, "GET", None, **said)

            assert (got.status, got.body) == (304, b"")
        other = ask(either.port, path, x_ESP32_sketch_md5="0" * 32)
        assert (other.status, other.body) == (200, content)
        assert (other.headers["x-md5"], other.headers["x-sha256"]) == (md5(content), sha256(content))
        assert ask(either.port, path)[::2] == (200, content)
    assert ask(either.port, "/assets/kitchen.bin", x_ESP32_sketch_md5=md5(ASSETS["kitchen.bin"])).status == 200


def test_only_what_such_boards_ask_of_such_assets_costs_the_application(nginx: Nginx, client: Client):
    client.post("/assets", files={"file": ("asked.bin", b"x")}, data={"unchanged_where_running": "true"})

    asked = [
        "x-md5" in ask(nginx.port, f"/assets/{name}", "GET", None, **said).headers
        for name in ["asked.bin", "kitchen.bin"]
        for said in [{}, {"x_ESP32_sketch_md5": "0" * 32}]
    ]

    assert asked == [False, True, False, False]


def test_a_client_cannot_ask_for_a_place_instead_of_bytes(asking: Nginx):
    got = ask(asking.port, "/assets/firmware.bin", X_Sendfile_Type="X-Accel-Redirect")

    assert got.body == FIRMWARE
    assert "x-accel-redirect" not in got.headers


@pytest.mark.skipif(os.geteuid() != 0, reason="nginx runs as the server's user, who may read everything")
def test_a_file_that_is_withheld_is_not_there(server: Server, either: Nginx):
    withheld = server.directory("assets") / "withheld.bin"
    withheld.write_bytes(b"unknown to the database")
    withheld.chmod(0o600)

    got = ask(either.port, "/assets/withheld.bin")

    assert got == ask(server.port, "/assets/withheld.bin")
    assert got.status == 404
    withheld.unlink()


def test_a_symbolic_link_is_not_there(server: Server, asking: Nginx):
    link = server.directory("assets") / "link.bin"
    link.symlink_to(server.data_dir / "db.sqlite3")

    assert ask(asking.port, "/assets/link.bin").status == 404
    link.unlink()


# --- While things change -----------------------------------------------------------------------------------------


def test_an_asset_that_is_overwritten_is_whole_in_every_download(server: Server, either: Nginx):
    versions = [bytes([number]) * (1_500_000 + 1000 * number) for number in range(10)]
    md5 = {sha256(version): hashlib.md5(version, usedforsecurity=False).hexdigest() for version in versions}
    done = threading.Event()
    downloads: list[tuple[Got, str]] = []

    def download() -> None:
        while not done.is_set():
            got = ask(either.port, "/assets/overwritten.bin")
            downloads.append((got._replace(body=b""), sha256(got.body)))

    with server.client() as client, ThreadPoolExecutor() as devices:
        client.upload("overwritten.bin", versions[0])
        running = [devices.submit(download) for _ in range(3)]
        try:
            for version in versions:
                client.upload("overwritten.bin", version)
                count = len(downloads)
                poll(lambda count=count: len(downloads), lambda seen, count=count: seen > count)  # type: ignore[misc]
        finally:
            done.set()
        for device in running:
            device.result()

    assert {got.status for got, _ in downloads} == {200}
    assert {digest for _, digest in downloads} <= set(md5)
    for got, digest in downloads:
        if "x-md5" in got.headers:
            assert got.headers["etag"] == f'"{digest}"'
            assert got.headers["x-md5"] == md5[digest]
    seen = {(got.headers["etag"], digest) for got, digest in downloads}
    assert len({etag for etag, _ in seen}) == len(seen) > 1


def test_new_bytes_can_be_downloaded_as_soon_as_they_are_saved(server: Server, either: Nginx):
    # Files of their own: saved so often, they are dated ahead, for which the application says another date each second.
    fresh = "00-00-00-00-00-04"
    with server.client() as client, requests.Session() as device:
        for number in range(20):
            client.save_config(fresh, b'{"interval": %d}' % number)
            client.upload("fresh.bin", b"%d" % number)

            assert device.get(f"{either.url}/configs/{fresh}.json", timeout=LIMIT).json() == {"interval": number}
            assert device.get(f"{either.url}/assets/fresh.bin", timeout=LIMIT).content == b"%d" % number


def test_a_replaced_file_has_another_etag(server: Server, either: Nginx):
    etags = set()
    with server.client() as client:
        for content in [b"one", b"two", b"six"]:
            client.upload("replaced.bin", content)
            etags.add(ask(either.port, "/assets/replaced.bin").headers["etag"])

    assert len(etags) == 3


# --- People and scripts ------------------------------------------------------------------------------------------


def test_an_administrator_signs_in_and_saves(nginx: Nginx):
    with requests.Session() as browser:
        browser.headers.update({"Origin": nginx.url, "Referer": f"{nginx.url}/admin/"})

        def post(path: str, **fields: str) -> requests.Response:
            page = browser.get(nginx.url + path, timeout=LIMIT)
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
            assert token, page.text
            return browser.post(nginx.url + path, data={"csrfmiddlewaretoken": token[1], **fields}, timeout=LIMIT)

        assert (
            "/admin/logout/"
            in post("/admin/login/?next=/admin/", username="admin", password="pigeons-and-mirrors").text
        )
        saved = post("/admin/devices/deviceconfig/add/", mac_address="00-00-00-00-00-01", content='{"a": 1}')

    assert "was added successfully" in saved.text
    assert ask(nginx.port, "/configs/00-00-00-00-00-01.json").body == b'{"a": 1}'


def test_what_the_admin_shows_is_there(nginx: Nginx):
    for path in [
        "/admin/login/",
        "/static/admin/css/base.css",
        "/api/docs",
        "/api/openapi.json",
        "/health",
        "/metrics",
    ]:
        assert ask(nginx.port, path).status == 200, path


def test_a_script_uploads_some_megabytes(client: Client, nginx: Nginx):
    content = os.urandom(8_000_000)

    assert client.upload("large.bin", content).json()["sha256"] == sha256(content)
    assert ask(nginx.port, "/assets/large.bin").body == content


def test_a_script_saves_and_deletes_through_it(client: Client, nginx: Nginx):
    path = "/configs/00-00-00-00-00-02.json"

    assert client.save_config("00-00-00-00-00-02", b'{"a": 1}').status_code == 200
    etag = client.get(path.removesuffix(".json")).headers["ETag"]
    assert client.put(path, data=b'{"a": 2}', headers={"If-Match": '"other"'}).status_code == 412
    assert client.put(path, data=b'{"a": 2}', headers={"If-Match": etag}).status_code == 200
    assert client.delete(path.removesuffix(".json")).status_code == 204
    assert ask(nginx.port, path).status == 404


def test_a_script_that_does_not_say_how_much_comes_is_helped_by_nginx(client: Client):
    answer = client.put("/configs/00-00-00-00-00-03.json", data=iter([b'{"a":', b" 1}"]))

    assert answer.json()["content"] == {"a": 1}


def test_an_asset_that_is_too_large_is_refused_by_the_application(client: Client):
    answer = client.upload("a.bin", b"x" * 9_000_001)

    assert (answer.status_code, answer.json()["code"]) == (413, "TOO_LARGE")
    assert "ASSET_MAX_BYTES" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/assets", "/api/assets", f"/configs/{MAC}.json", "/assets/firmware.bin", "/admin/"])
def test_a_body_that_is_far_too_large_is_refused_before_it_is_sent(nginx: Nginx, path: str):
    got = ask(nginx.port, path, "POST", Content_Length="90000000")

    assert (got.status, got.headers["content-type"]) == (413, "application/json")
    assert b'"code": "TOO_LARGE"' in got.body


def test_failed_sign_ins_are_counted_for_the_client_whatever_it_says(server: Server, nginx: Nginx):
    with requests.Session() as browser:
        browser.headers.update({"Referer": f"{nginx.url}/admin/", "X-Forwarded-For": "192.0.2.7"})
        browser.mount("http://", FromAddress("127.0.0.2"))
        assert sign_in(browser, nginx.url, "nobody", "guessed").ok

    [[address]] = server.query("SELECT ip_address FROM axes_accessattempt WHERE username = 'nobody'")
    assert str(address) == "127.0.0.2"


def test_a_name_that_is_not_the_server_s_is_for_devices_alone(nginx: Nginx):
    assert ask(nginx.port, f"/configs/{MAC}.json", Host="iot.example.com").status == 200
    assert ask(nginx.port, "/admin/", Host="iot.example.com").status == 400


# --- HTTPS for people -----------------------------------------------------------------------------------------------

FOR_PEOPLE = [
    ("GET", "/admin/"),
    ("GET", "/admin"),
    ("POST", "/admin/login/?next=/admin/"),
    ("GET", "/api"),
    ("GET", "/api/docs"),
    ("GET", "/api/configs"),
    ("GET", f"/api/configs/{MAC}"),
    ("PUT", f"/api/configs/{MAC}.json"),
    ("DELETE", f"/api/configs/{MAC}"),
    ("POST", "/api/assets"),
    ("GET", "/api/assets"),
    ("DELETE", "/api/assets/firmware.bin"),
]


def test_with_https_the_configuration_has_no_mistake_either(tls: Nginx):
    test_the_configuration_has_no_mistake_and_no_warning(tls)


@pytest.mark.parametrize(("method", "path"), FOR_PEOPLE)
def test_people_are_sent_to_https(tls: Nginx, method: str, path: str):
    got = ask(tls.port, path, method)

    assert (got.status, got.headers["location"]) == (308, f"https://127.0.0.1{path}")


@pytest.mark.parametrize(
    "path", [*CONFIG_PATHS, *ASSET_PATHS, "/health", "/api/health", "/metrics", "/assets/none", "/api/assets/none"]
)
def test_devices_keep_plain_http(nginx: Nginx, tls: Nginx, path: str):
    for method in ["GET", "HEAD"]:
        got = ask(tls.port, path, method)

        assert got.status == ask(nginx.port, path, method).status
        assert "strict-transport-security" not in got.headers


def test_without_https_nobody_is_sent_anywhere(nginx: Nginx):
    assert ask(nginx.port, "/api/configs").status == 401
    assert ask(nginx.port, "/admin/login/").status == 200
    assert "strict-transport-security" not in ask(nginx.port, "/admin/login/").headers


def test_over_https_browsers_stay_and_cookies_are_secure(server: Server, tls: Nginx, issued: Certificates):
    url = f"https://127.0.0.1:{tls.tls_port}"
    with requests.Session() as browser:
        browser.trust_env, browser.verify = False, str(issued.ca_file)
        browser.headers["Referer"] = f"{url}/admin/"
        first = browser.get(f"{url}/admin/login/", timeout=LIMIT)
        assert sign_in(browser, url, "admin", "pigeons-and-mirrors").ok
        page = browser.get(f"{url}/admin/", timeout=LIMIT)
        download = browser.get(f"{url}/configs/{MAC}.json", timeout=LIMIT)
        cookie = f"sessionid={browser.cookies['sessionid']}"

        assert first.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert {cookie.name: cookie.secure for cookie in browser.cookies} == {"csrftoken": True, "sessionid": True}
        assert page.url == f"{url}/admin/"
        assert (download.content, "Strict-Transport-Security" in download.headers) == (CONFIG, False)
    # Past nginx, and without HTTPS.
    assert ask(server.port, "/admin/", Cookie=cookie).status == 302


# --- Without asking the application --------------------------------------------------------------------------------

# "What differs" in docs/nginx.md has these.
LEFT_OUT = {"x-md5", "x-sha256", "repr-digest", *BROWSERS} - {"x-content-type-options"}
REFUSALS = {412: b'"code": "PRECONDITION_FAILED"', 416: b'"code": "RANGE_NOT_SATISFIABLE"'}
# With what the application says, and nginx.
JUDGED_OTHERWISE: list[tuple[dict[str, str], int, int]] = [
    ({"If_Modified_Since": "Sun, 09 Sep 2091 01:46:40 GMT"}, 304, 200),
    ({"If_None_Match": ETAG, "If_Modified_Since": "kept"}, 304, 200),
    ({"Range": "bytes=9-5"}, 200, 416),
]
JUDGED_ALIKE = [headers for headers in CONDITIONS if headers not in [otherwise for otherwise, *_ in JUDGED_OTHERWISE]]
# How the mirror spells them.
EXACT_PATHS = [*CONFIG_PATHS[:4], *CONFIG_PATHS[8:], *ASSET_PATHS]


def expected_without_asking(said: Got, etag: str) -> Got:
    """What the application said, as nginx says it."""
    left_out = LEFT_OUT | ({"accept-ranges"} if said.status in {206, 304} else set())
    said = said.without(*left_out)
    return said._replace(headers=said.headers | {"etag": etag})


@pytest.mark.parametrize("path", EXACT_PATHS)
def test_without_asking_only_the_listed_headers_differ(server: Server, nginx: Nginx, path: str):
    for method in ["GET", "HEAD"]:
        said = ask(server.port, path, method)

        got = ask(nginx.port, path, method)

        assert re.fullmatch('"[0-9a-f]+-[0-9a-f]+"', got.headers["etag"])
        assert got == expected_without_asking(said, got.headers["etag"])


@pytest.mark.parametrize("path", CONFIG_PATHS[4:8])
def test_another_spelling_is_the_application_s(server: Server, nginx: Nginx, path: str):
    assert ask(nginx.port, path) == ask(server.port, path)


def ask_both(server: Server, nginx: Nginx, headers: dict[str, str]) -> tuple[Got, Got]:
    """What the application says, and what nginx says to who had the file from it."""
    path = "/assets/firmware.bin"
    had = ask(nginx.port, path, "HEAD").headers
    dates = {"date": had["last-modified"], "kept": http_date(MODIFIED)}
    sent = {name: dates.get(value, value) for name, value in headers.items() if not name.startswith("X_")}
    by_nginx = {name: value.replace(ETAG, had["etag"]) for name, value in sent.items()}
    return expected_without_asking(ask(server.port, path, "GET", None, **sent), had["etag"]), ask(
        nginx.port, path, "GET", None, **by_nginx
    )


@pytest.mark.parametrize("headers", JUDGED_ALIKE, ids=str)
def test_without_asking_conditions_and_ranges_are_judged_alike(server: Server, nginx: Nginx, headers: dict[str, str]):
    said, got = ask_both(server, nginx, headers)

    if got.status in REFUSALS:
        assert got.status == said.status
        assert got.headers["content-type"] == "application/json"
        assert got.headers.get("content-range") == said.headers.get("content-range")
        assert REFUSALS[got.status] in got.body
    else:
        assert got == said


@pytest.mark.parametrize(("headers", "said_status", "got_status"), JUDGED_OTHERWISE, ids=str)
def test_without_asking_some_conditions_and_ranges_are_judged_otherwise(
    server: Server, nginx: Nginx, headers: dict[str, str], said_status: int, got_status: int
):
    said, got = ask_both(server, nginx, headers)

    assert (said.status, got.status) == (said_status, got_status)


def test_every_header_that_is_left_out_is_listed():
    documentation = (BASE_DIR / "docs/nginx.md").read_text().lower()

    assert [header for header in LEFT_OUT if f"`{header}`" not in documentation] == []


def test_without_asking_a_range_counts_for_head_too(nginx: Nginx):
    assert ask(nginx.port, "/assets/firmware.bin", "HEAD", Range="bytes=5-9").status == 206


@pytest.mark.parametrize("path", [f"/configs/{MAC}.json", "/assets/firmware.bin"])
def test_with_the_application_s_etag_a_device_loads_once_more(server: Server, nginx: Nginx, path: str):
    etag = ask(server.port, path).headers["etag"]

    got = ask(nginx.port, path, If_None_Match=etag)

    assert (got.status, got.body) == (200, ask(server.port, path).body)
    assert ask(nginx.port, path, If_None_Match=got.headers["etag"]).status == 304
    assert ask(nginx.port, path, Range="bytes=5-9", If_Range=etag).status == 200


def test_a_script_is_told_that_nginx_s_etag_is_not_the_configuration_s(client: Client, nginx: Nginx):
    mac_address = "00-00-00-00-00-05"
    client.save_config(mac_address, CONFIG)
    etag = ask(nginx.port, f"/configs/{mac_address}.json").headers["etag"]

    refused = client.put(f"/configs/{mac_address}.json", data=CONFIG, headers={"If-Match": etag})

    assert (refused.status_code, refused.json()["code"]) == (412, "PRECONDITION_FAILED")
    assert "Fetch it again" in refused.json()["error"]
    etag = client.get(f"/configs/{mac_address}").headers["ETag"]
    assert client.put(f"/configs/{mac_address}.json", data=CONFIG, headers={"If-Match": etag}).status_code == 200


# --- Without the application -------------------------------------------------------------------------------------


def test_without_the_application_devices_go_on(server: Server, nginx: Nginx, asking: Nginx):
    """It is stopped and started once for all of this."""
    had = ask(asking.port, CONFIG_PATHS[0]).headers["etag"]
    with server.client() as client:
        client.post("/assets", files={"file": ("chosen.bin", b"x")}, data={"unchanged_where_running": "true"})
    server.stop()
    try:
        for either in [nginx, asking]:
            check_that_devices_go_on(either)
        got = ask(asking.port, CONFIG_PATHS[0], If_None_Match=had)
    finally:
        server.start(*NEW)

    # A device keeps the version that it has.
    assert (got.status, got.headers["retry-after"]) == (503, "5")
    assert ask(asking.port, CONFIG_PATHS[0], If_None_Match=had).status == 304


def check_that_devices_go_on(either: Nginx) -> None:
    for path in [CONFIG_PATHS[0], CONFIG_PATHS[3]]:
        assert ask(either.port, path)[::2] == (200, CONFIG)
    for name, content in ASSETS.items():
        assert ask(either.port, f"/api/assets/{quote(name)}")[::2] == (200, content)
    assert ask(either.port, ASSET_PATHS[0], "HEAD").headers["content-length"] == str(len(FIRMWARE))
    assert ask(either.port, ASSET_PATHS[0], Range="bytes=5-9").body == FIRMWARE[5:10]

    # A board that may run it already keeps it; who says nothing gets it.
    said = {"x_ESP32_sketch_md5": "0" * 32}
    assert [ask(either.port, "/assets/chosen.bin", "GET", None, **headers).status for headers in [{}, said]] == [
        200,
        503,
    ]
    assert ask(either.port, "/assets/kitchen.bin", "GET", None, **said).status == 200

    # A device that asks again is not told that its file is gone, nor is anything else said that nobody knows.
    refused = [
        ask(either.port, path) for path in ["/assets/unknown.bin", "/configs/AABBCCDDEEFF.json", "/health", BESIDE[0]]
    ]
    refused += [ask(either.port, path, "DELETE") for path in [CONFIG_PATHS[0], ASSET_PATHS[0]]]
    for got in refused:
        assert (got.status, got.headers["content-type"]) == (503, "application/json")
        assert got.headers["retry-after"] == "5"
        assert b'"code": "UNAVAILABLE"' in got.body


# --- Slow devices --------------------------------------------------------------------------------------------------


def test_slow_devices_hold_no_thread_of_the_application(template: Installation, directory: Path):
    """Two threads, and four devices that read nothing of what the application sends."""
    content = os.urandom(8_000_000)
    server = Server(template, directory / "small").start(*NEW, "--workers=1", "--threads=2")
    nginx = Nginx(directory / "nginx-small", server, is_asking=True).start()
    try:
        with ExitStack() as devices, server.client() as client:
            client.upload("large.bin", content)
            for _ in range(4):
                device = devices.enter_context(socket.socket())
                device.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                device.settimeout(LIMIT)
                device.connect(("127.0.0.1", nginx.port))
                device.sendall(b"GET /assets/large.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=0-\r\n\r\n")
                assert device.recv(12) == b"HTTP/1.1 206"

            assert ask(server.port, "/health").status == 200
    finally:
        nginx.stop()
        server.remove()
