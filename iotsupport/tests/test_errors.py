"""Refusals: JSON for programs, and HTML for nobody outside the admin."""

from __future__ import annotations

import logging
from unittest import mock
from urllib.parse import unquote_to_bytes

import pytest
from django.core.exceptions import SuspiciousOperation, ValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpResponse
from django.test import Client, RequestFactory
from django.urls import is_valid_path
from hypothesis import given
from hypothesis import strategies as st

from devices.models import DeviceConfig
from iotsupport.addresses import right_address
from iotsupport.environment import Environment, is_allowed_host
from iotsupport.errors import ApiError, as_api_error, public_view
from iotsupport.mirror.files import MirrorBehindError, MirrorError
from iotsupport.tests.support.api_client import make_administrator, make_token, read, refusal, session_client
from iotsupport.tests.support.properties import PATIENT

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

MAC = "aa-bb-cc-dd-ee-ff"
OPEN_PATHS = ["/configs/aa-bb-cc-dd-ee-ff.json", "/esp32/config/aa-bb-cc-dd-ee-ff.json", "/health", "/metrics"]


@pytest.fixture
def client() -> Client:
    return Client(enforce_csrf_checks=True, raise_request_exception=False)


class TestUnknownPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "/nothing",
            "/config",
            "/api/nothing",
            "/api/docsy",
            "/configs/",
            "/assets/",
            "/api/assets/",
            "/esp32/config/",
            "/configs/aa-bb-cc-dd-ee-ff/more",
            "/static/nothing.js",
            "/favicon.ico",
            "/%00",
            "/%FF",
            "/a%0Ab",
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
    def test_are_404_in_json(self, client, path, method):
        response = client.generic(method, path)

        assert response.status_code == 404
        assert response["Content-Type"] == "application/json"
        if method != "HEAD":
            assert refusal(response) == (404, "NOT_FOUND")

    def test_in_the_admin_are_pages(self, client):
        client.force_login(make_administrator())

        response = client.get("/admin/nothing/")

        assert (response.status_code, response["Content-Type"]) == (404, "text/html; charset=utf-8")

    def test_begin_with_the_admin(self, client):
        assert client.get("/")["Location"] == "/admin/"

    def test_are_json_while_debugging_too(self, client, settings):
        settings.DEBUG = True

        assert refusal(client.get("/nothing")) == (404, "NOT_FOUND")

    def test_keep_what_browsers_are_told(self, client):
        response = client.get("/nothing")

        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Content-Length"] == str(len(response.content))


