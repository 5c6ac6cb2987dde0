"""Only what is an outage is told as one; what the database cannot hold is an ordinary refusal."""

from __future__ import annotations

import sqlite3
from typing import Any
from unittest import mock

import django.db
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    transaction,
)
from django.db.models import ProtectedError
from django.test import Client
from django.utils.html import escape

from iotsupport.errors import as_api_error, is_outage
from iotsupport.models import ApiToken
from iotsupport.tests.support.api_client import failing_statements, refusal, token_client

pytestmark = pytest.mark.django_db

LONG = "n" * 300
HUGE = "9" * 30


def sign_in(username: str = "nobody", **options: Any) -> Any:
    data = {"username": username, "password": "guessed"}
    return Client(raise_request_exception=False).post("/admin/login/", data, **options)


@pytest.mark.both_databases
@pytest.mark.parametrize("username", [LONG, "é" * 300, "n" * 60_000, "a\0b", "\u202e" * 256])
def test_a_name_that_nobody_can_have_is_refused_as_any_other(username):
    answer = sign_in(username)

    assert answer.status_code == 200
    assert "Please enter the correct" in answer.text or "Null characters are not allowed" in answer.text


@pytest.mark.both_databases
@pytest.mark.parametrize("address", ["", "fe80::1%eth0", "fe80::1%" + "e" * 300, "/run/iotsupport.sock"])
def test_whoever_is_connected_is_refused_as_any_other(address):
    assert sign_in(REMOTE_ADDR=address).status_code == 200


@pytest.mark.both_databases
@pytest.mark.parametrize("header", ["User-Agent", "Accept", "Referer"])
@pytest.mark.parametrize("value", ["x" * 3000, "é" * 3000])
def test_whatever_a_browser_says_of_itself_is_no_outage(header, value):
    assert sign_in(headers={header: value}).status_code == 200


@pytest.mark.both_databases
def test_a_session_s_cookie_that_no_database_holds_names_nobody():
    # Python's parser of cookies makes a null character of it, which PostgreSQL cannot compare.
    for path, status in [("/admin/", 302), ("/configs", 401)]:
        visitor = Client(raise_request_exception=False, headers={"Cookie": 'sessionid="\\000aaaaaaaaaaa"'})

        assert visitor.get(path).status_code == status, path


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "path",
    [
        f"/admin/devices/deviceconfig/{HUGE}/change/",
        f"/admin/devices/deviceconfig/{HUGE}/history/",
        f"/admin/devices/deviceconfig/1/history/{HUGE}/",
        f"/admin/devices/deviceconfig/versions/{LONG}/",
        "/admin/assets/asset/versions/a%00b/",
        f"/admin/assets/asset/versions/a/{HUGE}/restore/",
        "/admin/devices/deletedconfig/?q=a%00b",
        f"/admin/devices/deletedconfig/{HUGE}/change/",
        f"/configs/02-00-00-00-00-01/versions/{HUGE}",
        "/admin/devices/deviceconfig/a%00b/change/",
        "/admin/devices/deviceconfig/?q=a%00b",
        f"/admin/devices/deviceconfig/?q={'x' * 60_000}",
        f"/admin/devices/deviceconfig/?p={HUGE}",
        f"/admin/devices/deviceconfig/?o={HUGE}",
        f"/admin/auth/user/?id__exact={HUGE}",
        f"/admin/auth/user/?groups__id__exact={HUGE}",
        "/admin/auth/user/?is_staff__exact=a%00b",
        "/admin/auth/user/?username=a%00b",
        f"/admin/auth/user/?username={LONG}",
        "/admin/assets/asset/?q=a%00b",
        "/admin/iotsupport/apitoken/?q=a%00b",
        f"/admin/iotsupport/apitoken/{HUGE}/change/",
        "/admin/notifications/announcement/?q=a%00b",
        "/assets/a%00b",
        "/configs/a%00b",
        f"/configs/{LONG}",
    ],
)
def test_nothing_that_is_asked_for_is_an_outage(path, administrator):
    signed_in = Client(raise_request_exception=False)
    signed_in.force_login(administrator)

    assert signed_in.get(path).status_code < 500
    assert token_client(administrator).get(path).status_code < 500


def of_database(kind: type[Exception], sqlstate: str = "", sqlite_errorname: str = "", text: str = "x") -> Exception:
    """An exception as Django hands it on."""
    error, cause = kind(text), sqlite3.DatabaseError(text)
    cause.sqlstate = sqlstate or None  # type: ignore[attr-defined]
    if sqlite_errorname:
        cause.sqlite_errorname = sqlite_errorname
    error.__cause__ = cause
    return error


