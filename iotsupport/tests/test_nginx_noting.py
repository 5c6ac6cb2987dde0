"""What boards download through nginx is noted as what they download from the application, and costs no download."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from iotsupport.tests.support.marathons import marathon
from iotsupport.tests.support.module_nginx import *  # noqa: F403
from iotsupport.tests.support.nginx import Nginx
from iotsupport.tests.support.noting import assert_two_hundred_boards_are_where_they_are
from iotsupport.tests.support.server import NEW, Client, Installation, Server, sha256
from iotsupport.tests.support.waiting import LIMIT, poll

FIRMWARE = b"\xe9" * 3_000_000

# Where its reader went away, it loses one datagram; each of several would lose its own.
NGINX_WORKERS = "1"


class Noted(NamedTuple):
    """Of a board's row, what a download changes."""

    state: str
    holds: str | None
    address: str | None
    user_agent: str
    version: str
    md5: str
    asked: int


UNKNOWN = Noted("unknown", None, None, "", "", "", 0)

NOTED = """
SELECT state, holds_sha256, last_address, user_agent, runs_version, runs_md5, asked
FROM iotsupport_board WHERE mac_address = '{mac_address}'
"""


@pytest.fixture(scope="module")
def server(template: Installation, directory: Path) -> Iterator[Server]:
    """Two workers: one of them hears nginx."""
    server = Server(template, directory / "data", WEB_CONCURRENCY="2", CONFIG_MAX_BYTES="9000000").start(*NEW)
    yield server
    server.remove()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def board(server: Server) -> Iterator[str]:
    """A board's MAC address that no other test has."""
    mac_address = f"06-{secrets.token_bytes(5).hex('-')}"
    yield mac_address
    with server.client() as client:
        client.delete(f"/configs/{mac_address}")


def noted(server: Server, mac_address: str) -> Noted:
    rows = server.query(NOTED.format(mac_address=mac_address))
    return Noted(*rows[0]) if rows else UNKNOWN


def wait_until_noted(server: Server, mac_address: str, **expected: Any) -> None:
    poll(lambda: noted(server, mac_address), lambda found: found == found._replace(**expected) != UNKNOWN)


def download(nginx: Nginx, path: str, method: str = "GET", **headers: str) -> requests.Response:
    """As a board does: nothing is said that is not named, and ``_`` stands for ``-``."""
    sent: dict[str, str | None] = {"User-Agent": None}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, nginx.url + path, headers=sent, timeout=LIMIT)


def metric(server: Server, name: str) -> float:
    text = requests.get(f"{server.url}/metrics", timeout=LIMIT).text
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).rpartition(" ")[2])


def test_a_board_that_downloads_holds_what_it_was_sent_and_runs_what_it_says(server, nginx, client, board):
    client.save_config(board, b'{"a": 1}')

    download(nginx, f"/configs/{board}.json", User_Agent="kitchen/1.4.2")

    wait_until_noted(server, board, state="current", holds=sha256(b'{"a": 1}'), version="1.4.2", address="127.0.0.1")
    assert noted(server, board).user_agent == "kitchen/1.4.2"


def test_a_board_is_behind_until_it_downloads_what_was_saved(server, nginx, client, board):
    client.save_config(board, b'{"a": 1}')
    etag = download(nginx, f"/configs/{board}.json").headers["ETag"]
    wait_until_noted(server, board, state="current")
    client.save_config(board, b'{"a": 2}')
    wait_until_noted(server, board, state="behind", holds=sha256(b'{"a": 1}'))

    assert download(nginx, f"/configs/{board}.json", If_None_Match=etag).status_code == 200

    wait_until_noted(server, board, state="current", holds=sha256(b'{"a": 2}'))


def test_a_board_that_is_told_that_nothing_changed_holds_it(server, nginx, client, board):
    client.save_config(board, b'{"a": 1}')
    etag = download(nginx, f"/configs/{board}.json", "HEAD").headers["ETag"]
    wait_until_noted(server, board, address="127.0.0.1")
    assert noted(server, board).state == "never_fetched"

    assert download(nginx, f"/configs/{board}.json", If_None_Match=etag).status_code == 304

    wait_until_noted(server, board, state="current", holds=sha256(b'{"a": 1}'))


def test_a_part_is_held_when_it_reaches_the_end(server, nginx, client, board):
    client.save_config(board, b'{"a": 1}')

    assert download(nginx, f"/configs/{board}.json", Range="bytes=0-3", User_Agent="a/1").status_code == 206
    wait_until_noted(server, board, state="never_fetched", user_agent="a/1")
    assert download(nginx, f"/configs/{board}.json", Range="bytes=4-", User_Agent="a/2").status_code == 206

    wait_until_noted(server, board, state="current", user_agent="a/2")


def test_a_board_says_which_sketch_runs_when_it_downloads_a_firmware(server, nginx, client, board):
    client.save_config(board, b"{}")
    client.upload("firmware.bin", FIRMWARE)
    md5 = "0123456789abcdef" * 2

    download(
        nginx,
        "/assets/firmware.bin",
        User_Agent="ESP32-http-Update",
        x_ESP32_STA_MAC=board.replace("-", ":").upper(),
        x_ESP32_sketch_md5=md5,
        x_ESP32_version="1.4.2",
    )

    wait_until_noted(server, board, md5=md5, version="1.4.2", user_agent="ESP32-http-Update", state="never_fetched")


