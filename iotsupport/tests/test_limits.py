"""How much of a body is read, of whom, at which address."""

from __future__ import annotations

from unittest import mock

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import Client, RequestFactory
from django.utils import timezone

from devices.limits import WRAPPING_MAX_BYTES
from iotsupport.limits import admit_body
from iotsupport.serving.bodies import SMALL_BODY_BYTES
from iotsupport.tests.support.api_client import make_administrator, make_token, make_user
from iotsupport.transfer.unzipping import MOST_BYTES

pytestmark = pytest.mark.usefixtures("db")

CONFIG, FORM = settings.CONFIG_MAX_BYTES + WRAPPING_MAX_BYTES, settings.FORM_MAX_BYTES
LIST, ASSET = settings.LIST_MAX_BYTES, 2 * settings.ASSET_MAX_BYTES + 65536
SMALL = SMALL_BODY_BYTES
MAC = "aa-bb-cc-dd-ee-ff"


@pytest.fixture(autouse=True)
def open_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's transaction goes on; a worker's thread has no other."""
    monkeypatch.setattr("iotsupport.limits.close_old_connections", lambda: None)


def admitted(method: str, path: str, **headers: str) -> tuple[int, bool]:
    allowance = admit_body(RequestFactory().generic(method, path, headers=headers).META)
    assert allowance is not None
    return allowance.most_bytes, allowance.is_streamed


def cookie_of(user: object) -> str:
    client = Client()
    client.force_login(user)  # type: ignore[arg-type]
    return f"sessionid={client.cookies['sessionid'].value}"


ADDRESSES = [
    ("PUT", f"/configs/{MAC}", (CONFIG, False)),
    ("PUT", f"/api/configs/{MAC.upper()}.json", (CONFIG, False)),
    ("POST", "/assets", (ASSET, True)),
    ("POST", "/api/assets", (ASSET, True)),
    ("POST", "/configs.zip", (MOST_BYTES, True)),
    ("POST", "/api/configs.zip", (MOST_BYTES, True)),
    ("POST", "/admin/devices/deviceconfig/import/", (MOST_BYTES + 65536, True)),
    ("POST", "/admin/devices/deviceconfig/add/", (FORM, False)),
    ("POST", "/admin/devices/deviceconfig/1/change/", (FORM, False)),
    ("POST", "/admin/devices/deviceconfig/1/history/2/", (FORM, False)),
    ("POST", "/admin/devices/deviceconfig/", (LIST, False)),
    ("POST", "/admin/assets/asset/add/", (ASSET, True)),
    ("POST", "/admin/assets/asset/1/change/", (ASSET, True)),
    ("POST", "/admin/assets/asset/", (LIST, False)),
    ("POST", "/admin/auth/user/", (LIST, False)),
    # For everybody alike.
    ("POST", f"/configs/{MAC}", (SMALL, False)),
    ("GET", "/assets", (SMALL, False)),
    ("PUT", "/assets/a.bin", (SMALL, False)),
    ("DELETE", f"/configs/{MAC}", (SMALL, False)),
    ("PUT", "/configs/a/b", (SMALL, False)),
    ("POST", "/admin/login/", (SMALL, False)),
    ("POST", "/admin/logout/", (SMALL, False)),
    ("POST", "/admin/password_change/", (SMALL, False)),
    ("POST", "/admin/auth/user/1/password/", (SMALL, False)),
    ("POST", "/health", (SMALL, False)),
    ("POST", "/nothing", (SMALL, False)),
    ("POST", "/", (SMALL, False)),
]


@pytest.mark.parametrize(("method", "path", "expected"), ADDRESSES)
def test_an_administrator_may_send_more_where_it_is_needed(method, path, expected):
    administrator = make_administrator()

    assert admitted(method, path, Cookie=cookie_of(administrator)) == expected
    assert admitted(method, path, Authorization=f"bearer {make_token(administrator)}") == expected


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ADDRESSES])
def test_strangers_may_nowhere(method, path):
    gone = make_user("devices.add_deviceconfig", "assets.add_asset", username="gone", is_staff=True)
    cookie, token = cookie_of(gone), make_token(gone)
    gone.is_active = False
    gone.save()

    for headers in [
        {},
        {"Cookie": f"csrftoken={'a' * 32}; sessionid={'b' * 32}"},
        {"Cookie": "sessionid="},
        {"Cookie": cookie},
        {"Authorization": "Bearer iot_made-up"},
        {"Authorization": f"Basic {token}"},
        {"Authorization": f"Bearer {token}"},
        {"Authorization": "Bearer"},
    ]:
        assert admitted(method, path, **headers) == (SMALL, False)


def test_those_with_an_account_may_where_they_have_the_permission():
    uploader = make_token(make_user("assets.add_asset", username="uploader"))
    viewer = make_token(make_user("assets.view_asset", "devices.view_deviceconfig", username="viewer", is_staff=True))

    assert admitted("POST", "/assets", Authorization=f"Bearer {uploader}") == (ASSET, True)
    assert admitted("PUT", f"/configs/{MAC}", Authorization=f"Bearer {uploader}") == (SMALL, False)
    assert admitted("POST", "/admin/auth/user/", Authorization=f"Bearer {uploader}") == (SMALL, False)
    assert admitted("POST", "/assets", Authorization=f"Bearer {viewer}") == (SMALL, False)
    assert admitted("PUT", f"/configs/{MAC}", Authorization=f"Bearer {viewer}") == (SMALL, False)


def test_a_token_with_words_sends_what_they_take():
    administrator = make_administrator()
    configs, assets = (f"Bearer {make_token(administrator, word)}" for word in ["write-configs", "write-assets"])
    both = f"Bearer {make_token(administrator, 'read-configs', 'read-assets')}"

    assert admitted("PUT", f"/configs/{MAC}", Authorization=configs) == (CONFIG, False)
    assert admitted("POST", "/assets", Authorization=assets) == (ASSET, True)
    for token, method, path in [
        (configs, "POST", "/assets"),
        (assets, "PUT", f"/configs/{MAC}"),
        (both, "POST", "/assets"),
        (both, "PUT", f"/configs/{MAC}"),
        (configs, "POST", "/admin/auth/user/"),
    ]:
        assert admitted(method, path, Authorization=token) == (SMALL, False)


def test_one_that_expired_is_a_stranger_s():
    token = make_token(make_administrator(), expires_at=timezone.now())

    assert admitted("POST", "/assets", Authorization=f"Bearer {token}") == (SMALL, False)


def test_limits_follow_the_settings(settings):
    settings.CONFIG_MAX_BYTES, settings.ASSET_MAX_BYTES = 1_000_000, 10
    token = f"Bearer {make_token(make_administrator())}"

    assert admitted("PUT", f"/configs/{MAC}", Authorization=token) == (1_000_000 + WRAPPING_MAX_BYTES, False)
    assert admitted("POST", "/assets", Authorization=token) == (SMALL + 20, True)


def test_nobody_asks_the_database_about_those_who_name_nobody(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert admitted("POST", "/assets") == (SMALL, False)
        assert admitted("POST", "/admin/login/", Cookie=f"sessionid={'b' * 32}") == (SMALL, False)


def test_while_the_database_is_away_nobody_can_say():
    with mock.patch("iotsupport.models.ApiToken.authenticate", side_effect=OperationalError("away")):
        request = RequestFactory().post("/assets", headers={"Authorization": "Bearer x"})

        assert admit_body(request.META) is None


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class TestTheMiddleware:
    """Whatever server brings the request."""

    @pytest.fixture
    def visitor(self) -> Client:
        """Somebody with a true CSRF token, but not signed in."""
        visitor = Client(enforce_csrf_checks=True)
        visitor.get("/admin/login/")
        return visitor

    def test_refuses_a_stranger_s_large_form(self, visitor):
        response = visitor.post("/admin/login/", {"username": "x" * SMALL})

        assert response.status_code == 413
        assert b"not signed in" in response.content

    def test_says_in_a_page_how_a_stranger_s_text_is_saved_all_the_same(self, visitor):
        response = visitor.post("/admin/devices/deviceconfig/add/", {"content": "x" * SMALL}, headers=BROWSER)

        assert (response.status_code, response["Content-Type"]) == (413, "text/html; charset=utf-8")
        words = " ".join(response.text.split())
        assert "First sign in in another tab. Then go back with the browser&#x27;s Back button" in words
        assert '<a href="/admin/login/" target="_blank">' in words
        assert "iotsupport/admin.css" in words

    def test_asks_nobody_for_the_page_of_somebody_without_a_session(self, visitor, django_assert_num_queries):
        with django_assert_num_queries(0):
            visitor.post("/admin/devices/deviceconfig/add/", {"content": "x" * SMALL}, headers=BROWSER)

    @pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", None])
    @pytest.mark.parametrize(("count", "status"), [(999, 403), (1001, 413)])
    def test_refuses_a_stranger_s_many_fields(self, visitor, content_type, count, status):
        if content_type is None:
            response = visitor.post("/admin/login/", {"a": ["1"] * count})
        else:
            response = visitor.post("/admin/login/", "&".join(["a"] * count), content_type=content_type)

        assert response.status_code == status

    def test_takes_many_fields_of_a_list_from_those_who_are_signed_in(self):
        client = Client()
        client.force_login(make_administrator())

        response = client.post("/admin/devices/deviceconfig/", {"action": "x", "_selected_action": ["1"] * 5000})

        assert response.status_code == 302

    def test_tells_those_who_are_signed_in_what_is_too_much(self):
        client = Client()
        client.force_login(make_administrator())

        response = client.post("/admin/devices/deviceconfig/add/", {"content": "x" * FORM})

        assert response.status_code == 413
        assert f"at most {FORM} are taken".encode() in response.content

    def test_refuses_a_form_in_chunks(self):
        client = Client()
        client.force_login(make_administrator())

        response = client.post("/admin/devices/deviceconfig/add/", headers={"Transfer-Encoding": "chunked"})

        assert (response.status_code, b"Content-Length" in response.content) == (400, True)

    def test_says_when_the_database_is_away(self, visitor):
        with mock.patch("iotsupport.limits.allowance_of", side_effect=OperationalError("away")):
            response = visitor.post("/admin/login/", {"username": "x" * SMALL})

        assert (response.status_code, response["Retry-After"]) == (503, "5")


@pytest.mark.parametrize("path", ["/health", "/configs", "/admin/devices/deviceconfig/"])
def test_whatever_is_not_available_says_when_to_try_again(path):
    client = Client(raise_request_exception=False)
    client.force_login(make_administrator())

    with mock.patch("django.db.backends.utils.CursorWrapper.execute", side_effect=OperationalError("away")):
        response = client.get(path)

    assert (response.status_code, response["Retry-After"]) == (503, "5")
