"""Tokens that may do less than their user, in words, and that expire."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.accounts.words import Word
from iotsupport.api import require
from iotsupport.errors import ApiError
from iotsupport.models import ApiToken
from iotsupport.tests.support.api_client import make_administrator, make_token, make_user, nothing_changed, refusal
from iotsupport.tests.test_tokens import make

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

MAC = "aa-bb-cc-dd-ee-ff"
NAMES = {"mac_address": MAC, "filename": "firmware.bin", "number": "1", "name": "lamp", "pk": "9999"}

# What an operation needs to be told, so that nothing but the permission refuses it.
JSON: dict[tuple[str, str], Any] = {
    ("put", "/configs/{mac_address}"): {"content": {}},
    ("put", "/configs/{mac_address}.json"): {},
    ("put", "/types/{name}"): {"schema": {}},
    ("post", "/changes"): {"patch": {}, "where": {"macs": [MAC]}},
}


def operations() -> Iterator[tuple[str, str]]:
    """Every operation of the API that is not open to everybody."""
    for path, methods in Client().get("/api/openapi.json").json()["paths"].items():
        yield from ((method, path) for method, operation in methods.items() if operation.get("security"))


def word_for(method: str, path: str) -> Word:
    files = "assets" if path.startswith("/assets") else "configs"
    return Word(f"{'read' if method == 'get' else 'write'}-{files}")


def call(secret: str, method: str, path: str, **data: Any) -> Any:
    client = Client(raise_request_exception=False, headers={"Authorization": f"Bearer {secret}"})
    return getattr(client, method)(path.format(**NAMES), **data)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(f"{MAC}.json", "{}")
    return file.getvalue()


def call_as_it_should_be(secret: str, method: str, path: str) -> Any:
    if (method, path) == ("post", "/assets"):
        return call(secret, method, path, data={"file": SimpleUploadedFile("firmware.bin", b"bytes")})
    if (method, path) == ("post", "/configs.zip"):
        return call(secret, method, path, data=zipped(), content_type="application/zip")
    return call(secret, method, path, data=JSON.get((method, path)), content_type="application/json")


@pytest.fixture
def user() -> User:
    return make_administrator()


@pytest.fixture
def files() -> None:
    DeviceConfig.objects.put(MAC, '{"deviceName": "Lamp"}')
    Asset.objects.upload("firmware.bin", [b"bytes"])


class TestAWord:
    @pytest.mark.parametrize("word", Word)
    def test_opens_its_operations_and_no_others(self, user, files, word):
        """A new operation that this does not know how to ask, or that asks for no permission, is found here."""
        secret = make_token(user, word)
        refused = {}

        for method, path in operations():
            with nothing_changed() if word_for(method, path) != word else nullcontext():
                answer = call_as_it_should_be(secret, method, path)
            if answer.status_code in {401, 403}:
                assert refusal(answer) == (403, "FORBIDDEN")
                refused[method, path] = answer.json()["details"]["missing"]

        needed = {each: word_for(*each) for each in operations()}
        assert refused == {each: missing for each, missing in needed.items() if missing != word}

    @pytest.mark.both_databases
    def test_opens_with_the_others_all_that_there_is(self, user, files):
        secret = make_token(user, *Word)

        answers = {call_as_it_should_be(secret, method, path).status_code for method, path in operations()}

        assert answers <= {200, 202, 204, 404}

    def test_that_is_missing_is_told_with_a_way_on(self, user):
        answer = call(make_token(user, Word.READ_CONFIGS), "delete", f"/configs/{MAC}")

        assert answer.json() == {
            "error": "This token may not write configurations. Make one that may: 'manage.py create_api_token USERNAME"
            " --may write-configs …', or in the admin.",
            "code": "FORBIDDEN",
            "details": {"permission": "devices.delete_deviceconfig", "missing": "write-configs"},
        }

    def test_gives_nobody_more_than_the_user_has(self):
        secret = make_token(make_user("devices.view_deviceconfig"), *Word)

        answer = call(secret, "delete", f"/configs/{MAC}")

        assert refusal(answer) == (403, "FORBIDDEN")
        assert answer.json()["details"] == {"permission": "devices.delete_deviceconfig"}
        assert call(secret, "get", "/configs").status_code == 200

    def test_stands_for_no_permission_on_users_or_tokens(self, user):
        request = RequestFactory().get("/")
        found = ApiToken.authenticate(make_token(user, *Word))
        assert found is not None
        request.user = found[0]

        for permission in ["auth.view_user", "iotsupport.add_apitoken", "devices.announce_deviceconfig", "nonsense"]:
            with pytest.raises(ApiError, match="A token with words may do nothing that needs the permission"):
                require(request, permission)

    @pytest.mark.both_databases
    def test_leaves_who_did_it_in_the_history(self, user):
        call_as_it_should_be(make_token(user, Word.WRITE_CONFIGS), "put", "/configs/{mac_address}.json")

        assert DeviceConfig.history.get().history_user == user
        assert DeviceConfig.objects.get().updated_by == user

    @pytest.mark.both_databases
    def test_costs_no_further_statement(self, user):
        narrow, whole = make_token(user, Word.READ_CONFIGS), make_token(user)
        costs = []
        for secret in [narrow, whole]:
            call(secret, "get", "/configs")  # which notes the use
            with CaptureQueriesContext(connection) as queries:
                call(secret, "get", "/configs")
            costs.append(len(queries))

        assert costs == [2, 2]


class TestOneThatExpires:
    @pytest.mark.both_databases
    def test_works_until_then(self, user):
        secret = make_token(user, expires_at=timezone.now() + timedelta(minutes=1))

        assert call(secret, "get", "/configs").status_code == 200

    def test_says_so_to_who_has_it(self, user):
        secret = make_token(user, expires_at=timezone.now() - timedelta(seconds=1))

        answer = call(secret, "get", "/configs")

        assert refusal(answer) == (401, "TOKEN_EXPIRED")
        assert answer["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"].startswith(
            f"This token expired at {answer.json()['details']['expired_at']}. Make"
        )
        assert ApiToken.objects.get().last_used_at is None

    @pytest.mark.parametrize("over", ["revoked", "inactive", "another"])
    def test_says_nothing_to_others(self, user, over):
        secret = make_token(user, expires_at=timezone.now())
        if over == "revoked":
            ApiToken.objects.all().revoke()
        User.objects.update(is_active=over != "inactive")

        answer = call(secret + "x" if over == "another" else secret, "get", "/configs")

        assert refusal(answer) == (401, "NOT_AUTHENTICATED")


class TestTheCommand:
    @pytest.mark.both_databases
    def test_makes_a_token_that_may_what_is_said(self, user):
        secret = make("admin", "--may", "write-assets", "read-configs", "--expires", "30").strip()

        token = ApiToken.objects.get()
        assert token.words == [Word.READ_CONFIGS, Word.WRITE_ASSETS]
        assert token.expires_at is not None
        assert abs(token.expires_at - timezone.now() - timedelta(days=30)) < timedelta(minutes=1)
        assert call(secret, "get", "/configs").status_code == 200
        assert call(secret, "get", "/assets").status_code == 403

    def test_makes_one_that_may_everything_for_ever(self, user):
        make("admin")

        token = ApiToken.objects.get()
        assert (token.words, token.expires_at) == (None, None)

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["--may", "write-users"], "invalid choice: 'write-users' (choose from "),
            (["--may"], "expected at least one argument"),
            (["--expires", "0"], "'0' is no number of days from 1 to 36525"),
            (["--expires", "-1"], "'-1' is no number of days"),
            (["--expires", "36526"], "'36526' is no number of days"),
            (["--expires", "1e3"], "'1e3' is no number of days"),
            (["--expires", "9" * 5000], "is no number of days"),
            (["--description", "x" * 101], "at most 100 characters"),
            (["--may", "write-configs", "read-assets"], "The user ci may not write configurations, read assets. Give"),
        ],
    )
    def test_refuses_in_a_sentence(self, arguments, sentence):
        make_user("devices.view_deviceconfig", username="ci")

        with pytest.raises(CommandError) as refused:
            make("ci", *arguments)

        assert sentence in str(refused.value)
        assert not ApiToken.objects.exists()
