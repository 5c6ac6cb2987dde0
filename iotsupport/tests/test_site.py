"""Signing in and out, what a change of password revokes, and what the debug page leaves out."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.views.debug import technical_500_response

from iotsupport import __version__
from iotsupport.models import ApiToken
from iotsupport.tests.support.api_client import make_token, make_user, session_client

pytestmark = pytest.mark.django_db

OLD, NEW = "swallows-return", "pigeons-and-mirrors"


@pytest.fixture
def maria() -> User:
    return make_user(username="maria", password=OLD, is_staff=True)


def test_the_version_is_at_the_foot_of_pages_and_not_told_to_strangers(admin_client: Client):
    foot = f'<p class="version">IoT Support {__version__}</p>'

    assert foot in admin_client.get("/admin/").content.decode()
    assert foot in admin_client.get("/admin/devices/deviceconfig/").content.decode()
    assert foot not in admin_client.get("/admin/auth/group/add/?_popup=1").content.decode()
    assert __version__ not in Client().get("/admin/login/").content.decode()


def is_usable(secret: str) -> bool:
    return ApiToken.authenticate(secret) is not None


class TestWhereOneGoesOn:
    @pytest.mark.parametrize(
        "given",
        [
            "https://evil.example/admin/",
            "//evil.example",
            "/\\evil.example",
            "javascript:alert(1)",
            "/nothing",
            "/admin/nothing/",
            "/admin/logout/",
            "/admin/login/",
            "/admin/jsi18n/",
            "/configs",
            "/health",
            "/%00",
            "admin/",
            "",
            " ",
            "x" * 3000,
        ],
    )
    def test_not_to_what_is_no_page_of_ours(self, maria, given):
        for query, fields in [({"next": given}, {}), ({}, {"next": given})]:
            answer = Client().post(
                "/admin/login/", {"username": "maria", "password": OLD, **fields}, query_params=query
            )

            assert (answer.status_code, answer["Location"]) == (302, "/admin/")

    @pytest.mark.parametrize(
        "given", ["/admin/", "/admin/devices/deviceconfig/?q=Küche", "/admin/assets/asset/7/change/", "/api/docs"]
    )
    def test_to_the_page_that_one_came_for(self, maria, given):
        answer = Client().post("/admin/login/", {"username": "maria", "password": OLD, "next": given})

        assert answer.status_code == 302
        assert answer["Location"].replace("%C3%BC", "ü") == given

    def test_without_any_to_the_first_page(self, maria):
        answer = Client().post("/admin/login/", {"username": "maria", "password": OLD})

        assert answer["Location"] == "/admin/"

    @pytest.mark.parametrize("given", ["//evil.example", "/nothing", "/admin/login/"])
    def test_signing_out_says_so_wherever_it_should_lead(self, maria, given):
        for query, fields in [({"next": given}, {}), ({}, {"next": given})]:
            answer = session_client(maria).post("/admin/logout/", fields, query_params=query)

            assert answer.status_code == 200
            assert "Logged out" in answer.text


@pytest.mark.both_databases
class TestAChangeOfPassword:
    @pytest.fixture
    def secret(self, maria) -> str:
        return make_token(maria)

    @pytest.fixture
    def of_somebody_else(self) -> str:
        return make_token(make_user(username="otto"))

    def test_by_oneself_revokes_the_tokens_and_says_so_before(self, maria, secret, of_somebody_else):
        signed_in = session_client(maria)
        form = signed_in.get("/admin/password_change/")
        fields = {"old_password": OLD, "new_password1": NEW, "new_password2": NEW}

        answer = signed_in.post("/admin/password_change/", fields)

        assert f"these API tokens of maria will be revoked: {secret[:8]}…." in form.text
        assert answer.status_code == 302
        assert [is_usable(secret), is_usable(of_somebody_else)] == [False, True]
        assert "will be revoked" not in signed_in.get("/admin/password_change/").text

    @pytest.mark.parametrize(
        "fields",
        [
            {"password1": NEW, "password2": NEW, "usable_password": "true", "set-password": "x"},
            {"usable_password": "false", "unset-password": "x"},
        ],
        ids=["another", "none"],
    )
    def test_by_an_administrator_revokes_them_too(self, maria, secret, signed_in, fields):
        url = f"/admin/auth/user/{maria.pk}/password/"
        form = signed_in.get(url)

        answer = signed_in.post(url, fields)

        assert f"these API tokens of maria will be revoked: {secret[:8]}…." in form.text
        assert answer.status_code == 302
        assert not is_usable(secret)

    def test_in_a_command_or_the_shell_revokes_them_too(self, maria, secret):
        maria.set_password(NEW)
        assert is_usable(secret)
        maria.save(update_fields=["password"])

        assert not is_usable(secret)

    def test_nothing_else_does(self, maria, secret, settings):
        settings.PASSWORD_HASHERS = [*settings.PASSWORD_HASHERS, "django.contrib.auth.hashers.PBKDF2PasswordHasher"]
        maria.password = PBKDF2PasswordHasher().encode(OLD, "salt", iterations=1000)
        maria.save()  # by hand: as loaddata, or a move from elsewhere, has it

        assert Client().post("/admin/login/", {"username": "maria", "password": OLD}).status_code == 302
        maria.refresh_from_db()
        assert maria.password.startswith("md5$")  # made anew at the sign-in
        maria.first_name = "Maria"
        maria.save()

        assert is_usable(secret)

    def test_a_user_who_has_none_keeps_tokens(self):
        robot = make_user(username="robot")
        secret = make_token(robot)

        robot.is_staff = True
        robot.save()
        robot.set_unusable_password()
        robot.save()

        assert is_usable(secret)

    def test_a_new_one_has_tokens_that_work(self, maria, secret):
        maria.set_password(NEW)
        maria.save()
        later = make_token(maria)
        maria.save()

        assert is_usable(later)


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize("permissions", [["add"], ["view"], ["add", "view"]])
def test_tokens_of_one_s_own_are_revoked_without_the_right_to_delete(permissions):
    user = make_user(*[f"iotsupport.{name}_apitoken" for name in permissions], username="ci", is_staff=True)
    own, of_somebody_else = make_token(user), make_token(make_user(username="otto"))
    signed_in = session_client(user)

    listed = signed_in.get("/admin/iotsupport/apitoken/")
    for pk in ApiToken.objects.values_list("pk", flat=True):
        signed_in.post("/admin/iotsupport/apitoken/", {"action": "revoke", "_selected_action": [pk]})

    assert (listed.status_code, listed.text.count('name="_selected_action"')) == (200, 1)
    assert [is_usable(own), is_usable(of_somebody_else)] == [False, True]
    assert ApiToken.objects.count() == 2


class TestTheDebugPage:
    @pytest.fixture
    def page(self, settings, client) -> str:
        settings.DEBUG = True
        settings.MQTT_URL = "mqtts://iot:sesame-1@broker.example:8883"
        settings.MQTT_PASSWORD = "sesame-2"
        settings.SECRET_KEY = "sesame-3"
        settings.ENVIRONMENT_PROBLEMS = {"MQTT_URL": "MQTT_URL is 'mqtt://iot:ses/ame-4@x', but …"}
        settings.SOME_DATABASES = {"default": {"PASSWORD": "sesame-5", "URL": ["postgresql://iot:sesame-6@db/iot"]}}
        settings.OTHER_PLACES = [("redis://:sesame-7@cache/0", 1)]
        settings.METRICS_TOKEN = settings.OIDC_CLIENT_SECRET = settings.DEVICE_PASSWORD = "sesame-8"
        request = RequestFactory().post("/admin/login/?token=sesame-9", {"username": "maria", "password": "sesame-9"})
        request.META["DATABASE_URL"] = "postgresql://iot:sesame-9@db/iot"
        return fail(request).content.decode()

    def test_shows_no_secret_and_no_credentials(self, page):
        assert "MQTT_URL" in page
        assert "broker.example:8883" in page
        assert [number for number in range(1, 9) if f"sesame-{number}" in page] == []
        assert "ame-4" not in page
        assert "postgresql://********************@db/iot" in page

    def test_shows_none_of_a_function_s_variables(self, page):
        assert "sesame-10" not in page
        assert "harmless" in page


def fail(request: Any) -> Any:
    password = url = "".join(["mqtt://iot:", "sesame", "-10@broker"])
    plain = "harm" + "less"
    try:
        raise RuntimeError(f"with {len(password + url + plain)} characters")
    except RuntimeError:
        return technical_500_response(request, *sys.exc_info())
