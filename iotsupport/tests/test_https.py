"""Cookies and sessions over HTTPS, and sessions that slide."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import OperationalError, connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from iotsupport.accounts import sessions
from iotsupport.limits import admit_body
from iotsupport.serving.bodies import SMALL_BODY_BYTES
from iotsupport.tests.support.api_client import make_user

pytestmark = pytest.mark.django_db

PASSWORD = "swallows-return"
ADDED = "/admin/devices/deviceconfig/add/"


@pytest.fixture(autouse=True)
def maria() -> User:
    return make_user(username="maria", password=PASSWORD, is_staff=True, is_superuser=True)


def sign_in(*, secure: bool) -> Client:
    client = Client()
    client.get("/admin/login/", secure=secure)
    answer = client.post("/admin/login/", {"username": "maria", "password": PASSWORD}, secure=secure)
    assert answer.status_code == 302
    return client


def is_let_in(client: Client, *, secure: bool) -> bool:
    """Asked with what a client that knows no better sends along, and nothing that was deleted before."""
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    answers = [
        Client(headers={"Cookie": cookie}).get(path, secure=secure).status_code for path in ["/admin/", "/configs"]
    ]
    assert answers in [[200, 200], [302, 401]]
    return answers == [200, 200]


class TestCookies:
    @pytest.mark.parametrize("secure", [True, False])
    def test_are_secure_where_the_request_was(self, secure):
        client = sign_in(secure=secure)

        assert {name: bool(cookie["secure"]) for name, cookie in client.cookies.items()} == {
            "csrftoken": secure,
            "sessionid": secure,
        }

    def test_that_are_deleted_are_too(self):
        client = sign_in(secure=True)

        answer = client.post("/admin/logout/", secure=True)

        assert [bool(cookie["secure"]) for cookie in answer.cookies.values()]
        assert all(cookie["secure"] for cookie in answer.cookies.values())

    def test_of_a_front_server_that_ends_tls(self):
        client = Client()

        answer = client.get("/admin/login/", **{"wsgi.url_scheme": "https"})  # type: ignore[arg-type]

        assert answer.cookies["csrftoken"]["secure"]

    def test_are_not_there_for_devices(self):
        assert not Client().get("/health", secure=True).cookies


class TestASession:
    def test_of_https_is_worth_nothing_without(self):
        client = sign_in(secure=True)

        assert [is_let_in(client, secure=secure) for secure in [True, False, True]] == [True, False, True]

    def test_of_plain_http_goes_on(self):
        client = sign_in(secure=False)

        assert [is_let_in(client, secure=secure) for secure in [False, True, False]] == [True, True, True]

    def test_of_https_lets_nobody_send_more_without(self, monkeypatch):
        monkeypatch.setattr("iotsupport.limits.close_old_connections", lambda: None)
        cookie = f"sessionid={sign_in(secure=True).cookies['sessionid'].value}"
        environ = RequestFactory().post(ADDED, headers={"Cookie": cookie}).META

        allowed = [admit_body({**environ, "wsgi.url_scheme": scheme}) for scheme in ["http", "https"]]

        assert [bool(each and each.most_bytes > SMALL_BODY_BYTES) for each in allowed] == [False, True]

    def test_that_was_stolen_is_not_ended_by_the_thief(self):
        client = sign_in(secure=True)
        thief = Client(headers={"Cookie": f"sessionid={client.cookies['sessionid'].value}"})
        thief.post("/admin/logout/")
        thief.post("/admin/login/", {"username": "maria", "password": PASSWORD})

        assert is_let_in(client, secure=True)


class TestSliding:
    @pytest.fixture
    def now(self, monkeypatch) -> Any:
        """Move the clock on."""
        moment = [timezone.now()]
        monkeypatch.setattr("django.utils.timezone.now", lambda: moment[0])
        monkeypatch.setattr(sessions, "_not_before", 0.0)

        def move(**delta: float) -> None:
            moment[0] += timedelta(**delta)

        return move

    @pytest.mark.parametrize(("hours", "used_every"), [(336, {"days": 13}), (1, {"minutes": 50})])
    def test_a_session_that_is_used_does_not_end(self, now, settings, hours, used_every):
        settings.SESSION_COOKIE_AGE = hours * 3600
        client = sign_in(secure=False)

        for _ in range(8):
            now(**used_every)
            assert client.get("/admin/").status_code == 200

    def test_one_that_is_not_used_ends(self, now):
        client = sign_in(secure=False)

        now(hours=337, seconds=1)

        assert client.get("/admin/").status_code == 302

    @pytest.mark.parametrize("hours", [1, 336])
    @pytest.mark.parametrize("used_after", [0, 0.5, 0.8, 0.9, 1, 1.5])
    def test_one_lasts_its_hours_from_its_last_use_and_hardly_longer(self, now, settings, hours, used_after):
        settings.SESSION_COOKIE_AGE = hours * 3600
        slack = min(1, hours / 10)
        client = sign_in(secure=False)
        now(hours=used_after * slack)
        client.get("/admin/")
        cookie = client.cookies["sessionid"]
        now(hours=hours, seconds=-1)
        least = Client(headers={"Cookie": f"sessionid={cookie.value}"})

        is_there = Session.objects.get().expire_date > timezone.now()
        now(hours=slack, seconds=2)

        assert is_there
        assert cookie["max-age"] == round((hours + slack) * 3600)
        assert least.get("/admin/").status_code == 302

    @pytest.mark.both_databases
    def test_one_that_cannot_be_written_for_a_moment_ends_no_earlier(self, now, monkeypatch):
        client = sign_in(secure=False)
        now(minutes=55)

        def refuse(execute: Any, sql: str, *rest: Any) -> Any:
            if sql.startswith("UPDATE"):
                raise OperationalError("database is locked")
            return execute(sql, *rest)

        with connection.execute_wrapper(refuse):
            client.get("/admin/")
        now(hours=336, seconds=-1)

        assert client.get("/admin/").status_code == 200

    @pytest.mark.both_databases
    def test_an_hour_s_uses_are_one_write(self, now):
        client = sign_in(secure=False)
        now(minutes=49)
        with CaptureQueriesContext(connection) as captured:
            first = client.get("/admin/")
            now(minutes=2)
            second = client.get("/admin/")
            for _ in range(10):
                client.get("/admin/")

        assert [query["sql"].split()[0] for query in captured if not query["sql"].startswith("SELECT")].count(
            "UPDATE"
        ) == 1
        assert ["sessionid" in answer.cookies for answer in [first, second]] == [False, True]
        assert second.cookies["sessionid"]["max-age"] == 337 * 3600
        assert second.cookies["sessionid"]["httponly"]
        assert Session.objects.get().expire_date == timezone.now() + timedelta(hours=337)

    def test_over_https_its_cookie_stays_secure(self, now):
        client = sign_in(secure=True)
        now(hours=2)

        answer = client.get("/admin/", secure=True)

        assert answer.cookies["sessionid"]["secure"]

    def test_a_disk_that_is_full_keeps_nobody_out(self, now):
        client = sign_in(secure=False)
        now(hours=2)
        tried = []

        def full(execute: Any, sql: str, *rest: Any) -> Any:
            if sql.startswith("UPDATE"):
                tried.append(sql)
                raise OperationalError("database or disk is full")
            return execute(sql, *rest)

        with connection.execute_wrapper(full):
            answers = [client.get("/admin/") for _ in range(5)]

        assert {answer.status_code for answer in answers} == {200}
        assert "sessionid" not in answers[0].cookies
        assert len(tried) == 1

    def test_strangers_and_scripts_write_nothing(self, now):
        now(hours=2)
        with CaptureQueriesContext(connection) as captured:
            Client().get("/admin/login/")
            Client(headers={"Cookie": f"sessionid={'a' * 32}"}).get("/admin/login/")

        assert {query["sql"].split()[0] for query in captured} <= {"SELECT"}


class TestHttpsOnly:
    """Where people and scripts come over HTTPS alone."""

    @pytest.fixture(autouse=True)
    def only(self, settings: Any) -> None:
        settings.HTTPS_ONLY = settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
        settings.SECURE_HSTS_SECONDS = 31536000

    @pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
    @pytest.mark.parametrize(
        "path", ["/", "/admin/", "/admin/login/?next=/admin/", "/configs", "/api/assets", "/api/docs"]
    )
    def test_people_and_scripts_are_sent_there(self, method: str, path: str):
        answer = getattr(Client(), method)(path)

        assert (answer.status_code, answer["Location"]) == (308, f"https://testserver{path}")
        assert not answer.cookies

    @pytest.mark.parametrize(
        "path", ["/health", "/api/health", "/metrics", "/configs/02-00-00-00-00-01.json", "/api/assets/fw.bin"]
    )
    def test_devices_and_probes_are_not(self, path: str):
        plain, secure = (Client().get(path, secure=secure) for secure in [False, True])

        assert plain.status_code in {200, 404, 503}
        assert not {"Strict-Transport-Security", "Location"} & {*plain.headers, *secure.headers}

    def test_browsers_remember_it(self):
        assert Client().get("/admin/login/", secure=True)["Strict-Transport-Security"] == "max-age=31536000"

    def test_cookies_are_secure_whatever_the_front_server_says(self):
        client = sign_in(secure=True)

        assert all(cookie["secure"] for cookie in client.cookies.values())

    @pytest.mark.parametrize(
        ("origins", "host", "location"),
        [
            ([], "testserver:8000", "https://testserver/admin/"),
            (["https://testserver:8443", "http://testserver:81"], "testserver:8000", "https://testserver:8443/admin/"),
            (["https://other:8443"], "testserver", "https://testserver/admin/"),
            (["https://[::1]:8443"], "[::1]:8000", "https://[::1]:8443/admin/"),
        ],
    )
    def test_at_the_port_that_origins_name(self, settings: Any, origins: list[str], host: str, location: str):
        settings.CSRF_TRUSTED_ORIGINS = origins
        settings.ALLOWED_HOSTS = ["testserver", "[::1]"]

        assert Client().get("/admin/", headers={"Host": host})["Location"] == location

    def test_nobody_is_sent_to_a_host_that_is_not_ours(self):
        assert Client().get("/admin/", headers={"Host": "evil.example"}).status_code == 400

    def test_nobody_is_sent_to_another_host_by_the_path(self):
        answer = Client().get("/", PATH_INFO="//evil.example/admin/")

        assert answer["Location"] == "https://testserver//evil.example/admin/"


def test_without_it_nobody_is_sent_anywhere(client):
    assert client.get("/admin/login/").status_code == 200
    assert "Strict-Transport-Security" not in client.get("/admin/login/", secure=True)
