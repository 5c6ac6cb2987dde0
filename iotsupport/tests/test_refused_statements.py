"""Whichever statement of a request the database refuses, it is told as that, and what was typed comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import DataError, IntegrityError, OperationalError, connection
from django.test import Client

from devices.models import DeviceConfig
from iotsupport.accounts import signin
from iotsupport.tests.support.api_client import empty_tables, make_user, session_client

pytestmark = pytest.mark.usefixtures("transactional_db")

MAC = "aa-bb-cc-dd-ee-ff"
PASSWORD = "swallows-return"
TYPED = "typed-by-maria"
CONFIGS, ASSETS, GROUPS, USERS = [
    f"/admin/{model}/" for model in ["devices/deviceconfig", "assets/asset", "auth/group", "auth/user"]
]

TOKEN = "t" * 32
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"
SCRIPT = {"Accept": "*/*", "X-CSRFToken": TOKEN}

# An outage, and two mistakes of ours.
ERRORS = [OperationalError("away"), IntegrityError("twice"), DataError("too long")]


@contextmanager
def failing_statement(number: int, error: Exception) -> Iterator[list[str]]:
    """Raise this instead of sending the statement of that number. Yields those that were to be sent."""
    statements: list[str] = []

    def fail(execute: Any, sql: str, *rest: Any) -> Any:
        statements.append(sql)
        if len(statements) - 1 == number:
            raise error
        return execute(sql, *rest)

    with connection.execute_wrapper(fail):
        yield statements


def begin() -> tuple[User, DeviceConfig]:
    """The world before each request."""
    signin.forget()
    empty_tables()
    maria = make_user(username="maria", password=PASSWORD, is_staff=True, is_superuser=True)
    return maria, DeviceConfig.objects.put(MAC, '{"deviceName": "Before"}')


def get(path: str) -> Callable[..., Any]:
    return lambda client, config: client.get(path.replace("PK", str(config.pk)))


def post(path: str, **fields: Any) -> Callable[..., Any]:
    def send(client: Client, config: DeviceConfig) -> Any:
        own = {name: config.pk if value == "PK" else value for name, value in fields.items()}
        if "file" in own:
            own["file"] = SimpleUploadedFile("a.bin", b"some bytes")
        return client.post(path.replace("PK", str(config.pk)), {"csrfmiddlewaretoken": TOKEN, **own})

    return send


def call(method: str, path: str, body: str = "", **options: Any) -> Callable[..., Any]:
    return lambda client, config: client.generic(method, path, body, headers=SCRIPT, **options)


def upload(client: Client, config: DeviceConfig) -> Any:
    return client.post("/assets", {"file": SimpleUploadedFile("a.bin", b"some bytes")}, headers=SCRIPT)


REQUESTS: dict[str, Callable[..., Any]] = {
    "start": get("/admin/"),
    "list": get(CONFIGS),
    "change": get(f"{CONFIGS}PK/change/"),
    "add": post(f"{CONFIGS}add/", mac_address="aa-bb-cc-dd-ee-00", content=f'{{"a": "{TYPED}"}}'),
    "save": post(f"{CONFIGS}PK/change/", content=f'{{"a": "{TYPED}"}}'),
    "group": post(f"{GROUPS}add/", name=TYPED),
    "user": post(
        f"{USERS}add/", username=TYPED, usable_password="true", password1="wild-geese", password2="wild-geese"
    ),
    "old token": post(f"{GROUPS}add/", name=TYPED, csrfmiddlewaretoken="x" * 64),
    "upload": post(f"{ASSETS}add/", file="a.bin", description=TYPED),
    "delete": post(f"{CONFIGS}PK/delete/", post="yes"),
    "delete selected": post(CONFIGS, action="delete_selected", post="yes", _selected_action="PK"),
    "sign out": post("/admin/logout/"),
    "sign in": post("/admin/login/", username="maria", password=PASSWORD),
    "sign in with text": post(
        "/admin/login/", username="maria", password=PASSWORD, next=f"{GROUPS}add/", **{"kept-name": TYPED}
    ),
    "new password": post(
        "/admin/password_change/", old_password=PASSWORD, new_password1="wild-geese", new_password2="wild-geese"
    ),
    "large": post(f"{CONFIGS}add/", content="x" * 3_000_000),
    "API list": call("GET", "/configs"),
    "API save": call("PUT", f"/configs/{MAC}.json", "{}", content_type="application/json"),
    "API delete": call("DELETE", f"/configs/{MAC}"),
    "API upload": upload,
    "health": call("GET", "/health"),
    "metrics": call("GET", "/metrics"),
}

PROGRAMS = {"health", "metrics"}
TYPING = {"add", "save", "group", "user", "old token", "upload", "sign in with text"}


@pytest.mark.parametrize("name", REQUESTS)
def test_no_refused_statement_is_an_error_or_loses_what_was_typed(name: str):
    _, statements = ask(name, -1, ERRORS[0])
    assert statements

    wrong = []
    for number in range(len(statements)):
        error = ERRORS[number % len(ERRORS)]
        problems, refused = ask(name, number, error)
        wrong += [f"{problem}: {type(error).__name__} of {refused[number][:70]}" for problem in problems]

    assert wrong == []


def ask(name: str, number: int, error: Exception) -> tuple[list[str], list[str]]:
    """Send a request, one statement of which fails. Returns what is wrong with its answer, and the statements."""
    maria, config = begin()
    client = session_client(maria, with_csrf=False)
    client.defaults["HTTP_ACCEPT"] = BROWSER
    client.cookies["csrftoken"] = TOKEN
    with failing_statement(number, error) as statements:
        answer = REQUESTS[name](client, config)
    problems = problems_of(name, answer)
    answer.close()
    return problems, statements


def problems_of(name: str, answer: Any) -> list[str]:
    kind = answer.get("Content-Type", "").partition(";")[0]
    body = answer.getvalue().decode()
    if answer.status_code < 400:
        return []
    if answer.status_code not in {400, 403, 409, 413, 503}:
        return [str(answer.status_code)]
    is_program = name.startswith("API") or name in PROGRAMS
    if kind != ("application/json" if is_program else "text/html"):
        return [f"{answer.status_code} in {kind}"]
    if name in TYPING and TYPED not in body:
        return [f"{answer.status_code} without what was typed"]
    return []
