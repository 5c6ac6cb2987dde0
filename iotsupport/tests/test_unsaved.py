"""What somebody typed that could not be saved comes back, in a page of ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError
from django.test import Client

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.accounts import signin
from iotsupport.models import ApiToken
from iotsupport.serving.bodies import SMALL_BODY_BYTES
from iotsupport.tests.support.api_client import failing_statements, make_user, nothing_changed, session_client
from iotsupport.tests.support.page_walk import Form, Page

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

MAC = "aa-bb-cc-dd-ee-ff"
PASSWORD = "swallows-return"
LOGIN = "/admin/login/"
CONFIGS, ASSETS, TOKENS = "/admin/devices/deviceconfig/", "/admin/assets/asset/", "/admin/iotsupport/apitoken/"
USERS, GROUPS = "/admin/auth/user/", "/admin/auth/group/"
# As browsers send it; with a first line that HTML would drop, and what it would take for markup.
TYPED = '\r\n{"deviceName": "</textarea><b>x</b>\\"\'>",\r\n "a": 1.0}\r\n'
NEW_CONFIG = {"mac_address": MAC, "content": TYPED, "_save": "Save"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
NEW_USER = {"username": "nils", "usable_password": "true", "password1": "wild-geese", "password2": "wild-geese"}


@pytest.fixture(autouse=True)
def maria(transactional_db: None) -> User:
    return make_user(username="maria", password=PASSWORD, is_staff=True, is_superuser=True)


@pytest.fixture
def config() -> DeviceConfig:
    return DeviceConfig.objects.put(MAC, '{"deviceName": "Before"}')


def browser(user: User | None = None) -> Client:
    """A browser whose forms have the token that they came with."""
    if user:
        return session_client(user, with_csrf=False)
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.get(LOGIN)
    return client


def with_token(client: Client, fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "csrfmiddlewaretoken": client.cookies["csrftoken"].value}


def form_of(answer: Any, *, button: str) -> Form:
    [form] = [form for form in Page(answer.content.decode()).forms if any(each[1] == button for each in form.buttons)]
    return form


def login_form(answer: Any) -> Form:
    [form] = [form for form in Page(answer.content.decode()).forms if "password" in form.values]
    return form


def send(client: Client, form: Form, **more: str) -> Any:
    return client.post(form.action, {**form.values, **more})


def sign_in(client: Client, form: Form) -> Any:
    return send(client, form, username="maria", password=PASSWORD)


def text_of(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


FORMS: list[tuple[str, dict[str, Any], Callable[[], bool]]] = [
    (f"{CONFIGS}add/", NEW_CONFIG, lambda: DeviceConfig.objects.get().content == TYPED.replace("\r\n", "\n")),
    (
        f"{TOKENS}add/",
        {"user": "USER", "description": "a <b>nightly</b> build", "may": "everything"},
        ApiToken.objects.exists,
    ),
    (f"{GROUPS}add/", {"name": "<b>gardeners</b>"}, lambda: Group.objects.get().name == "<b>gardeners</b>"),
]


def fill(fields: dict[str, Any], user: User) -> dict[str, Any]:
    return {name: str(user.pk) if value == "USER" else value for name, value in fields.items()}


each_form = pytest.mark.parametrize(("path", "fields", "is_saved"), FORMS, ids=["configuration", "token", "group"])


class TestAfterTheSessionEnded:
    @each_form
    def test_what_was_typed_goes_through_the_sign_in(self, maria, path, fields, is_saved):
        client = browser()
        with nothing_changed():
            asked = client.post(path, with_token(client, fill(fields, maria)))

        signed_in = sign_in(client, login_form(asked))
        saved = send(client, form_of(signed_in, button="Send it now"))

        assert (asked.status_code, signed_in.status_code) == (403, 200)
        assert "Nothing was saved: you are not signed in any more." in text_of(asked)
        assert saved.status_code in {200, 302}
        assert is_saved()

    def test_a_wrong_password_loses_nothing(self):
        client = browser()
        asked = client.post(f"{CONFIGS}add/", with_token(client, NEW_CONFIG))
        wrong = send(client, login_form(asked), username="maria", password="wrong")

        send(client, form_of(sign_in(client, login_form(wrong)), button="Send it now"))

        assert DeviceConfig.objects.get().content == TYPED.replace("\r\n", "\n")

    def test_waiting_loses_nothing(self, monkeypatch):
        client = browser()
        asked = client.post(f"{CONFIGS}add/", with_token(client, NEW_CONFIG))
        monkeypatch.setattr(signin, "_begin_check", lambda *about: signin.Wait("busy", 3))
        refused = sign_in(client, login_form(asked))
        monkeypatch.undo()

        again = send(client, form_of(refused, button="Sign in again"))
        send(client, form_of(sign_in(client, login_form(again)), button="Send it now"))

        assert refused.status_code == 429
        assert DeviceConfig.objects.get().content == TYPED.replace("\r\n", "\n")

    def test_what_is_too_large_for_a_sign_in_waits_until_that_is_done_elsewhere(self):
        client = browser()
        typed = f'{{"a": "{"x" * (SMALL_BODY_BYTES - 2000)}"}}'
        asked = client.post(f"{CONFIGS}add/", with_token(client, {**NEW_CONFIG, "content": typed}))
        client.post(LOGIN, with_token(client, {"username": "maria", "password": PASSWORD, "next": "/admin/"}))

        stale = send(client, form_of(asked, button="Send it now"))
        send(client, form_of(stale, button="Send it now"))

        assert "Sign in in another tab" in text_of(asked)
        assert DeviceConfig.objects.get().content == typed

    def test_passwords_are_not_shown_and_files_are_asked_for(self):
        client = browser()
        upload = SimpleUploadedFile("a.bin", b"some bytes")
        user = client.post(f"{USERS}add/", with_token(client, NEW_USER))
        asset = client.post(f"{ASSETS}add/", with_token(client, {"note": "x", "file": upload}))

        assert "nils" in text_of(user)
        assert "wild-geese" not in text_of(user)
        assert "Passwords are not kept" in text_of(user)
        assert "A file cannot be kept here: it has to be chosen again." in text_of(asset)
        signed_in = sign_in(client, login_form(user))
        again = send(client, form_of(signed_in, button="Send it now"))
        assert 'value="nils"' in text_of(again)
        assert not User.objects.filter(username="nils").exists()

    def test_where_nothing_was_typed_it_is_the_sign_in_as_ever(self, config):
        client = browser()

        answer = client.post(f"{CONFIGS}{config.pk}/delete/", with_token(client, {"post": "yes"}))

        assert answer.status_code == 302
        assert answer["Location"] == f"{LOGIN}?next={CONFIGS}{config.pk}/delete/"

    def test_it_goes_to_no_other_place(self):
        client = browser()
        fields = {"username": "maria", "password": PASSWORD, "kept-a": "x", "next": "https://evil.example/"}

        signed_in = client.post(LOGIN, with_token(client, fields))

        assert form_of(signed_in, button="Send it now").action == "/admin/"


class TestAnOldToken:
    @each_form
    def test_is_told_with_what_was_typed_and_a_way_on(self, maria, path, fields, is_saved):
        client = browser(maria)
        with nothing_changed():
            refused = client.post(path, {**fill(fields, maria), "csrfmiddlewaretoken": "a" * 64})

        send(client, form_of(refused, button="Send it now"))

        assert refused.status_code == 403
        assert "before you last signed in" in text_of(refused)
        assert "signed in as <strong>maria</strong> now" in text_of(refused)
        assert is_saved()

    def test_of_a_change_is_told_with_what_it_was_based_on(self, maria, config):
        client = browser(maria)
        fields = {"content": "{}", "based_on": "of another version", "csrfmiddlewaretoken": "a" * 64}
        refused = client.post(f"{CONFIGS}{config.pk}/change/?_changelist_filters=q%3Da", fields)

        form = form_of(refused, button="Send it now")
        again = send(client, form)

        assert form.action == f"{CONFIGS}{config.pk}/change/?_changelist_filters=q%3Da"
        assert "Somebody else changed it meanwhile" in text_of(again)

    def test_of_somebody_who_is_signed_out_leads_through_the_sign_in(self):
        client = browser()
        asked = client.post(f"{CONFIGS}add/", {**NEW_CONFIG, "csrfmiddlewaretoken": "a" * 64})

        send(client, form_of(sign_in(client, login_form(asked)), button="Send it now"))

        assert DeviceConfig.objects.get().content == TYPED.replace("\r\n", "\n")

    def test_of_a_sign_in_loses_nothing(self):
        client = browser()
        asked = client.post(f"{CONFIGS}add/", with_token(client, NEW_CONFIG))
        form = login_form(asked)
        form.values["csrfmiddlewaretoken"] = ["a" * 64]
        asked = sign_in(client, form)

        send(client, form_of(sign_in(client, login_form(asked)), button="Send it now"))

        assert PASSWORD not in text_of(asked)
        assert DeviceConfig.objects.get().content == TYPED.replace("\r\n", "\n")

    def test_does_not_show_passwords(self, maria):
        client = browser(maria)
        for path in [f"{USERS}{maria.pk}/password/", "/admin/password_change/", f"{USERS}add/"]:
            fields = {"old_password": "secret-1", "password1": "secret-1", "new_password1": "secret-1"}

            refused = client.post(path, fields)

            assert refused.status_code == 403
            assert "secret-1" not in text_of(refused)
            assert "Passwords are not kept" in text_of(refused)
            assert f'href="{path}"' in text_of(refused)

    def test_says_that_the_file_is_to_be_chosen_again(self, maria):
        refused = browser(maria).post(f"{ASSETS}add/", {"file": SimpleUploadedFile("a.bin", b"some bytes")})

        assert refused.status_code == 403
        assert "A file cannot be kept here: it has to be chosen again." in text_of(refused)

    def test_is_no_page_where_the_database_is_away(self, maria):
        client = browser(maria)
        with failing_statements(OperationalError("server closed the connection unexpectedly")):
            refused = client.post(f"{CONFIGS}add/", NEW_CONFIG)

        assert refused.status_code == 503
        assert refused.content.decode().startswith("Nothing was saved.")

    def test_is_kept_in_the_page_where_the_database_is_away(self, maria):
        client = browser(maria)
        with failing_statements(OperationalError("server closed the connection unexpectedly")):
            refused = client.post(f"{CONFIGS}add/", NEW_CONFIG, headers=BROWSER)

        send(client, form_of(refused, button="Send it again"))

        assert refused.status_code == 503
        assert DeviceConfig.objects.get().content == TYPED.replace("\r\n", "\n")

    def test_of_another_site_is_not_sent_again_where_the_database_is_away(self, maria):
        client, headers = browser(maria), {**BROWSER, "Origin": "https://evil.example.com"}
        with failing_statements(OperationalError("server closed the connection unexpectedly")):
            refused = client.post(f"{CONFIGS}add/", NEW_CONFIG, headers=headers)

        assert refused.status_code == 503
        assert "Send it again" not in refused.text

    @pytest.mark.parametrize("path", ["/configs/" + MAC, "/api/configs/" + MAC])
    def test_of_a_program_is_refused_in_json(self, maria, path):
        refused = browser(maria).put(path, "{}", content_type="application/json")

        assert refused.status_code == 403
        assert set(refused.json()) == {"error", "code", "details"}


class TestAFormOfAnotherOrigin:
    @pytest.mark.parametrize("path", [f"{CONFIGS}add/", LOGIN])
    @pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-origin"}])
    def test_names_the_setting_and_the_value(self, maria, path, headers):
        headers = {"Origin": "https://iot.example.com:8443", **headers}

        refused = browser(maria).post(path, NEW_CONFIG, headers=headers)

        assert refused.status_code == 403
        assert "CSRF_TRUSTED_ORIGINS" in text_of(refused)
        assert '<pre id="origin">https://iot.example.com:8443</pre>' in text_of(refused)

    def test_is_taken_once_that_is_set(self, maria, settings):
        settings.CSRF_TRUSTED_ORIGINS = ["https://iot.example.com:8443"]
        client = browser(maria)
        headers = {"Origin": "https://iot.example.com:8443"}

        saved = client.post(f"{CONFIGS}add/", with_token(client, NEW_CONFIG), headers=headers)

        assert saved.status_code == 302

    def test_shows_what_was_typed_and_does_not_send_it_again(self, maria):
        refused = browser(maria).post(f"{CONFIGS}add/", NEW_CONFIG, headers={"Origin": "https://iot.example.com"})

        assert "&lt;b&gt;x&lt;/b&gt;" in text_of(refused)
        assert [form for form in Page(refused.content.decode()).forms if "content" in form.values] == []

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
            {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-site"},
            {"Origin": "null"},
            {"Origin": "<b>x</b>"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Referer": "http://evil.example/"},
        ],
    )
    def test_that_is_another_site_is_told_so_and_not_sent_again(self, maria, headers):
        refused = browser(maria).post(f"{CONFIGS}add/", NEW_CONFIG, headers=headers)

        assert refused.status_code == 403
        assert "another site" in text_of(refused)
        assert "CSRF_TRUSTED_ORIGINS" not in text_of(refused)
        assert "<b>x" not in text_of(refused)
        assert [form for form in Page(refused.content.decode()).forms if "content" in form.values] == []

    def test_is_known_by_its_referer_where_https_has_no_origin(self, maria):
        headers = {"Referer": "https://iot.example.com/admin/devices/"}

        refused = browser(maria).post(f"{CONFIGS}add/", NEW_CONFIG, headers=headers, secure=True)

        assert '<pre id="origin">https://iot.example.com</pre>' in text_of(refused)

    def test_that_came_without_https_is_no_origin_to_allow(self, maria):
        headers = {"Referer": "http://testserver/admin/"}

        refused = browser(maria).post(f"{CONFIGS}add/", NEW_CONFIG, headers=headers, secure=True)

        assert "another site" in text_of(refused)
        assert "CSRF_TRUSTED_ORIGINS" not in text_of(refused)

    def test_needs_one_of_the_two_over_https(self, maria):
        refused = browser(maria).post(f"{CONFIGS}add/", NEW_CONFIG, secure=True)

        assert "pass on <code>Origin</code> or <code>Referer</code>" in text_of(refused)


class TestWhatWentWhileSomebodyTyped:
    @pytest.fixture
    def editor(self) -> User:
        may = ["devices.view_deviceconfig", "devices.change_deviceconfig", "auth.view_group", "auth.change_group"]
        return make_user(*may, username="editor", is_staff=True)

    def test_a_row_that_one_may_not_add(self, editor, config):
        client, (pk, path) = browser(editor), (config.pk, f"{CONFIGS}{config.pk}/change/")
        config.delete()
        refused = client.post(path, with_token(client, {"content": TYPED}))
        assert refused.status_code == 403
        assert "was deleted while you were editing, and you may not add one." in text_of(refused)

        DeviceConfig(pk=pk, mac_address=MAC, content="{}").save()
        saved = send(client, form_of(refused, button="Try again"))

        assert saved.status_code == 302
        assert DeviceConfig.objects.get().content == TYPED.replace("\r\n", "\n")

    def test_the_permission(self, editor, config):
        client = browser(editor)
        permissions = list(editor.user_permissions.all())
        editor.user_permissions.clear()

        refused = client.post(f"{CONFIGS}{config.pk}/change/", with_token(client, {"content": TYPED}))

        assert refused.status_code == 403
        assert "Ask an administrator for the permission." in text_of(refused)
        editor.user_permissions.set(permissions)
        assert send(client, form_of(refused, button="Try again")).status_code == 302
        assert DeviceConfig.objects.get().content == TYPED.replace("\r\n", "\n")

    @pytest.mark.parametrize(("path", "name"), [(GROUPS, "name"), (USERS, "username")])
    def test_a_group_or_a_user(self, maria, path, name):
        client = browser(maria)

        answer = client.post(f"{path}4711/change/", with_token(client, {name: "<b>gardeners</b>"}))

        assert answer.status_code == 404
        assert "was deleted while you were editing" in text_of(answer)
        assert "&lt;b&gt;gardeners&lt;/b&gt;" in text_of(answer)

    @pytest.mark.parametrize("path", [CONFIGS, ASSETS, GROUPS])
    def test_what_was_to_be_deleted_is_simply_gone(self, maria, path):
        client = browser(maria)

        answer = client.post(f"{path}4711/delete/", with_token(client, {"post": "yes"}), follow=True)

        assert "Perhaps it was deleted?" in text_of(answer)

    def test_a_page_that_one_may_not_see_says_so(self, editor):
        answer = browser(editor).get(f"{ASSETS}add/")

        assert answer.status_code == 403
        assert "Ask an administrator for the permission." in text_of(answer)


class TestWithoutTheDatabase:
    """A page of ours all the same, which asks nobody."""

    @pytest.fixture
    def away(self) -> Any:
        return failing_statements(OperationalError("server closed the connection unexpectedly"))

    @pytest.mark.parametrize("path", ["/admin/", CONFIGS, f"{CONFIGS}add/", f"{USERS}1/change/", "/admin/nothing/"])
    def test_whoever_looks_is_told_so(self, maria, away, path):
        client = browser(maria)
        with away:
            answer = client.get(path, headers=BROWSER)

        assert (answer.status_code, answer["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert answer["Retry-After"] == "5"
        assert "no-store" in answer["Cache-Control"]
        assert "The database is not available just now. Try again in a moment." in text_of(answer)
        assert "iotsupport/admin.css" in answer.text
        assert f'<a href="{path}">Open the page again</a>' in text_of(answer)

    @pytest.mark.parametrize("headers", [{}, {"Accept": "*/*"}])
    def test_a_program_is_told_in_plain_words(self, maria, away, headers):
        client = browser(maria)
        with away:
            answer = client.get("/admin/session/", headers=headers)

        assert (answer.status_code, answer["Content-Type"]) == (503, "text/plain; charset=utf-8")

    @each_form
    def test_what_was_typed_is_there_to_be_sent_again(self, maria, away, path, fields, is_saved):
        client = browser(maria)
        with away:
            asked = client.post(path, with_token(client, fill(fields, maria)), headers=BROWSER)

        assert asked.status_code == 503
        send(client, form_of(asked, button="Send it again"))
        assert is_saved()

    def test_a_sign_in_takes_along_what_it_had(self, maria, away):
        client = browser()
        fields = {"username": "maria", "password": PASSWORD, "next": f"{GROUPS}add/", "kept-name": "<b>gardeners</b>"}
        with away:
            asked = client.post(LOGIN, with_token(client, fields), headers=BROWSER)

        assert asked.status_code == 503
        assert PASSWORD not in asked.text
        again = send(client, form_of(asked, button="Send it again"))
        one_more_step = sign_in(client, login_form(again))
        send(client, form_of(one_more_step, button="Send it now"))
        assert Group.objects.get().name == "<b>gardeners</b>"

    def test_passwords_are_not_shown(self, maria, away):
        client = browser(maria)
        with away:
            asked = client.post(f"{USERS}add/", with_token(client, NEW_USER), headers=BROWSER)

        assert "wild-geese" not in asked.text
        assert "Passwords are not kept" in text_of(asked)


class TestFieldsAreCalled:
    @pytest.mark.parametrize(
        ("path", "fields", "labels"),
        [
            (f"{CONFIGS}add/", NEW_CONFIG, ["MAC address", "Configuration"]),
            (f"{CONFIGS}1/change/?_changelist_filters=q%3Da", {"content": "{}"}, ["Configuration"]),
            (f"{TOKENS}add/", {"user": "1", "starts_at": "x"}, ["User", "Starts at"]),
            (f"{USERS}add/", {"username": "nils", "is_staff": "on"}, ["Username", "Staff status"]),
            (f"{USERS}1/change/", {"email": "a@b.example", "last_login_0": "x"}, ["Email address", "Last login 0"]),
            ("/admin/nothing/", {"mac_address": "x"}, ["Mac address"]),
        ],
    )
    @pytest.mark.parametrize("is_signed_in", [True, False])
    def test_as_in_their_form(self, maria, path, fields, labels, is_signed_in):
        refused = browser(maria if is_signed_in else None).post(path, fields, headers=BROWSER)

        shown = re.findall(r"<label>\s*(.*?)\s*<textarea", refused.text, re.DOTALL)
        assert refused.status_code == 403
        assert shown == labels


class TestAPageAsks:
    def test_whether_its_user_is_signed_in(self, maria):
        signed_in, stranger = browser(maria).get("/admin/session/"), Client().get("/admin/session/")

        assert (signed_in.json(), stranger.json()) == ({"is_signed_in": True}, {"is_signed_in": False})
        assert "no-store" in signed_in["Cache-Control"]

    def test_with_a_script_of_ours(self, maria):
        page = browser(maria).get(f"{CONFIGS}add/")

        assert "static/iotsupport/forms.js" in text_of(page)
        assert f'data-user="{maria.pk}" data-session="/admin/session/"' in text_of(page)


def test_nothing_is_kept_of_a_list_of_thousands(maria):
    refused = browser(maria).post(CONFIGS, {"note": ["x"] * 1001})

    assert refused.status_code == 403
    assert "textarea" not in text_of(refused)
    assert f'href="{CONFIGS}"' in text_of(refused)


def test_the_files_of_refused_forms_leave_nothing_behind(maria, directories):
    browser(maria).post(f"{ASSETS}add/", {"file": SimpleUploadedFile("a.bin", b"some bytes")})

    assert not Asset.objects.exists()
    assert [path for path in directories.rglob("*") if path.is_file()] == []