OUTAGES = [
    OperationalError("away"),
    InterfaceError("gone"),
    ImproperlyConfigured("no database"),
    of_database(OperationalError, sqlite_errorname="SQLITE_BUSY"),
    of_database(OperationalError, sqlite_errorname="SQLITE_ERROR", text="no such table: devices_deviceconfig"),
    of_database(DatabaseError, sqlite_errorname="SQLITE_CORRUPT"),
    of_database(OperationalError, "57P01"),  # admin_shutdown
    of_database(OperationalError, "40001"),  # serialization_failure
    of_database(InternalError, "25006"),  # read_only_sql_transaction
    of_database(InternalError, "XX001"),  # data_corrupted
    of_database(ProgrammingError, text="Cannot operate on a closed database."),
    of_database(ProgrammingError, "42P01"),  # undefined_table: not migrated
    of_database(ProgrammingError, "42703"),  # undefined_column
    of_database(ProgrammingError, "42501"),  # insufficient_privilege
]
# With what a program is told.
NO_OUTAGES = [
    (of_database(DataError, "22001"), 400, "INVALID_VALUE"),
    (of_database(DataError, text="string or blob too big"), 400, "INVALID_VALUE"),
    (of_database(OperationalError, "54000"), 400, "INVALID_VALUE"),  # program_limit_exceeded
    (
        of_database(OperationalError, sqlite_errorname="SQLITE_ERROR", text="LIKE or GLOB pattern too complex"),
        400,
        "INVALID_VALUE",
    ),
    (OverflowError("Python int too large to convert to SQLite INTEGER"), 400, "INVALID_VALUE"),
    (of_database(IntegrityError, "23505"), 409, "CONFLICT"),
    (ProtectedError("x", set()), 409, "CONFLICT"),
    (of_database(InternalError, "25P02"), 500, "INTERNAL_ERROR"),
    (of_database(ProgrammingError, "42601"), 500, "INTERNAL_ERROR"),
    (of_database(NotSupportedError), 500, "INTERNAL_ERROR"),
    (transaction.TransactionManagementError("x"), 500, "INTERNAL_ERROR"),
    (DatabaseError("Save with update_fields did not affect any rows."), 500, "INTERNAL_ERROR"),
]


@pytest.mark.parametrize("error", OUTAGES, ids=repr)
def test_an_outage_is_told_as_one(error):
    assert is_outage(error)
    assert refusal(as_api_error(error).response()) == (503, "DATABASE_UNAVAILABLE")


@pytest.mark.parametrize(("error", "status", "code"), NO_OUTAGES)
def test_what_is_none_is_told_as_what_it_is(error, status, code):
    assert not is_outage(error)
    assert refusal(as_api_error(error).response()) == (status, code)


@pytest.mark.parametrize(("error", "status", "code"), NO_OUTAGES)
def test_the_admin_tells_them_apart_too(error, status, code, administrator):
    signed_in = Client(raise_request_exception=False)
    signed_in.force_login(administrator)

    with mock.patch("iotsupport.admin.ApiTokenAdmin.get_queryset", side_effect=error):
        answer = signed_in.get("/admin/iotsupport/apitoken/", headers={"Accept": "text/html"})

    assert answer.status_code == status
    assert "not available" not in answer.text
    said = escape(as_api_error(error).message)
    assert (said in answer.text, answer["Content-Type"]) == (True, "text/html; charset=utf-8")


@pytest.mark.both_databases
def test_what_the_database_really_says_is_known(administrator):
    """Each of these from the real database: too long, too large, twice, and no such table."""
    with pytest.raises((DataError, OverflowError)) as too_large, transaction.atomic():
        User.objects.raw("SELECT * FROM auth_user WHERE id = %s OR username = %s", [10**30, "a\0b"])[0]
    with pytest.raises(IntegrityError) as twice, transaction.atomic():
        User.objects.create_user("admin")
    with pytest.raises(django.db.Error) as no_table, transaction.atomic(), django.db.connection.cursor() as cursor:
        cursor.execute("SELECT * FROM not_there")

    assert [is_outage(caught.value) for caught in [too_large, twice, no_table]] == [False, False, True]
    with failing_statements(OperationalError("away")), pytest.raises(OperationalError) as away:
        ApiToken.objects.count()
    assert is_outage(away.value)
