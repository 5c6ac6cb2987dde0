"""Signing in, API tokens, and what every page of the admin has in common."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from iotsupport.models import ApiToken
from iotsupport.tests.support.api_client import make_user, session_client

pytestmark = [pytest.mark.both_databases, pytest.mark.django_db]

TOKENS = "/admin/iotsupport/apitoken/"
LIST = "/admin/devices/deviceconfig/"
ADD_TOKEN = f"{TOKENS}add/"


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
    # Neither what is owed nor who waits is something to add.
    assert {path for path, count in fields.items() if count < 2} == {
        "/admin/notifications/announcement/add/",
        "/admin/devices/waitingboard/add/",
    }


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
    created: Any = signed_in.post(ADD_TOKEN, {"user": administrator.pk, "description": "nightly build"})

    secret = created.context_data["token"]
    token = ApiToken.objects.get()
    assert secret in created.content.decode()
    assert "no-store" in created["Cache-Control"]
    for url in [TOKENS, f"{TOKENS}{token.pk}/change/", "/admin/"]:
        assert secret not in signed_in.get(url).content.decode()
    assert secret not in str(dict(signed_in.session)) + str(signed_in.cookies)
    assert use(secret) == 200


def test_a_revoked_token_opens_nothing(signed_in: Client, administrator: User):
    created: Any = signed_in.post(ADD_TOKEN, {"user": administrator.pk})
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

    refused = signed_in.post(ADD_TOKEN, {"user": administrator.pk})
    signed_in.post(ADD_TOKEN, {"user": user.pk})

    assert "Select a valid choice." in refused.content.decode()
    assert [token.user for token in ApiToken.objects.all()] == [user]


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
    signed_in.post(ADD_TOKEN, {"user": user.pk})

    assert ApiToken.objects.get().user == user


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
