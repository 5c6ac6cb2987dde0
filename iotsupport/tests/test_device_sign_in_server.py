"""Devices that must sign in, by a real server and a real nginx: each request by itself, and a password that changes."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from iotsupport.tests.support.module_nginx import *  # noqa: F403
from iotsupport.tests.support.nginx import Nginx
from iotsupport.tests.support.server import NEW, Installation, Server
from iotsupport.tests.support.waiting import LIMIT, poll
from iotsupport.tests.test_nginx import Got, ask

MAC = "aa-bb-cc-dd-ee-ff"
CONFIG = b'{"deviceName": "Kitchen"}'
FIRMWARE = bytes(range(256)) * 1000
# All kinds of download, then what is not there.
PATHS = [
    f"/configs/{MAC}.json",
    f"/api/esp32/config/{MAC.upper()}.json",
    "/assets/firmware.bin",
    "/api/assets/firmware.bin.md5",
]
UNKNOWN = ["/configs/00-00-00-00-00-00.json", "/configs/x.json", "/assets/none.bin", "/assets/none.bin.md5"]

OLD, NEWER = "old+pass/word~~~?", "new~pässword>>>"
TOKEN = "a-token-for-metrics"
# Nginx's own, of a file that it sends by itself.
OF_NGINX = re.compile('"[0-9a-f]+-[0-9a-f]+"')


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"board:{password}".encode()).decode()


@pytest.fixture(scope="module")
def server(template: Installation, directory: Path) -> Iterator[Server]:
    secrets = {"DEVICE_USERNAME": "board", "DEVICE_PASSWORD": f"{NEWER},{OLD}", "METRICS_TOKEN": TOKEN}
    server = Server(template, directory / "data", **secrets).start(*NEW)
    with server.client() as client:
        assert client.save_config(MAC, CONFIG).ok
        assert client.upload("firmware.bin", FIRMWARE).ok
    yield server
    server.remove()


@pytest.fixture(params=["worker", "nginx"])
def port(request: pytest.FixtureRequest, server: Server, nginx: Nginx) -> int:
    return nginx.port if request.param == "nginx" else server.port


def check_refused(got: Got) -> None:
    assert (got.status, got.body) == (401, b"")
    assert got.headers["www-authenticate"] == 'Basic realm="IoT Support", charset="UTF-8"'
    assert got.headers["content-length"] == "0"


def test_both_passwords_are_right_and_any_other_is_wrong(port: int):
    for path in PATHS:
        for password in [OLD, NEWER]:
            assert ask(port, path, Authorization=basic(password)).status == 200
            assert ask(port, path, "HEAD", Authorization=basic(password)).status == 200
        assert ask(port, path, Authorization=basic(OLD), Range="bytes=0-3").status == 206
    assert ask(port, PATHS[0], Authorization=basic(OLD)).body == CONFIG
    assert ask(port, PATHS[2], Authorization=basic(OLD)).body == FIRMWARE
    for path in [*PATHS, *UNKNOWN]:
        for method in ["GET", "HEAD"]:
            check_refused(ask(port, path, method))
            check_refused(ask(port, path, method, Authorization=basic("wrong")))
            check_refused(ask(port, path, method, Authorization=basic("wrong"), Range="bytes=0-3", If_None_Match="*"))


def test_what_is_long_or_strange_is_refused_too(port: int):
    for sent in [
        "Basic " + "A" * 7000,
        basic(OLD) + "A" * 7000,
        f"{basic(OLD)},{basic(OLD)}",
        "Basic \xff",
        "Negotiate x",
    ]:
        check_refused(ask(port, PATHS[0], Authorization=sent))
    # More than a field may have.
    assert ask(port, PATHS[0], Authorization="Basic " + "A" * 40_000).status in {400, 431}


def test_each_request_of_a_connection_signs_in_by_itself(port: int):
    """Sent together: nobody is let in by who asked before, and bytes behind a request are no part of it."""
    asked = [
        (PATHS[0], OLD),
        (PATHS[0], None),
        (PATHS[2], None),
        (PATHS[0], "wrong"),
        (PATHS[0], NEWER),
        (PATHS[2], "x"),
    ]
    heads = [
        f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: {'close' if place == len(asked) - 1 else 'keep-alive'}\r\n"
        + (f"Authorization: {basic(password)}\r\n" if password else "")
        + "\r\n"
        for place, (path, password) in enumerate(asked)
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client:
        client.sendall("".join(heads).encode())
        answers = b"".join(iter(lambda: client.recv(65536), b""))

    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"401", b"401", b"401", b"200", b"401"]
    assert answers.count(CONFIG) == 2
    assert FIRMWARE[:256] not in answers


@pytest.mark.parametrize(
    "smuggled",
    [
        "Authorization : {}",
        "Authorization_: {}",
        "HTTP_AUTHORIZATION: {}",
        "X-A: b\r\n Authorization: {}",
        "X-A: b\rAuthorization: {}",
        "X-Authorization: {}",
        "Proxy-Authorization: {}",
        "Authorization: Basic x\r\nAuthorization: {}",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nAuthorization: {}",
    ],
)
def test_no_other_field_is_taken_for_it(port: int, smuggled: str):
    head = f"GET {PATHS[0]} HTTP/1.1\r\nHost: a\r\n{smuggled.format(basic(OLD))}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client:
        client.sendall(head.encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert re.match(rb"HTTP/1.1 (400|401) ", answer)
    assert CONFIG not in answer


def test_who_is_refused_is_no_board(server: Server, port: int):
    """A board that is let in, and has no configuration either, waits; who was refused before does not."""
    hostile, honest = [f"/configs/02-00-00-00-{port % 100:02}-{number}.json" for number in ["01", "02"]]
    for password in ["wrong", ""]:
        check_refused(ask(port, hostile, Authorization=basic(password)))

    assert ask(port, honest, Authorization=basic(OLD)).status == 404

    waiting = "SELECT mac_address FROM iotsupport_board WHERE state = 'waiting'"
    found = poll(lambda: server.query(waiting), lambda found: (honest[9:-5],) in found)
    assert (hostile[9:-5],) not in found


def test_people_download_what_they_may_view(server: Server, port: int):
    url = f"http://127.0.0.1:{port}"
    with server.administrator() as browser:
        assert browser.get(url + PATHS[0], timeout=LIMIT).content == CONFIG
        assert browser.get(url + PATHS[2], timeout=LIMIT).content == FIRMWARE
    assert ask(port, PATHS[0], Authorization=f"Bearer {server.token}").body == CONFIG
    check_refused(ask(port, PATHS[0], Authorization="Bearer iot_unknown"))
    check_refused(ask(port, PATHS[2], Cookie="sessionid=" + "a" * 32))


@pytest.mark.parametrize("path", ["/metrics", "/api/metrics"])
def test_metrics_are_for_who_has_the_token(port: int, path: str):
    for _ in range(2):  # the second is what the worker keeps of the first
        assert b"iot_refused_downloads_total" in ask(port, path, Authorization=f"Bearer {TOKEN}").body
        for sent in ["", "Bearer x", basic(OLD)]:
            got = ask(port, path, Authorization=sent)
            assert (got.status, got.body) == (401, b"")
            assert got.headers["www-authenticate"] == 'Bearer realm="IoT Support"'
    assert ask(port, "/health").status == 200


def test_simulated_devices_sign_in(server: Server):
    done = server.manage("simulate_devices", "--count=2", "--duration=3")

    assert "2 fetches; 0 announcements heard for them, 0 acted on; 0 failures" in done.stdout


def test_a_password_changes_without_a_gap(server: Server, nginx: Nginx):
    """As docs/devices.md says; nginx asks about whom it does not know, and lets in by itself whom it does."""

    def tell_nginx() -> None:
        assert "systemctl reload nginx" in server.manage("write_device_passwords").stdout
        nginx.reload()

    def who_lets_in(password: str) -> str:
        got = ask(nginx.port, PATHS[0], Authorization=basic(password))
        if got.status == 200:
            return "nginx" if OF_NGINX.fullmatch(got.headers["etag"]) else "application"
        check_refused(got)
        return ""

    def wait_until_let_in(*expected: str) -> None:
        poll(lambda: (who_lets_in(OLD), who_lets_in(NEWER)), lambda found: found == expected)

    try:
        # What it was told before there was a new one.
        server.environ["DEVICE_PASSWORD"] = OLD
        tell_nginx()
        wait_until_let_in("nginx", "application")
        server.environ["DEVICE_PASSWORD"] = f"{NEWER},{OLD}"
        tell_nginx()
        wait_until_let_in("nginx", "nginx")
        for path in PATHS:
            assert ask(nginx.port, path, Authorization=basic(OLD)).status == 200
        for path in [*PATHS, *UNKNOWN]:
            for sent in [basic("wrong"), f"X{basic(OLD)}", f"{basic(OLD)}x", f"{basic(OLD)}, {basic(OLD)}"]:
                check_refused(ask(nginx.port, path, Authorization=sent))
        assert ask(nginx.port, PATHS[0], Authorization=basic(OLD).replace("Basic ", "bASIC   ")).status == 200

        server.stop()
        assert ask(nginx.port, PATHS[0], Authorization=basic(OLD)).body == CONFIG
        for path in [PATHS[0], PATHS[2]]:
            for wrong in ["", basic("wrong")]:
                assert ask(nginx.port, path, Authorization=wrong).status == 503  # the application may know it

        server.environ["DEVICE_PASSWORD"] = NEWER
        server.start(*NEW)
        tell_nginx()
        wait_until_let_in("", "nginx")
        assert ask(server.port, PATHS[0], Authorization=basic(OLD)).status == 401
    finally:
        server.environ["DEVICE_PASSWORD"] = f"{NEWER},{OLD}"
        (server.data_dir / "known_devices.map").unlink()
        server.kill()
        server.start(*NEW)
        nginx.reload()