def test_a_download_that_is_given_up_holds_nothing(server, nginx, client, board):
    # More than there is room for on the way.
    client.save_config(board, b'{"a": "' + b"x" * 8_000_000 + b'"}')
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", nginx.port))
        sock.sendall(f"GET /configs/{board}.json HTTP/1.0\r\nUser-Agent: a/1\r\n\r\n".encode())
        sock.recv(100)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    download(nginx, f"/configs/{board}.json", "HEAD", User_Agent="a/2")

    wait_until_noted(server, board, user_agent="a/2", state="never_fetched", holds=None)


def test_a_board_that_has_no_configuration_waits(server, nginx, board):
    assert download(nginx, f"/configs/{board}.json").status_code == 404

    wait_until_noted(server, board, state="waiting", asked=1, address="127.0.0.1")


@pytest.mark.parametrize("is_asking", [False, True])
def test_nginx_tells_of_what_it_answers_itself_and_of_nothing_else(server, directory, client, board, is_asking):
    client.save_config(board, b'{"a": 1}')
    client.upload("firmware.bin", FIRMWARE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path := directory / f"told-{is_asking}"))
        path.chmod(0o666)
        telling = Nginx(directory / f"telling-{is_asking}", server, is_asking=is_asking, checkins=path).start()
        answered = [f"/configs/{board}.json", "/assets/firmware.bin"]
        passed_on = [f"/configs/{board.upper()}.json", "/configs/0a-00-00-00-ff-ff.json", "/assets/x", "/configs", "/"]
        for uri in answered + passed_on:
            download(telling, uri)
        telling.stop()  # and what its workers had to tell, they told

        told.setblocking(False)
        uris = []
        with suppress(BlockingIOError):
            while datagram := told.recv(65536):
                uris.append(json.loads(datagram[datagram.index(b"{") :])["uri"])

    assert uris == ([] if is_asking else answered)


@pytest.mark.parametrize("name", ["config", "asset"])
def test_what_nginx_asks_the_application_about_is_noted_by_that(server, asking, client, board, name):
    client.save_config(board, b'{"a": 1}')
    client.upload("firmware.bin", FIRMWARE)
    path = f"/configs/{board}.json" if name == "config" else "/assets/firmware.bin"

    assert download(asking, path, User_Agent="a/1", x_ESP32_STA_MAC=board.replace("-", ":")).status_code == 200

    wait_until_noted(server, board, user_agent="a/1", address="127.0.0.1")


@marathon
def test_of_two_hundred_boards_each_is_where_it_is(server, nginx, client):
    assert_two_hundred_boards_are_where_they_are(server, nginx.url, client)


def test_hostile_datagrams_are_counted_and_nothing_else(server, nginx, client, board):
    client.save_config(board, b'{"a": 1}')
    before = metric(server, "iot_checkins_dropped_total")
    hostile = [b"", b"{", b"\xff" * 50_000, b'{"uri": "/configs/../db.sqlite3"}', b"[" * 5000]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(str(server.data_dir / "checkins.sock"))
        for datagram in hostile:
            sock.sendall(datagram)  # waits for room, unlike nginx

    download(nginx, f"/configs/{board}.json")

    wait_until_noted(server, board, state="current")
    poll(lambda: metric(server, "iot_checkins_dropped_total"), lambda now: now == before + len(hostile))


def test_another_worker_listens_when_one_dies(server, nginx, client, board):
    client.save_config(board, b'{"a": 1}')
    download(nginx, f"/configs/{board}.json")
    wait_until_noted(server, board, state="current")
    (listener,) = filter(is_listening, server.workers())

    os.kill(listener, signal.SIGKILL)

    client.close()  # it may have been the one that was connected
    client.save_config(board, b'{"a": 2}')
    # nginx loses one, and finds out by it that nobody reads any more.
    poll(lambda: (download(nginx, f"/configs/{board}.json"), noted(server, board).state)[1], lambda s: s == "current")
    (successor,) = filter(is_listening, server.workers())
    assert successor != listener


def is_listening(pid: int) -> bool:
    sockets = Path("/proc/net/unix").read_text().splitlines()
    inodes = {line.split()[6] for line in sockets if line.endswith("/checkins.sock")}
    opened = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            opened.add(os.readlink(link))
    return not opened.isdisjoint(f"socket:[{inode}]" for inode in inodes)


def test_downloads_go_on_while_nobody_listens_and_are_noted_when_somebody_does(server, nginx, client, board):
    client.save_config(board, b'{"a": 1}')
    server.stop()

    answers = [download(nginx, f"/configs/{board}.json").status_code for _ in range(50)]

    assert answers == [200] * 50
    server.start(*NEW)
    assert noted(server, board).state == "never_fetched"
    poll(lambda: (download(nginx, f"/configs/{board}.json"), noted(server, board).state)[1], lambda s: s == "current")
