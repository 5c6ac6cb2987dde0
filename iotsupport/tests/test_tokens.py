"""Tokens: made by a command, known by their digest alone, and worth what their user is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.models import DeviceConfig
from iotsupport.models import ApiToken
from iotsupport.tests.support.api_client import make_administrator, make_token, refusal
from iotsupport.tests.support.server import manage

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    return make_administrator()


@pytest.fixture
def at(monkeypatch) -> Callable[[datetime], None]:
    """Set the clock."""
    return lambda moment: monkeypatch.setattr("iotsupport.models.timezone.now", lambda: moment)


def call(header: str | bytes | None):
    text = header.decode("latin-1") if isinstance(header, bytes) else header
    return Client(enforce_csrf_checks=True, headers=None if text is None else {"Authorization": text}).get("/configs")


def make(*arguments: str) -> str:
    out = StringIO()
    call_command("create_api_token", *arguments, stdout=out)
    return out.getvalue()


class TestTheCommand:
    def test_prints_the_token_and_nothing_else(self, user):
        printed = make("admin")

        token = printed.removesuffix("\n")
        assert token.startswith("iot_")
        assert len(token) >= 43
        assert token.isascii()
        assert not set(token) & set(" \n\t")
        assert call(f"Bearer {token}").status_code == 200

    @pytest.mark.sqlite("what a process prints, whatever its database")
    def test_prints_it_alone_on_standard_output(self, template, tmp_path):
        done = manage(template.copy(tmp_path / "data").environ, "create_api_token", "admin")

        assert done.stdout.startswith("iot_")
        assert done.stdout.count("\n") == 1

    @pytest.mark.both_databases
    def test_stores_only_a_digest(self, user):
        token = make("admin", "--description", "nightly build").strip()

        row = ApiToken.objects.values().get()
        assert row["digest"] == hashlib.sha256(token.encode()).hexdigest()
        assert row["hint"] == token[:8]
        assert row["description"] == "nightly build"
        assert not [value for value in row.values() if token in str(value)]

    def test_makes_another_one_each_time(self, user):
        assert make("admin") != make("admin")
        assert ApiToken.objects.count() == 2

    def test_knows_no_unknown_user(self):
        with pytest.raises(CommandError, match="There is no user 'nobody'. Make one in the admin"):
            make("nobody")

    def test_makes_none_that_would_not_work(self, user):
        User.objects.update(is_active=False)

        with pytest.raises(CommandError, match="The user 'admin' is not active"):
            make("admin")
        assert not ApiToken.objects.exists()


class TestAToken:
    @pytest.mark.both_databases
    def test_lets_in(self, user):
        assert call(f"Bearer {make_token(user)}").status_code == 200

    def test_lets_in_whatever_the_case_of_the_scheme(self, user):
        assert call(f"bearer {make_token(user)}").status_code == 200

    @pytest.mark.both_databases
    def test_that_is_revoked_does_not(self, user):
        token = make_token(user)
        ApiToken.objects.get().revoke()

        assert refusal(call(f"Bearer {token}")) == (401, "NOT_AUTHENTICATED")

    @pytest.mark.both_databases
    def test_keeps_the_moment_when_it_was_revoked_first(self, user):
        make_token(user)
        token = ApiToken.objects.get()
        token.revoke()
        first = token.revoked_at

        token.revoke()

        assert token.revoked_at == first

    def test_of_an_inactive_user_does_not(self, user):
        token = make_token(user)
        User.objects.update(is_active=False)

        assert refusal(call(f"Bearer {token}")) == (401, "NOT_AUTHENTICATED")

    def test_that_is_deleted_does_not(self, user):
        token = make_token(user)
        ApiToken.objects.all().delete()

        assert refusal(call(f"Bearer {token}")) == (401, "NOT_AUTHENTICATED")

    @pytest.mark.both_databases
    def test_is_gone_with_its_user(self, user):
        token = make_token(user)
        user.delete()

        assert refusal(call(f"Bearer {token}")) == (401, "NOT_AUTHENTICATED")

    def test_stands_for_its_user_and_no_other(self, user):
        stranger = User.objects.create_user("stranger")

        assert refusal(call(f"Bearer {make_token(stranger)}")) == (403, "FORBIDDEN")

    @pytest.mark.parametrize(
        "header",
        [
            None,
            "",
            "Bearer",
            "Bearer ",
            "Bearer  {token}",
            "Bearer {token} ",
            "Bearer {token}x",
            "Bearer {hint}",
            "Bearer {digest}",
            "Token {token}",
            "{token}",
            "Basic {token}",
            "Bearer null",
            "Bearer é€",
            "Bearer \x00",
            b"Bearer \xff\xfe",
            "Bearer ' OR 1=1 --",
            "Bearer " + "x" * 10_000,
        ],
    )
    def test_is_not_any_other_header(self, user, header):
        token = make_token(user)
        if isinstance(header, str):
            row = ApiToken.objects.get()
            header = header.format(token=token, hint=row.hint, digest=row.digest).encode()

        response = call(header)

        assert refusal(response) == (401, "NOT_AUTHENTICATED")
        assert response["WWW-Authenticate"] == "Bearer"
        assert "create_api_token" in response.json()["error"]

    def test_needs_no_csrf_token(self, user):
        client = Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {make_token(user)}"})

        response = client.delete("/configs/aa-bb-cc-dd-ee-ff")

        assert refusal(response) == (404, "NOT_FOUND")
        assert not DeviceConfig.objects.exists()

    def test_is_not_asked_for_where_everybody_may_read(self):
        with CaptureQueriesContext(connection) as queries:
            Client().get("/configs/aa-bb-cc-dd-ee-ff.json", headers={"Authorization": "Bearer nonsense"})

        assert len(queries) == 0


@pytest.mark.both_databases
class TestTheLastUse:
    def test_is_noted(self, user, at):
        token = make_token(user)
        now = timezone.now()
        assert ApiToken.objects.get().last_used_at is None

        at(now)
        call(f"Bearer {token}")

        assert ApiToken.objects.get().last_used_at == now

    @pytest.mark.parametrize(("later", "is_noted"), [(1, False), (60, False), (61, True), (-5, False)])
    def test_is_noted_once_a_minute_at_most(self, user, at, later, is_noted):
        token = make_token(user)
        first = timezone.now()
        at(first)
        call(f"Bearer {token}")
        second = first + timedelta(seconds=later)
        at(second)

        call(f"Bearer {token}")

        assert ApiToken.objects.get().last_used_at == (second if is_noted else first)

    def test_is_not_noted_where_it_did_not_let_in(self, user):
        token = make_token(user)
        ApiToken.objects.get().revoke()

        call(f"Bearer {token}")

        assert ApiToken.objects.get().last_used_at is None
