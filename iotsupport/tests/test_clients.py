from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.test import Client, RequestFactory

from iotsupport.environment import is_proxy
from iotsupport.serving import clients
from iotsupport.serving.clients import client_address


@pytest.mark.parametrize(
    ("remote", "forwarded", "expected"),
    [
        ("192.0.2.7", None, "192.0.2.7"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("::1", "2001:DB8::7", "2001:db8::7"),
        ("::ffff:127.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        # Only what the front server has added itself.
        ("127.0.0.1", "198.51.100.9, 192.0.2.7", "192.0.2.7"),
        # Sent by the client.
        ("192.0.2.7", "198.51.100.9", "192.0.2.7"),
        # No addresses.
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7,", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7:4711", "127.0.0.1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "fe80::1%eth0", "127.0.0.1"),  # PostgreSQL takes none with a zone
        ("fe80::1%eth0", None, "fe80::1"),
        ("", "192.0.2.7", None),
        ("/run/iotsupport.sock", None, None),
    ],
)
def test_a_front_server_on_this_machine_says_who_the_client_is(
    remote: str, forwarded: str | None, expected: str | None
):
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}

    assert client_address(RequestFactory().get("/", headers=headers, REMOTE_ADDR=remote)) == expected


@pytest.fixture
def proxies() -> Iterator[None]:
    clients.trust(["10.0.0.0/24", "2001:db8::7", "127.0.0.1"])
    yield
    clients.trust([])


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("10.0.0.7", "192.0.2.7"),
        ("::ffff:10.0.0.7", "192.0.2.7"),
        ("2001:db8::7", "192.0.2.7"),
        ("127.0.0.9", "192.0.2.7"),
        ("10.0.1.7", "10.0.1.7"),
        ("2001:db8::8", "2001:db8::8"),
        ("", None),
    ],
)
def test_a_trusted_proxy_says_so_too(proxies: None, remote: str, expected: str | None):
    request = RequestFactory().get("/", headers={"X-Forwarded-For": "198.51.100.9, 192.0.2.7"}, REMOTE_ADDR=remote)

    assert client_address(request) == expected


@pytest.mark.parametrize(
    ("remote", "is_trusted"),
    [
        ("10.0.0.7", True),
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("::1", False),
        ("", False),
        ("10.0.0.7:80", False),
    ],
)
def test_trusted_is_who_is_named(proxies: None, remote: str, is_trusted: bool):
    assert clients.is_trusted_proxy(remote) == is_trusted


@pytest.mark.parametrize(
    "remote", ["127.0.0.9", "::1", "::ffff:127.0.0.1", "10.0.0.7", "::ffff:10.0.0.7", "2001:db8::7", "10.0.1.7"]
)
def test_gunicorn_believes_the_same_about_https(proxies: None, remote: str):
    networks = map(ipaddress.ip_network, clients.forwarders(["10.0.0.0/24", "2001:db8::7", "127.0.0.1"]))

    assert any(ipaddress.ip_address(remote) in network for network in networks) == clients.may_be_front_server(remote)


@pytest.mark.parametrize(
    ("text", "can_be"),
    [("10.0.0.7", True), ("10.0.0.0/8", True), ("2001:db8::/32", True), ("0.0.0.0/0", False), ("::/0", False)]
    + [(text, False) for text in ["10.0.0.7/8", "proxy.example.com", "10.0.0.7:80", "", "*"]],
)
def test_a_proxy_is_named_by_address_or_network(text: str, can_be: bool):
    assert is_proxy(text) == can_be


@pytest.fixture
def administrator(db, settings: LazySettings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a quick one
    User.objects.create_superuser("ada", password="pigeons-and-mirrors")


def sign_in(password: str, remote: str, forwarded: str) -> int:
    fields = {"username": "ada", "password": password}
    return (
        Client().post("/admin/login/", fields, headers={"X-Forwarded-For": forwarded}, REMOTE_ADDR=remote).status_code
    )


def test_who_guesses_through_a_front_server_locks_nobody_else_out(administrator: None):
    for _ in range(10):
        sign_in("guessed", "127.0.0.1", "192.0.2.7")

    assert sign_in("pigeons-and-mirrors", "127.0.0.1", "192.0.2.7") == 429
    assert sign_in("pigeons-and-mirrors", "127.0.0.1", "192.0.2.8") == 302


def test_who_guesses_directly_cannot_pretend_to_be_somebody_else(administrator: None):
    for number in range(10):
        sign_in("guessed", "192.0.2.7", f"198.51.100.{number}")

    assert sign_in("pigeons-and-mirrors", "192.0.2.7", "198.51.100.99") == 429
    assert sign_in("pigeons-and-mirrors", "198.51.100.1", "192.0.2.7") == 302
