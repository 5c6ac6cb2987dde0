"""Refusals: JSON for programs, and HTML for nobody outside the admin."""

from __future__ import annotations

from unittest import mock

import pytest
from django.core.exceptions import SuspiciousOperation, ValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpResponse
from django.test import Client, RequestFactory

from devices.models import DeviceConfig
from iotsupport.errors import ApiError, as_api_error, json_view
from iotsupport.mirror import MirrorBehindError, MirrorError
from iotsupport.tests.api_client import make_administrator, make_token, read, refusal

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("directories")]

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
        assert f"The name {host!r} is not this server's." in response.json()["error"]
        assert "ALLOWED_HOSTS" in response.json()["error"]

    @pytest.mark.parametrize(
        ("method", "path"), [("PUT", OPEN_PATHS[0]), ("DELETE", "/assets/a.bin"), ("POST", "/health")]
    )
    def test_is_refused_to_those_who_would_change_what_everybody_may_read(self, client, method, path):
        assert refusal(client.generic(method, path, HTTP_HOST="other")) == (400, "HOST_NOT_ALLOWED")

    def test_is_refused_to_people_in_words(self, client):
        response = client.get("/admin/", HTTP_HOST="other<script>")

        assert (response.status_code, response["Content-Type"]) == (400, "text/plain; charset=utf-8")
        assert b"ALLOWED_HOSTS" in response.content

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


@pytest.mark.both_databases
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
        @json_view
        def view(request):
            raise Http404

        assert refusal(view(RequestFactory().get("/"))) == (404, "NOT_FOUND")

    def test_that_nobody_foresaw_are_json_too(self, client):
        with mock.patch("iotsupport.health.connection.cursor", side_effect=RuntimeError("secret")):
            response = client.get("/health")

        assert refusal(response) == (500, "INTERNAL_ERROR")
        assert b"secret" not in response.content

    def test_are_no_pages_even_where_a_view_answers_with_one(self, client):
        page = HttpResponse("<h1>Bad Request</h1>", status=400)
        with mock.patch("iotsupport.health.JsonResponse", return_value=page):
            assert refusal(client.get("/health")) == (400, "BAD_REQUEST")
