"""The id of a request: a front server's, or one made here; in the answer, and in what is logged."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from django.test import Client

from devices.models import DeviceConfig
from iotsupport.monitoring import current_request
from iotsupport.monitoring.logs import JsonFormatter
from iotsupport.serving import kept_answers, request_ids
from iotsupport.serving.quick_requests import parse_quick_request

pytestmark = pytest.mark.django_db

MAC = "aa-bb-cc-dd-ee-ff"
SENT = "6f1c2b9d4e5a67788990aabbccddeeff"  # as nginx makes them


def test_a_front_server_says_it_and_the_answer_repeats_it(client: Client):
    for path in ["/admin/login/", "/configs", "/api/openapi.json", "/nothing"]:
        assert client.get(path, headers={"X-Request-ID": SENT})["X-Request-ID"] == SENT


@pytest.mark.parametrize(
    "sent", ["", " ", "a b", "a\n", "a\tb", "ä", "a,b", "a" * 65, "../", "a:b", "<b>", "{}"], ids=ascii
)
def test_what_is_no_id_is_not_repeated(client: Client, sent: str):
    assert "X-Request-ID" not in client.get("/admin/login/", headers={"X-Request-ID": sent})


@pytest.mark.parametrize("remote", ["192.0.2.7", "2001:db8::7", "", "unix:"])
def test_a_stranger_cannot_choose_it(client: Client, remote: str):
    headers = {"X-Request-ID": SENT}

    assert "X-Request-ID" not in client.get("/admin/login/", headers=headers, REMOTE_ADDR=remote)


def test_without_a_front_server_each_request_has_one_that_is_made_here(client: Client, monkeypatch: pytest.MonkeyPatch):
    seen: list[str | None] = []
    monkeypatch.setattr(
        "iotsupport.models.ApiToken.authenticate", lambda token: seen.append(current_request.request_id())
    )

    for _ in range(3):
        client.get("/configs", headers={"Authorization": "Bearer x"})

    assert len(set(seen)) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", each or "") for each in seen)
    assert current_request.request_id() is None


def test_a_device_is_told_none(client: Client, directories: Path):
    DeviceConfig.objects.put(MAC, "{}")

    for path in [f"/configs/{MAC}.json", "/configs/ff-ff-ff-ff-ff-ff.json", "/assets/unknown.bin"]:
        assert "X-Request-ID" not in client.get(path, headers={"X-Request-ID": SENT})
    for path in ["/health", "/metrics"]:
        assert client.get(path, headers={"X-Request-ID": SENT})["X-Request-ID"] == SENT
        assert "X-Request-ID" not in client.get(path)


def test_an_answer_that_is_kept_has_each_one_s_own(monkeypatch: pytest.MonkeyPatch):
    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        environ |= {kept_answers.KEPT_UNTIL: float("inf"), kept_answers.KEPT_FOR: lambda asked: True}
        start("200 OK", [("Content-Length", "0"), ("X-Request-ID", "first")])
        return FileWrapper(BytesIO())

    monkeypatch.setattr(kept_answers, "_answers", {})
    asked = {"REQUEST_METHOD": "GET", "PATH_INFO": "/health", "REMOTE_ADDR": "127.0.0.1"}
    start: Any = lambda *given: None  # noqa: E731
    kept_answers.answer(application, {**asked}, start)

    for sent, expected in [("second", [("X-Request-ID", "second")]), ("a,b", []), ("", [])]:
        found = kept_answers.find({**asked, "HTTP_X_REQUEST_ID": sent})
        assert found == ("200 OK", [("Content-Length", "0"), *expected], b"")
    assert kept_answers.find(asked) == ("200 OK", [("Content-Length", "0")], b"")


def test_a_front_server_s_requests_stay_quick():
    head = f"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-ID: {SENT}\r\n\r\n"

    environ = parse_quick_request(head.encode(), "127.0.0.1")

    assert environ is not None
    assert request_ids.sent_in(environ) == SENT


class TestWhatNobodyForesaw:
    @pytest.fixture
    def broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError("canary")

        monkeypatch.setattr("iotsupport.first_page.context", fail)
        monkeypatch.setattr("iotsupport.models.ApiToken.authenticate", fail)

    def test_is_found_in_the_log_by_what_the_page_says(self, admin_client: Client, broken: None):
        admin_client.raise_request_exception = False
        logger = logging.getLogger("django")
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(JsonFormatter().format(record))  # type: ignore[method-assign]
        logger.addHandler(handler)
        try:
            page = admin_client.get("/admin/", headers={"Accept": "text/html", "X-Request-ID": SENT})
        finally:
            logger.removeHandler(handler)

        assert page.status_code == 500
        assert f"<code>{SENT}</code>" in page.content.decode()
        [line] = [json.loads(line) for line in lines if json.loads(line)["level"] == "ERROR"]
        assert line["request_id"] == SENT
        assert line["traceback"].endswith("ZeroDivisionError: canary")

    def test_is_said_to_a_program_too(self, client: Client, broken: None):
        refusal = client.get("/configs", headers={"Authorization": "Bearer x", "X-Request-ID": SENT}).json()

        assert (refusal["code"], refusal["details"]) == ("INTERNAL_ERROR", {"request_id": SENT})
