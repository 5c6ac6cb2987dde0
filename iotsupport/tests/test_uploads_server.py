"""Bodies over real sockets: of senders that go away, that are refused, and that do not say how much comes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from iotsupport.tests.support.server import NEW, Client, Installation, Server
from iotsupport.tests.support.waiting import LIMIT, poll

MOST_BYTES = 300_000


@pytest.fixture(scope="module")
def server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("server"), ASSET_MAX_BYTES=str(MOST_BYTES)).start(*NEW)
    yield server
    server.remove()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_stored(server: Server, client: Client) -> Iterator[None]:
    """The tests here are about refusals: after each of them everything is as it was."""

    def everything() -> tuple[Any, ...]:
        return client.get("/assets").json(), server.files("blobs"), server.files("assets")

    before = everything()
    yield
    # Of a sender that is gone, the server may hear after the test did.
    poll(everything, lambda now: now == before)


def test_a_sender_that_goes_away_leaves_nothing(server: Server) -> None:
    head = (
        f"POST /assets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 250000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as sender:
        sender.sendall(head.encode() + b"x" * 200_000)
        sender.shutdown(socket.SHUT_WR)

        answer = sender.makefile("rb").read()

    assert not answer or answer.startswith(b"HTTP/1.1 400 ")


def test_a_sender_that_goes_away_saves_no_half_configuration(server: Server, client: Client) -> None:
    head = (
        f"PUT /configs/aa-bb-cc-dd-ee-ff.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as sender:
        sender.sendall(head.encode() + b'{"deviceName": "half"}')
        sender.shutdown(socket.SHUT_WR)

        answer = sender.makefile("rb").read()

    assert not answer or b"INCOMPLETE" in answer
    assert client.get("/configs").json()["count"] == 0


@pytest.mark.parametrize("size", [MOST_BYTES + 1, 20_000_000])
def test_a_sender_of_too_much_hears_why(client: Client, size: int) -> None:
    response = client.upload("a.bin", b"x" * size)

    assert (response.status_code, response.json()["code"]) == (413, "TOO_LARGE")


@pytest.mark.parametrize("size", [100, 20_000_000])
def test_a_sender_without_a_token_hears_why(client: Client, size: int) -> None:
    response = client.post("/assets", files={"file": ("a.bin", b"x" * size)}, headers={"Authorization": "Bearer no"})

    assert (response.status_code, response.json()["code"]) == (401, "NOT_AUTHENTICATED")


@pytest.mark.parametrize("size", [70_000, 20_000_000])
def test_a_sender_of_a_configuration_that_is_too_large_hears_why(client: Client, size: int) -> None:
    response = client.save_config("aa-bb-cc-dd-ee-ff", b" " * size)

    assert (response.status_code, response.json()["code"]) == (413, "TOO_LARGE")


@pytest.mark.parametrize(
    ("method", "path", "content_type"),
    [
        ("PUT", "/configs/aa-bb-cc-dd-ee-ff", "application/json"),
        ("PUT", "/configs/aa-bb-cc-dd-ee-ff.json", "application/json"),
        ("POST", "/assets", "multipart/form-data; boundary=b"),
    ],
)
def test_a_sender_that_does_not_say_how_much_comes_is_told_to(
    client: Client, method: str, path: str, content_type: str
) -> None:
    response = client.request(method, path, data=iter([b"{}"]), headers={"Content-Type": content_type})

    assert (response.status_code, response.json()["code"]) == (400, "LENGTH_REQUIRED")
    assert "Content-Length" in response.json()["error"]
