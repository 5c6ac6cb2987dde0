"""Signing in, API tokens, and what every page of the admin has in common."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags

from iotsupport.models import ApiToken
from iotsupport.tests.support.api_client import make_user, session_client
from iotsupport.times import shown_zone

pytestmark = pytest.mark.django_db

TOKENS = "/admin/iotsupport/apitoken/"
LIST = "/admin/devices/deviceconfig/"
ADD_TOKEN = f"{TOKENS}add/"
EVERYTHING = {"may": "everything"}


@pytest.fixture
def user() -> User:
    """Somebody who may make tokens, and is not an administrator."""
    permissions = [f"iotsupport.{action}_apitoken" for action in ["add", "view", "delete"]]
    return make_user(*permissions, username="maria", is_staff=True)


def make_token(user: User, description: str = "") -> ApiToken:
    token = ApiToken(user=user, description=description)
    token.generate()
    token.save()
    return token


def revoke(signed_in: Client, token: ApiToken) -> Any:
    return signed_in.post(TOKENS, {"action": "revoke", "_selected_action": [token.pk]})


def use(secret: str) -> int:
    return Client(headers={"Authorization": f"Bearer {secret}"}).get("/configs").status_code


def sign_in(username: str, password: str) -> Any:
    return Client().post("/admin/login/", {"username": username, "password": password})


@pytest.mark.both_databases
def test_locks_out_who_guesses_and_nobody_else(settings: Any):
    make_user(username="maria", password="swallows-return", is_staff=True)
    make_user(username="otto", password="swallows-return", is_staff=True)

    for _ in range(settings.AXES_FAILURE_LIMIT):
        refused = sign_in("maria", "wrong")

    assert refused.status_code == 429
    assert "failed 10 times, so it is refused for an hour." in refused.content.decode()
    assert "<title>Too many tries | IoT Support</title>" in refused.content.decode()
    assert sign_in("maria", "swallows-return").status_code == 429
    assert sign_in("otto", "swallows-return").status_code == 302


def test_says_whose_pages_they_are(signed_in: Client):
    page = signed_in.get("/admin/").content.decode()

    assert "<title>Devices and their files | IoT Support</title>" in page
    assert 'href="/api/docs"' in page
    assert "View site" not in page
    assert "Django" not in page


@pytest.mark.parametrize("url", ["/admin/", "/admin/login/", "/admin/devices/deviceconfig/add/", "/admin/nowhere/"])
def test_allows_no_inline_script_or_style_and_no_other_host(signed_in: Client, url: str):
    policy = signed_in.get(url)["Content-Security-Policy"]

    directives = {part.strip() for part in policy.split(";")}
    # A form or a base of somebody else's making leads to no other host; nothing else is taken from one, either.
    assert {"default-src 'self'", "form-action 'self'", "base-uri 'self'", "frame-ancestors 'none'"} <= directives
    assert "unsafe" not in policy


def test_no_form_has_a_browser_cut_what_is_typed(signed_in: Client, administrator: User):
    """A browser cuts what is pasted to ``maxlength`` without a word, and what is left may pass."""
    user = f"/admin/auth/user/{administrator.pk}"
    paths = [reverse(f"admin:{model._meta.label_lower.replace('.', '_')}_add") for model in admin.site._registry]
    pages = {
        path: signed_in.get(path).content.decode()
        for path in [*paths, f"{user}/change/", f"{user}/password/", "/admin/password_change/", LIST]
    }
    pages["/admin/login/"] = Client().get("/admin/login/").content.decode()

    fields = {path: html.count("<input") for path, html in pages.items()}
    assert {path for path, html in pages.items() if "maxlength" in html} == set()
    # Neither what is owed, nor who waits, nor what is gone is something to add; changes begin in a list.
    assert {path for path, count in fields.items() if count < 2} == {
        "/admin/notifications/announcement/add/",
        "/admin/devices/waitingboard/add/",
        "/admin/devices/deletedconfig/add/",
        "/admin/assets/deletedasset/add/",
        "/admin/devices/change/add/",
    }


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        ("/admin/auth/group/add/", {"name": "x" * 151}, "name"),
        ("/admin/auth/user/add/", {"username": "x" * 151, "usable_password": "false"}, "username"),
        (ADD_TOKEN, {"description": "x" * 1001}, "description"),
    ],
)
def test_what_is_too_long_is_refused_and_shown_again(signed_in: Client, path: str, fields: dict[str, str], name: str):
    response: Any = signed_in.post(path, fields)

    [error] = response.context_data["adminform"].form.errors[name]
    assert f"(it has {len(fields[name])})" in error
    assert fields[name] in response.content.decode()


def test_shows_a_new_token_once(signed_in: Client, administrator: User):
    created: Any = signed_in.post(ADD_TOKEN, {**EVERYTHING, "user": administrator.pk, "description": "nightly build"})

    secret = created.context_data["token"]
    token = ApiToken.objects.get()
    assert secret in created.content.decode()
    assert "no-store" in created["Cache-Control"]
    for url in [TOKENS, f"{TOKENS}{token.pk}/change/", "/admin/"]:
        assert secret not in signed_in.get(url).content.decode()
    assert secret not in str(dict(signed_in.session)) + str(signed_in.cookies)
    assert use(secret) == 200


def test_a_revoked_token_opens_nothing(signed_in: Client, administrator: User):
    created: Any = signed_in.post(ADD_TOKEN, {**EVERYTHING, "user": administrator.pk})
    secret = created.context_data["token"]

    revoke(signed_in, ApiToken.objects.get())

    assert use(secret) == 401


def test_a_token_is_never_changed(signed_in: Client, administrator: User):
    token = make_token(administrator, "before")

    response = signed_in.post(f"{TOKENS}{token.pk}/change/", {"user": administrator.pk, "description": "after"})

    assert response.status_code == 403
    assert ApiToken.objects.get().description == "before"


def test_everybody_makes_tokens_for_themselves_only(administrator: User, user: User):
    signed_in = session_client(user)

    refused = signed_in.post(ADD_TOKEN, {**EVERYTHING, "user": administrator.pk})
    signed_in.post(ADD_TOKEN, {**EVERYTHING, "user": user.pk})

    assert "Select a valid choice." in refused.content.decode()
    assert [token.user for token in ApiToken.objects.all()] == [user]


@pytest.mark.both_databases
def test_everybody_has_only_their_own_tokens(administrator: User, user: User):
    theirs, own = make_token(administrator), make_token(user)
    signed_in = session_client(user)

    for token in [theirs, own]:
        revoke(signed_in, token)

    shown: Any = signed_in.get(TOKENS)
    assert [row.pk for row in shown.context_data["cl"].result_list] == [own.pk]
    assert list(ApiToken.objects.filter(revoked_at=None)) == [theirs]


def test_tokens_need_permissions():
    signed_in = session_client(make_user(is_staff=True))

    assert [signed_in.get(url).status_code for url in [TOKENS, ADD_TOKEN]] == [403, 403]


def test_an_administrator_makes_tokens_for_others(signed_in: Client, user: User):
    signed_in.post(ADD_TOKEN, {**EVERYTHING, "user": user.pk})

    assert ApiToken.objects.get().user == user


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("path", "term"),
    [
        ("auth/user/", "ИВАН"),
        ("auth/user/", "иванов иван"),
        ("auth/group/", "ТЕХНИКИ"),
        ("iotsupport/apitoken/", "nachtlauf in KÖLN"),
        ("iotsupport/apitoken/", "иван"),
    ],
)
def test_a_search_folds_case(signed_in: Client, administrator: User, path: str, term: str):
    user = make_user(username="иван", last_name="Иванов")
    Group.objects.create(name="Техники")
    Group.objects.create(name="Others")
    ApiToken.objects.create(user=administrator, description="Others", digest="1")
    ApiToken.objects.create(user=user, description="Nachtlauf in Köln", digest="2")

    page: Any = signed_in.get(f"/admin/{path}", {"q": term})

    assert page.context_data["cl"].result_count == 1
    assert str(page.context_data["cl"].result_list[0]) in {"иван", "Техники", str(ApiToken.objects.get(digest="2"))}


def errors_of(answer: Any) -> dict[str, list[str]]:
    return dict(answer.context_data["adminform"].form.errors)


class TestAToken:
    @pytest.mark.both_databases
    def test_may_be_made_with_words_and_a_last_day(self, signed_in: Client, administrator: User):
        fields = {"user": administrator.pk, "may": ["read-configs", "write-assets"]}
        created: Any = signed_in.post(ADD_TOKEN, {**fields, "expires_at": f"{timezone.now().year + 1}-12-31"})

        token = ApiToken.objects.get()
        assert token.may == "read-configs write-assets"
        assert "It may read configurations, write assets, until 31 December" in created.content.decode()
        assert use(created.context_data["token"]) == 200

    def test_works_to_the_end_of_its_last_day_where_the_pages_are(self, settings: Any, administrator: User):
        settings.SHOWN_TIME_ZONE = "America/New_York"
        today = timezone.localdate(timezone=shown_zone())

        session_client(administrator).post(
            ADD_TOKEN, {**EVERYTHING, "user": administrator.pk, "expires_at": today.isoformat()}
        )

        end = timezone.localtime(ApiToken.objects.get().expires_at, shown_zone())
        assert (end.date(), end.hour, end.minute) == (today, 23, 59)

    @pytest.mark.parametrize(
        ("fields", "name", "sentence"),
        [
            ({}, "may", "Tick what the token may do."),
            ({"may": ["everything", "read-configs"]}, "may", "Tick either the first, or some of the others."),
            (
                {"may": ["write-users"]},
                "may",
                "Select a valid choice. write-users is not one of the available choices.",
            ),
            ({"expires_at": "2020-02-29"}, "expires_at", "Choose a time to come, and within a hundred years."),
            ({"expires_at": "9999-12-31"}, "expires_at", "Choose a time to come, and within a hundred years."),
            ({"expires_at": "0001-01-01"}, "expires_at", "Choose a time to come, and within a hundred years."),
            ({"expires_at": "soon"}, "expires_at", "Enter a valid date."),
        ],
    )
    def test_is_refused_with_a_sentence(
        self, signed_in: Client, administrator: User, fields: Any, name: str, sentence: str
    ):
        answer = signed_in.post(
            ADD_TOKEN, {"user": administrator.pk, "may": EVERYTHING["may"], **fields} if fields else {}
        )

        assert errors_of(answer)[name] == [sentence]
        assert not ApiToken.objects.exists()

    def test_for_somebody_who_may_less_is_refused_with_what_is_lacking(self, signed_in: Client, user: User):
        answer = signed_in.post(ADD_TOKEN, {"user": user.pk, "may": ["read-configs", "write-assets"]})

        assert errors_of(answer)["may"] == [
            "The user maria may not read configurations, write assets. Give the user that permission first, or leave it"
            " out."
        ]

    def test_of_one_s_own_is_offered_the_words_that_one_has(self, administrator: User):
        maria = make_user("iotsupport.add_apitoken", "devices.view_deviceconfig", "assets.delete_asset", is_staff=True)

        pages: list[Any] = [session_client(user).get(ADD_TOKEN) for user in [maria, administrator]]

        offered = [[value for value, _ in page.context_data["adminform"].form.fields["may"].choices] for page in pages]
        assert offered[0] == ["everything", "read-configs", "write-assets"]
        assert offered[1] == ["everything", "read-configs", "write-configs", "read-assets", "write-assets"]


class TestTheList:
    @pytest.fixture(autouse=True)
    def tokens(self, administrator: User):
        now = timezone.now()
        ends = {"tomorrow": now + timedelta(days=1), "over": now - timedelta(days=1)}
        tokens: list[dict[str, Any]] = [
            {"description": "whole"},
            {"description": "narrow", "may": "read-configs write-assets", "expires_at": ends["tomorrow"]},
            {"description": "over", "may": "read-configs", "expires_at": ends["over"]},
            {"description": "revoked", "expires_at": ends["over"], "revoked_at": now},
        ]
        for number, fields in enumerate(tokens):
            ApiToken.objects.create(user=administrator, digest=str(number), **fields)

    def test_says_what_they_may_and_until_when(self, signed_in: Client):
        page: Any = signed_in.get(TOKENS)

        rows = re.findall(r'"field-what_it_may">(.*?)</td>.*?"field-ends">(.*?)</td>', page.text)
        told = {(strip_tags(may), re.sub(r" +", " ", strip_tags(end))) for may, end in rows}
        assert {(may, end.split()[0]) for may, end in told} == {
            ("everything that its user may", "it"),
            ("read configurations, write assets", "tomorrow"),
            ("read configurations", "expired"),
            ("everything that its user may", "revoked"),
        }

    @pytest.mark.both_databases
    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("state=valid", {"whole", "narrow"}),
            ("state=expired", {"over"}),
            ("state=revoked", {"revoked"}),
            ("state=nonsense", {"whole", "narrow", "over", "revoked"}),
            ("may=everything", {"whole", "revoked"}),
            ("may=read-configs", {"whole", "narrow", "over", "revoked"}),
            ("may=write-assets&state=valid", {"whole", "narrow"}),
            ("may=write-configs", {"whole", "revoked"}),
            ("may=nonsense", {"whole", "narrow", "over", "revoked"}),
        ],
    )
    def test_is_narrowed_down(self, signed_in: Client, query: str, found: set[str]):
        page: Any = signed_in.get(f"{TOKENS}?{query}")

        assert {token.description for token in page.context_data["cl"].result_list} == found

    @pytest.mark.both_databases
    def test_has_those_revoked_that_expired_too(self, signed_in: Client):
        signed_in.post(
            TOKENS, {"action": "revoke", "_selected_action": list(ApiToken.objects.values_list("pk", flat=True))}
        )

        assert not ApiToken.objects.filter(revoked_at=None).exists()
