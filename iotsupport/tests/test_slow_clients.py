"""Clients that take their time, that stall, or that never finish asking; everybody else is served meanwhile."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests

from iotsupport.tests.support.server import NEW, NEW_CONF, Installation, Server, sha256
from iotsupport.tests.support.waiting import LIMIT

# More than gunicorn's own threads, and more than the kernel takes of each.
CLIENTS = 80
ASSET = os.urandom(3_000_000)
CONFIG = b'{"deviceName": "lamp"}'
# Of the hurried server.
STALLED_SECONDS = 6.0
MAC = "aa-bb-cc-dd-ee-ff"


@pytest.fixture(scope="module")
def server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker with two threads."""
    server = Server(template, tmp_path_factory.mktemp("server")).start(*NEW, "--workers", "1", "--threads", "2")
    fill(server)
    yield server
    server.remove()


@pytest.fixture
def server_to_stop(make_server: Callable[..., Server]) -> Server:
    server = make_server().start(*NEW, "--workers", "1", "--threads", "2")
    fill(server)
    return server


@pytest.fixture(scope="module")
def hurried_server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same, with limits that a test can wait for."""
    conf = tmp_path_factory.mktemp("conf") / "hurried.py"
    conf.write_text(
        "import runpy\n"
        "from iotsupport.serving import worker\n"
        "worker.HEAD_SECONDS = worker.BODY_SECONDS = 6.0\n"
        f"worker.STALLED_SECONDS = {STALLED_SECONDS}\n"
        f"globals().update(runpy.run_path({str(NEW_CONF)!r}))\n"
    )
    server = Server(template, tmp_path_factory.mktemp("hurried"))
    server.start("--config", str(conf), "--workers", "1", "--threads", "2")
    fill(server)
    yield server
    server.remove()


def fill(server: Server) -> None:
    upload_firmware(server)
    with server.client() as client:
        assert client.save_config(MAC, CONFIG).status_code == 200


def upload_firmware(server: Server) -> None:
    with server.client() as client:
        assert client.upload("firmware.bin", ASSET).status_code == 200


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(server: Server, sent: bytes, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(socket.socket())
    # Else the kernel would read for it.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.settimeout(LIMIT)
    client.connect(("127.0.0.1", server.port))
    client.sendall(sent)
    return client


def request(path: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()


def read_to_end(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def body_of(client: socket.socket) -> bytes:
    return read_to_end(client).partition(b"\r\n\r\n")[2]


def read_answers(client: socket.socket, count: int) -> list[bytes]:
    """Answers without their dates, on a connection that the last of them closes."""
    without_dates = re.sub(rb"Date: [^\r]*\r\n", b"", read_to_end(client))
    answers = re.split(rb"(?=HTTP/1\.1 )", without_dates)[1:]
    assert len(answers) == count
    return answers


def check_that_others_are_served(server: Server) -> None:
    with server.client() as client:
        assert client.get(f"/configs/{MAC}.json").content == CONFIG
        assert client.get(f"/configs/{MAC.upper()}.json").content == CONFIG
        assert client.get("/configs").json()["count"] == 1
        assert sha256(client.get("/assets/firmware.bin").content) == sha256(ASSET)
        assert client.get("/admin/login/").status_code == 200


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_clients_that_do_not_read_block_nobody_and_get_their_bodies_whole(server, stack, connection):
    head = request("/assets/firmware.bin", "Range: bytes=1-", f"Connection: {connection}")
    # What closes a connection that is kept alive otherwise.
    last = request(f"/configs/{MAC}.json", "Connection: close") if connection == "keep-alive" else b""
    clients = [connect(server, head + last, stack) for _ in range(CLIENTS)]
    for client in clients:
        assert client.recv(1) == b"H"

    check_that_others_are_served(server)

    def gets_all_of_it(client: socket.socket) -> bool:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, len(ASSET))  # now it reads as fast as it can
        body = body_of(client)
        return body.startswith(ASSET[1:]) and body.endswith(CONFIG if last else ASSET[-1:])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(gets_all_of_it, clients))


def test_a_client_that_stalls_is_dropped(hurried_server, stack):
    stalled = connect(hurried_server, request("/assets/firmware.bin"), stack)
    assert stalled.recv(1) == b"H"

    poller = select.poll()
    poller.register(stalled, select.POLLHUP | select.POLLERR)

    assert poller.poll(LIMIT * 1000), "It still waits."


def test_a_client_that_reads_ever_so_slowly_is_served(hurried_server, stack):
    client = connect(hurried_server, request("/assets/firmware.bin", "Connection: close"), stack)
    poller = select.poll()
    poller.register(client, select.POLLHUP | select.POLLERR)
    received, start = b"", time.monotonic()

    # So little that the kernel does not ask the worker for more within that time.
    while time.monotonic() < start + 2 * STALLED_SECONDS:
        assert not poller.poll(100), "It was dropped."
        received += client.recv(1024)

    body = (received + read_to_end(client)).partition(b"\r\n\r\n")[2]
    assert sha256(body) == sha256(ASSET)


def test_a_client_that_says_nothing_or_not_all_is_dropped(hurried_server, stack):
    clients = [connect(hurried_server, sent, stack) for sent in [b"", b"GET / HT", request("/")[:-2]]]

    assert [read_to_end(client) for client in clients] == [b"", b"", b""]


def test_a_client_whose_request_trickles_in_for_ever_is_dropped(hurried_server, stack):
    """A limit for each piece would be no limit: a byte now and then lasts for days."""
    client = connect(hurried_server, b"GET / HTTP/1.1\r\nX: ", stack)
    poller = select.poll()
    poller.register(client, select.POLLIN)

    for _ in range(2 * LIMIT):
        if poller.poll(500):
            break
        client.sendall(b"x")
    else:
        pytest.fail("It still waits.")


@pytest.mark.parametrize("sent", [b"", b"GET /conf", request("/")[:-2], b"\x16\x03\x01"], ids=repr)
def test_requests_that_do_not_end_block_nobody(server, stack, sent):
    for _ in range(CLIENTS):
        connect(server, sent, stack)

    check_that_others_are_served(server)


@pytest.mark.parametrize("path", ["/admin/login/", "/assets"])
def test_bodies_that_do_not_come_block_nobody(server, stack, path):
    head = request(
        path,
        f"Authorization: Bearer {server.token}",
        "Content-Type: multipart/form-data; boundary=b",
        "Content-Length: 1000",
        method="POST",
    )
    for _ in range(CLIENTS):
        connect(server, head + b"--b\r\n", stack)

    check_that_others_are_served(server)


def test_a_body_that_stops_coming_is_refused(hurried_server, stack):
    head = request("/admin/login/", "Content-Length: 1000", "Connection: close", method="POST")

    sender = connect(hurried_server, head + b"csrf", stack)

    answer = read_to_end(sender)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: " in answer


def test_a_head_without_end_is_refused(server, stack):
    client = connect(server, b"GET / HTTP/1.1\r\nX: ", stack)

    client.sendall(b"x" * 70_000)

    assert read_to_end(client).startswith(b"HTTP/1.1 431 ")


def test_a_request_that_comes_byte_by_byte_is_answered(server, stack):
    client = connect(server, b"", stack)

    for byte in request(f"/configs/{MAC}.json", "Connection: close"):
        client.sendall(bytes([byte]))

    assert body_of(client) == CONFIG


def test_requests_sent_together_are_answered_in_turn(server, stack):
    paths = [f"/configs/{MAC}.json", "/assets/firmware.bin", "/health", f"/configs/{MAC}.json"] * 5
    sent = b"".join(request(path) for path in paths)

    client = connect(server, sent + request("/health", "Connection: close"), stack)

    received = read_to_end(client)
    assert received.count(CONFIG) == 10
    assert received.count(ASSET) == 5
    assert received.count(b'"healthy"') == 6


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("condition", ["If-None-Match: *", "If-Match: x", "Range: bytes=1-2", "Range: bytes=99-", None])
def test_what_the_worker_answers_at_once_is_what_gunicorn_sends(server, stack, method, condition):
    fields = [condition] if condition else []
    for connection in ["keep-alive", "close"]:
        last = request("/health", "Connection: close") if connection == "keep-alive" else b""
        usual, other = (
            connect(server, request(f"/configs/{MAC}.json", *more, method=method) + last, stack)
            for more in [
                [f"Connection: {connection}", *fields],
                [f"Connection: {connection}", *fields, "X-Unusual: yes"],
            ]
        )
        count = 2 if last else 1

        assert read_answers(usual, count) == read_answers(other, count)


def test_a_worker_that_stops_does_not_wait_long_for_slow_clients(server_to_stop, stack):
    slow = [connect(server_to_stop, request("/assets/firmware.bin"), stack) for _ in range(CLIENTS)]
    for client in slow:
        assert client.recv(1) == b"H"

    server_to_stop.stop()

    # Of the master, which would have to kill it.
    assert "was sent SIGKILL" not in server_to_stop.log


def test_an_answer_under_way_when_the_worker_stops_comes_whole(server_to_stop, stack):
    client = connect(server_to_stop, request("/assets/firmware.bin"), stack)
    assert client.recv(1) == b"H"

    server_to_stop.signal(signal.SIGTERM)
    server_to_stop.wait_for_log("Worker exiting|Handling signal: term")

    assert sha256(body_of(client)) == sha256(ASSET)
    server_to_stop.stop()


def test_the_head_and_the_beginning_of_the_file_come_together(server, stack):
    client = connect(server, b"", stack)
    together = 0

    for _ in range(20):
        client.sendall(request("/assets/firmware.bin", "Range: bytes=0-99999"))
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")

        assert b" 206 " in head
        together += bool(body)
        while len(body) < 100_000:
            body += client.recv(65536)

    # The kernel waits for the rest a fifth of a second, which a worker may once not get to on a busy machine.
    assert together >= 15


@pytest.mark.parametrize("path", ["/assets/firmware.bin", "/assets/%66irmware.bin"])
def test_an_asset_replaced_during_downloads_comes_whole_old_or_new(server, stack, path):
    """Ahead of Django, and by the view where the name is that of an unusual request."""
    upload_firmware(server)
    new = os.urandom(2_000_000)
    download = request(path, "Connection: close")
    old_ones = [connect(server, download, stack) for _ in range(8)]
    beginnings = [client.recv(1000) for client in old_ones]
    replaced = threading.Event()

    def read_on() -> set[str]:
        seen = set()
        while not replaced.is_set():
            seen.add(sha256(requests.get(f"{server.url}{path}", timeout=LIMIT).content))
        return seen

    with ThreadPoolExecutor(2) as threads, server.client() as uploader:
        reading = [threads.submit(read_on) for _ in range(2)]
        try:
            for content in [os.urandom(2_500_000), new]:
                assert uploader.upload("firmware.bin", content).status_code == 200
        finally:
            replaced.set()
        seen = set[str]().union(*[future.result() for future in reading])
        versions = {row[0] for row in server.query("SELECT sha256 FROM assets_historicalasset")}

    assert seen <= versions
    rest = [beginning + read_to_end(client) for beginning, client in zip(beginnings, old_ones, strict=True)]
    assert {sha256(answer.partition(b"\r\n\r\n")[2]) for answer in rest} == {sha256(ASSET)}
    assert requests.get(f"{server.url}{path}", timeout=LIMIT).content == new
    upload_firmware(server)