class TestNearlyRightAddresses:
    """Whoever asks, and under whatever name of the server."""

    @pytest.mark.parametrize(
        ("path", "right"),
        [
            (f"//configs/{MAC}.json", f"/configs/{MAC}.json"),
            (f"/configs//{MAC}.json", f"/configs/{MAC}.json"),
            (f"/configs/{MAC}.json/", f"/configs/{MAC}.json"),
            (f"/configs/{MAC}.JSON", f"/configs/{MAC}.json"),
            (f"/configs/{MAC.upper()}.Json", f"/configs/{MAC.upper()}.json"),
            (f"/Configs/{MAC}.json", f"/configs/{MAC}.json"),
            (f"/API//esp32/Config/{MAC}.JSON//", f"/api/esp32/config/{MAC}.json"),
            ("//assets/firmware.bin", "/assets/firmware.bin"),
            ("/assets/firmware.bin/", "/assets/firmware.bin"),
            ("/assets//gr%C3%B6%C3%9Fe%201.BIN", "/assets/gr%C3%B6%C3%9Fe%201.BIN"),
            ("/health/", "/health"),
            ("/api//metrics", "/api/metrics"),
            ("/configs/", "/configs"),
            (f"/configs/{MAC}/", f"/configs/{MAC}"),
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    @pytest.mark.parametrize("host", ["testserver", "192.168.1.7:8000", "a_b"])
    def test_are_404_with_the_right_one(self, client, path, right, method, host):
        # The client would take what follows two slashes for a host.
        asked = {"PATH_INFO": unquote_to_bytes(path).decode("latin-1"), "HTTP_HOST": host}

        response = client.generic(method, "/", **asked)

        assert client.head("/", **asked).status_code == 404
        assert refusal(response) == (404, "NOT_FOUND")
        assert response.json()["details"] == {"address": right}
        assert response.json()["error"].endswith(f"The right address is {right}.")

    @pytest.mark.parametrize(
        "path", ["/nothing/", "//nothing", "//", "/admin//", "/static//x", "/configs/a/b/", "/assetsX/"]
    )
    def test_are_not_made_up(self, client, path):
        response = client.get("/", PATH_INFO=path)

        assert b"The right address" not in response.content

    @pytest.mark.parametrize("path", [f"/configs/{MAC.upper()}.json", "/assets/A.JSON", "/health", "/configs"])
    def test_are_not_found_in_right_ones(self, path):
        assert right_address(path) is None

    @PATIENT
    @given(
        st.lists(st.sampled_from(["/", "//", "api", "configs", "ASSETS", "a.JSON", ".json", "é", "admin"])).map("".join)
    )
    def test_lead_to_right_ones(self, path):
        right = right_address(f"/{path}")

        assert right is None or (right_address(right) is None and is_valid_path(right))


class TestTheHostHeader:
    @pytest.mark.parametrize("path", OPEN_PATHS + [f"/api{path}" for path in OPEN_PATHS])
    @pytest.mark.parametrize("host", ["192.168.1.7:8000", "iot.local", "[fe80::1]", "a b", "", "é", "x" * 300])
    def test_does_not_matter_to_devices_and_probes(self, client, path, host):
        DeviceConfig.objects.put("aa-bb-cc-dd-ee-ff", "{}")

        response, _ = read(client.get(path, HTTP_HOST=host))

        assert response.status_code == 200

    @pytest.mark.parametrize("path", ["/configs", "/api/assets", "/nothing", "/", "/api/docs", "/api/openapi.json"])
    @pytest.mark.parametrize("host", ["other.example.com", "a b", "testserver.evil"])
    def test_is_refused_to_programs_in_json(self, client, path, host):
        response = client.get(path, HTTP_HOST=host, HTTP_AUTHORIZATION=f"Bearer {make_token(make_administrator())}")

        assert refusal(response) == (400, "HOST_NOT_ALLOWED")
        assert repr(host) in response.json()["error"]
        assert ("ALLOWED_HOSTS" in response.json()["error"]) == (host != "a b")

    @pytest.mark.parametrize(
        ("host", "name"),
        [
            ("iot.local:8000", "iot.local"),
            ("IOT.Local.", "iot.local"),
            ("192.168.1.7:80", "192.168.1.7"),
            ("[fe80::1]:8000", "[fe80::1]"),
        ],
    )
    @pytest.mark.parametrize("path", ["/configs", "/admin/login/"])
    def test_is_refused_with_advice_that_helps(self, client, settings, monkeypatch, host, name, path):
        refused = client.get(path, HTTP_HOST=host)

        assert f"Use one that ALLOWED_HOSTS lists, or add {name} to it." in refused.content.decode()
        monkeypatch.setenv("ALLOWED_HOSTS", name)
        environment = Environment()
        settings.ALLOWED_HOSTS = environment.items("ALLOWED_HOSTS", [], is_allowed_host, "")
        assert environment.problems == {}
        assert client.get(path, HTTP_HOST=host).status_code != 400

    @pytest.mark.parametrize("host", ["iot_server", "iot_server:8000", "-iot", "1.2.3", "a..b", "x" * 300])
    @pytest.mark.parametrize("path", ["/configs", "/admin/login/"])
    def test_is_refused_with_the_reason_where_it_is_no_name(self, client, host, path):
        refused = client.get(path, HTTP_HOST=host)

        assert refused.status_code == 400
        assert "cannot be the name of a server: a name has letters, digits, - and dots" in refused.content.decode()
        assert "ALLOWED_HOSTS" not in refused.content.decode()
        assert len(refused.content) < 500

    @pytest.mark.parametrize(
        ("method", "path"), [("PUT", OPEN_PATHS[0]), ("DELETE", "/assets/a.bin"), ("POST", "/health")]
    )
    def test_is_refused_to_those_who_would_change_what_everybody_may_read(self, client, method, path):
        assert refusal(client.generic(method, path, HTTP_HOST="other")) == (400, "HOST_NOT_ALLOWED")

    def test_is_refused_to_people_in_words(self, client):
        response = client.get("/admin/", HTTP_HOST="other<script>")

        assert (response.status_code, response["Content-Type"]) == (400, "text/plain; charset=utf-8")
        assert b"Use another name, or the address." in response.content

    def test_names_the_server_where_there_is_none(self, client):
        response = client.get("/configs", SERVER_NAME="10.0.0.1")

        assert "'10.0.0.1'" in response.json()["error"]

    def test_may_be_any_of_those_that_are_allowed(self, client, settings):
        settings.ALLOWED_HOSTS = ["iot.example.com"]

        assert refusal(client.get("/configs", HTTP_HOST="iot.example.com:8000")) == (401, "NOT_AUTHENTICATED")


class TestMethods:
    @pytest.mark.parametrize("path", ["/health", "/metrics", "/api/health", "/assets/a.bin", OPEN_PATHS[1]])
    @pytest.mark.parametrize("method", ["POST", "PATCH", "OPTIONS", "TRACE", "FOO"])
    def test_that_are_not_there_are_405_without_a_csrf_token(self, client, path, method):
        response = client.generic(method, path)

        assert refusal(response) == (405, "METHOD_NOT_ALLOWED")
        assert {"GET", "HEAD"} <= set(response["Allow"].split(", "))

    @pytest.mark.parametrize("path", OPEN_PATHS)
    def test_head_is_there_with_get(self, client, path):
        DeviceConfig.objects.put("aa-bb-cc-dd-ee-ff", "{}")

        response, content = read(client.head(path))

        assert (response.status_code, content) == (200, b"")


class TestExceptions:
    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (ApiError(418, "TEAPOT", "Brew tea."), 418, "TEAPOT"),
            (Http404(), 404, "NOT_FOUND"),
            (ValidationError("Not this.", code="NAMED"), 400, "NAMED"),
            (ValidationError("Not this.", code="invalid"), 400, "INVALID"),
            (ValidationError("Not this."), 400, "INVALID"),
            (ValidationError("Not this.", code="TOO_LARGE"), 413, "TOO_LARGE"),
            (ValidationError({"content": ValidationError("Not this.", code="NAMED")}), 400, "NAMED"),
            (ValidationError([ValidationError("Not this.", code="NAMED")]), 400, "NAMED"),
            (MirrorError("No room."), 503, "STORAGE_UNAVAILABLE"),
            (MirrorBehindError("It is saved."), 503, "MIRROR_BEHIND"),
            (OperationalError("locked"), 503, "DATABASE_UNAVAILABLE"),
            (InterfaceError("gone"), 503, "DATABASE_UNAVAILABLE"),
            (OSError("too many files"), 503, "UNAVAILABLE"),
            (SuspiciousOperation("x"), 400, "BAD_REQUEST"),
            (RuntimeError("x"), 500, "INTERNAL_ERROR"),
        ],
    )
    def test_have_a_status_and_a_code(self, error, status, code):
        assert refusal(as_api_error(error).response()) == (status, code)

    def test_of_a_view_are_answered_in_json(self):
        @public_view
        def view(request):
            raise Http404

        assert refusal(view(RequestFactory().get("/"))) == (404, "NOT_FOUND")

    @pytest.mark.both_databases
    def test_that_nobody_foresaw_are_json_too(self, client):
        with mock.patch("iotsupport.monitoring.health.connection.cursor", side_effect=RuntimeError("secret")):
            response = client.get("/health")

        assert refusal(response) == (500, "INTERNAL_ERROR")
        assert b"secret" not in response.content

    def test_are_no_pages_even_where_a_view_answers_with_one(self, client):
        page = HttpResponse("<h1>Bad Request</h1>", status=400)
        with mock.patch("iotsupport.monitoring.health.JsonResponse", return_value=page):
            assert refusal(client.get("/health")) == (400, "BAD_REQUEST")

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_that_nobody_foresaw_are_pages_of_ours_in_the_admin_and_one_traceback(self, caplog, monkeypatch, method):
        for logger in ["django", "iotsupport"]:  # which do not propagate
            monkeypatch.setattr(logging.getLogger(logger), "handlers", [caplog.handler])
        browser = session_client(make_administrator(), with_csrf=False)
        fields = {"name": "typed", "csrfmiddlewaretoken": browser.cookies["csrftoken"].value}
        with mock.patch("django.contrib.auth.admin.GroupAdmin.get_queryset", side_effect=RuntimeError("secret")):
            answer = getattr(browser, method)("/admin/auth/group/1/change/", fields, headers={"Accept": "text/html"})

        assert (answer.status_code, answer["Content-Type"]) == (500, "text/html; charset=utf-8")
        assert "Something went wrong here; the server&#x27;s log says what." in answer.text
        assert "secret" not in answer.text
        assert ("Perhaps it was saved" in answer.text, "typed</textarea>" in answer.text) == (method == "post",) * 2
        assert len([record for record in caplog.records if record.exc_info]) == 1
