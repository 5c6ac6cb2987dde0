"""What strangers may ask for as often as they like is answered by the worker, as the application did."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import RequestFactory

from iotsupport.monitoring import glance, health, metrics
from iotsupport.serving import kept_answers

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def serving(monkeypatch: pytest.MonkeyPatch, directories: Any) -> Iterator[None]:
    """Nothing was looked at before; looks last until the test says otherwise."""
    shared = ["_shared_counts", "_shared_disks", "_shared_from_database"]
    for module, names in [(health, ["_glance"]), (metrics, shared)]:
        for name in names:
            monkeypatch.setattr(
                getattr(module, name), "_seen", glance.Seen(time.monotonic(), b'{"reason": "", "reports": {}}')
            )
    monkeypatch.setattr(glance, "FRESH_SECONDS", 1000.0)
    monkeypatch.setattr(glance._is_serving, "is_set", lambda: True)
    monkeypatch.setattr(kept_answers, "_answers", {})
    yield


def environ(path: str, method: str = "GET", **fields: str) -> dict[str, Any]:
    made = RequestFactory().generic(method, path, HTTP_HOST="localhost").environ
    return {**made, **fields}


def answer(path: str, method: str = "GET", **fields: str) -> tuple[str, list[tuple[str, str]], bytes]:
    started: list[Any] = []
    start: Any = lambda *given: started.extend(given)  # noqa: E731
    body = kept_answers.answer(WSGIHandler(), environ(path, method, **fields), start)
    return started[0], started[1], b"".join(body)


@pytest.mark.parametrize("path", ["/health", "/metrics", "/api/health", "/api/metrics"])
def test_the_answer_is_the_view_s_while_it_is_fresh(path, monkeypatch):
    assert kept_answers.find(environ(path)) is None

    assert answer(path) == kept_answers.find(environ(path))

    [(asked, kept)] = kept_answers._answers.items()
    monkeypatch.setitem(kept_answers._answers, asked, kept._replace(until=time.monotonic()))
    assert kept_answers.find(environ(path)) is None


def test_trouble_is_told_again_too(monkeypatch):
    monkeypatch.setattr(health._glance, "_seen", glance.Seen(time.monotonic(), b'{"reason": "full", "reports": {}}'))

    assert answer("/health")[0] == "503 Service Unavailable"
    assert answer("/health") == kept_answers.find(environ("/health"))


def test_over_https_it_is_another_one():
    answer("/health", HTTP_X_FORWARDED_PROTO="https")

    assert kept_answers.find(environ("/health")) is None
    assert kept_answers.find(environ("/health", HTTP_X_FORWARDED_PROTO="https")) is not None


@pytest.mark.parametrize(
    ("path", "method", "fields"),
    [
        ("/health", "HEAD", {}),
        ("/health", "POST", {}),
        ("/admin/login/", "GET", {}),
        ("/configs", "GET", {}),
        ("/health", "GET", {"HTTP_X_FORWARDED_PROTO": "gopher"}),
    ],
)
def test_nothing_else_is_kept(path, method, fields):
    answer(path, method, **fields)

    assert not kept_answers._answers


def test_metrics_are_kept_for_who_may_have_them(settings):
    settings.METRICS_TOKEN = "a-long-token"
    may = {"HTTP_AUTHORIZATION": "Bearer a-long-token"}
    answer("/metrics")
    assert not kept_answers._answers

    assert answer("/metrics", **may)[0] == "200 OK"

    assert kept_answers.find(environ("/metrics", **may)) is not None
    for other in [{}, {"HTTP_AUTHORIZATION": "Bearer a-long-toke"}]:
        assert kept_answers.find(environ("/metrics", **other)) is None


def test_what_was_not_seen_in_time_is_not_kept(monkeypatch):
    monkeypatch.setattr(glance.Glance, "get", lambda glance: (_ for _ in ()).throw(TimeoutError()))
    answer("/health")
    answer("/metrics")

    assert not kept_answers._answers
