"""Fixtures of several apps; each ``conftest.py`` imports what its tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import set_script_prefix, set_urlconf

from iotsupport.accounts import signin
from iotsupport.tests.support.api_client import (
    committing_database,
    make_administrator,
    session_client,
    token_client,
    use_directories,
)


@pytest.fixture(autouse=True)
def no_tries_before() -> None:
    """Sign-ins that failed in other tests do not count."""
    signin.forget()


@pytest.fixture(autouse=True)
def every_address() -> None:
    """A test may have left this thread at the addresses for devices, or below a prefix, as Django does."""
    set_urlconf(None)
    set_script_prefix("/")


@pytest.fixture
def directories(settings: LazySettings, tmp_path: Path) -> Path:
    """``configs``, ``assets`` and ``blobs``, empty, below this path."""
    use_directories(settings, tmp_path)
    return tmp_path


@pytest.fixture
def transactional_db(django_db_setup: None, django_db_blocker: Any, directories: Path) -> Iterator[None]:
    """A database where transactions commit, and the directories that follow it. Faster than pytest-django's."""
    with committing_database(django_db_blocker):
        yield


@pytest.fixture
def administrator() -> User:
    return make_administrator()


@pytest.fixture
def signed_in(administrator: User) -> Client:
    """An administrator who is signed in."""
    return session_client(administrator)


@pytest.fixture
def script(administrator: User) -> Client:
    """A script with every permission."""
    return token_client(administrator)


@pytest.fixture(params=["token", "session"])
def caller(request: pytest.FixtureRequest, administrator: User) -> Client:
    """Somebody with every permission, in each of the two ways to say who it is."""
    return token_client(administrator) if request.param == "token" else session_client(administrator)


@pytest.fixture(params=["", "/api"], ids=["plain", "prefixed"])
def root(request: pytest.FixtureRequest) -> str:
    """Every address also answers under ``/api``."""
    return str(request.param)
