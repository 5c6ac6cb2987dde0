"""Those who use the API in tests, and what must not change when they are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Model
from django.middleware.csrf import CSRF_SECRET_LENGTH
from django.test import Client
from django.utils.crypto import get_random_string
from prometheus_client import REGISTRY

from iotsupport.accounts.sessions import SessionStore
from iotsupport.mirror.files import mirror_storage
from iotsupport.mirror.rows import MirroredModel, mirrored_models
from iotsupport.models import ApiToken


def use_directories(settings: Any, path: Path) -> None:
    """Mirror to empty directories below the path."""
    for alias in ["configs", "assets", "blobs"]:
        (path / alias).mkdir()
    changed = {
        alias: {**settings.STORAGES[alias], "OPTIONS": {"location": path / alias, "label": alias}}
        for alias in ["configs", "assets", "blobs"]
    }
    settings.STORAGES = {**settings.STORAGES, **changed}
    # Every test client would look at eight hundred static files.
    settings.WHITENOISE_USE_FINDERS = False


@contextmanager
def committing_database(blocker: Any) -> Iterator[None]:
    """A database where transactions commit. Emptied by hand: Django's flush takes a fifth of a second."""
    with blocker.unblock():
        try:
            yield
        finally:
            empty_tables()


def empty_tables() -> None:
    """Delete all rows but those of the migrations. One statement asks which tables have any: most have none."""
    ask = " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})" for table in tables())  # noqa: S608
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(ask)
        for (table,) in cursor.fetchall():  # in whatever order: references are looked at when the transaction ends
            cursor.execute(f"DELETE FROM {table}")  # noqa: S608


@cache
def tables() -> list[str]:
    models = [model for model in apps.get_models(include_auto_created=True) if model not in MIGRATED]
    return sorted({model._meta.db_table for model in models if model._meta.managed})


# Models with rows that come with the migrations.
MIGRATED = [ContentType, Permission]


@cache
def history_models() -> list[type[Model]]:
    return [model for model in apps.get_models() if issubclass(getattr(model, "instance_type", object), MirroredModel)]


def make_user(*permissions: str, username: str = "ci", **fields: Any) -> User:
    """A user with permissions such as ``devices.add_deviceconfig``."""
    user = User.objects.create_user(username, **fields)
    for permission in permissions:
        app_label, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app_label, codename=codename))
    return user


def make_administrator() -> User:
    return make_user(username="admin", is_staff=True, is_superuser=True)


def make_token(user: User, *words: str, **fields: Any) -> str:
    """The secret of a token that may what the words say; without any, whatever its user may."""
    token = ApiToken(user=user, **fields)
    token.words = words or None
    secret = token.generate()
    token.save()
    return secret


def token_client(user: User, **options: Any) -> Client:
    """A script with a token; like every real client, it sees refusals and no exceptions."""
    return Client(
        enforce_csrf_checks=True,
        raise_request_exception=False,
        headers={"Authorization": f"Bearer {make_token(user)}"},
        **options,
    )


def session_client(user: User, *, with_csrf: bool = True) -> Client:
    """A browser that is signed in to the admin."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    # What signing in leaves, without what goes with it, which takes longer than many a test.
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[-1]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    client.cookies[settings.SESSION_COOKIE_NAME] = str(session.session_key)
    # As any page would set it: making one takes as long.
    client.cookies["csrftoken"] = get_random_string(CSRF_SECRET_LENGTH)
    if with_csrf:
        client.defaults["HTTP_X_CSRFTOKEN"] = client.cookies["csrftoken"].value
    return client


class Download(NamedTuple):
    response: Any
    body: bytes


def read(response: Any) -> Download:
    """Read an answer to its end, as a client does, and let go of its file."""
    body = response.getvalue()
    response.close()
    return Download(response, body)


@contextmanager
def failing_statements(error: Exception) -> Iterator[None]:
    """Every statement of this thread raises this instead of reaching the database."""

    def fail(*statement: Any) -> None:
        raise error

    with connection.execute_wrapper(fail):
        yield


@contextmanager
def nothing_changed() -> Iterator[None]:
    """Assert that no row, no version in the history and no file is another one afterwards."""
    before = everything()
    yield
    assert everything() == before


def everything() -> dict[str, Any]:
    return {**_rows(), **{alias: _files(alias) for alias in ["configs", "assets", "blobs"]}}


def _rows() -> dict[str, list[Any]]:
    """As the database has them: what Django makes of them would take several times as long."""
    rows = {}
    with connection.cursor() as cursor:
        for model in [*mirrored_models(), *history_models()]:
            table, key = model._meta.db_table, model._meta.pk.column
            cursor.execute(f"SELECT * FROM {table} ORDER BY {key}")  # noqa: S608
            rows[table] = cursor.fetchall()
    return rows


def _files(alias: str) -> dict[str, tuple[int, str]]:
    """Every file, the hidden ones too, with what changes when it is written."""
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in mirror_storage(alias).directory.iterdir()
    }


def metric(name: str, **labels: str) -> float:
    return _samples(name).get(_key(labels), 0.0)


@contextmanager
def counted(name: str, times: int = 1, **labels: str) -> Iterator[None]:
    """Assert that one more is counted, or so many, and nothing under other labels."""
    before = _samples(name)
    yield
    after = _samples(name)
    more = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert more == {_key(labels): times}


def _samples(name: str) -> dict[tuple[tuple[str, str], ...], float]:
    # All that Django and this process count besides would take longer than most of what is counted.
    families = REGISTRY.restricted_registry([name]).collect()
    return {_key(sample.labels): sample.value for family in families for sample in family.samples}


def _key(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def refusal(response: Any) -> tuple[int, str]:
    """Status and code of an answer that refuses, after a look at its shape."""
    assert response["Content-Type"] == "application/json"
    body = json.loads(response.content)
    assert set(body) == {"error", "code", "details"}
    assert isinstance(body["details"], dict)
    assert body["code"].isupper()
    assert " " in body["error"]
    return response.status_code, body["code"]
