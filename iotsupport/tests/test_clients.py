from __future__ import annotations

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.test import Client, RequestFactory

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
def administrator(db, settings: LazySettings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a quick one
    User.objects.create_superuser("ada", password="pigeons-and-mirrors")


def sign_in(password: str, remote: str, forwarded: str) -> int:
    fields = {"username": "ada", "password": password}
    return (
        Client().post("/admin/login/", fields, headers={"X-Forwarded-For": forwarded}, REMOTE_ADDR=remote).status_code
    )


@pytest.mark.both_databases
def test_who_guesses_through_a_front_server_locks_nobody_else_out(administrator: None):
    for _ in range(10):
        sign_in("guessed", "127.0.0.1", "192.0.2.7")

    assert sign_in("pigeons-and-mirrors", "127.0.0.1", "192.0.2.7") == 429
    assert sign_in("pigeons-and-mirrors", "127.0.0.1", "192.0.2.8") == 302


@pytest.mark.both_databases
def test_who_guesses_directly_cannot_pretend_to_be_somebody_else(administrator: None):
    for number in range(10):
        sign_in("guessed", "192.0.2.7", f"198.51.100.{number}")

    assert sign_in("pigeons-and-mirrors", "192.0.2.7", "198.51.100.99") == 429
    assert sign_in("pigeons-and-mirrors", "198.51.100.1", "192.0.2.7") == 302
