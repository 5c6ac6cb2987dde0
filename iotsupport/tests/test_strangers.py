"""Requests of strangers wait for one another, and leave threads to all others."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from django.test import Client

from iotsupport.mirror.files import mirror_storage
from iotsupport.serving import strangers
from iotsupport.serving.collector import STRANGERS_AT_ONCE
from iotsupport.serving.strangers import has_to_wait
from iotsupport.tests.support.api_client import make_token, make_user
from iotsupport.tests.support.server import NEW_CONF, Server
from iotsupport.tests.support.waiting import LIMIT, eventually

PASSWORD = "swallows-return"
MAC = "aa-bb-cc-dd-ee-ff"


class TestWho:
    @pytest.fixture(autouse=True)
    def none_yet(self) -> Iterator[None]:
        strangers.forget()
        yield
        strangers.forget()

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("GET", "/admin/login/"),
            ("POST", "/admin/login/"),
            ("GET", "/configs"),
            ("GET", f"/configs/{MAC}.json"),
            ("GET", "/assets/../../etc/passwd"),
            ("POST", "/health"),
            ("GET", "/health/"),
            ("\u00e9", "\u00e9"),
        ],
    )
    def test_a_stranger_waits(self, directories, method, path):
        assert has_to_wait(method, path, [("COOKIE", "sessionid="), ("AUTHORIZATION", "Bearer ")])

    @pytest.mark.parametrize("path", ["/health", "/metrics", "/api/health", "/api/metrics"])
    def test_nobody_waits_to_be_told_how_it_is(self, path):
        assert not has_to_wait("GET", path, [])

    def test_nobody_waits_for_a_file_that_is_there(self):
        path = f"/configs/{MAC}.json"
        Path(mirror_storage("configs").path(f"{MAC}.json")).touch()

        assert not has_to_wait("GET", path, [])
        assert not has_to_wait("HEAD", f"/api{path}", [])
        assert has_to_wait("PUT", path, [])

    @pytest.mark.django_db
    def test_a_token_that_was_valid_does_not_wait(self, client):
        secret = make_token(make_user())
        headers = [("HOST", "localhost"), ("AUTHORIZATION", f"Bearer {secret}")]
        assert has_to_wait("PUT", "/configs", headers)

        client.get("/api/configs", headers={"Authorization": f"Bearer {secret}"})
        client.get("/api/configs", headers={"Authorization": "Bearer wrong"})

        assert not has_to_wait("PUT", "/configs", headers)
        assert has_to_wait("PUT", "/configs", [("AUTHORIZATION", "Bearer wrong")])

    @pytest.mark.django_db
    def test_who_signed_in_does_not_wait(self):
        make_user(username="maria", password=PASSWORD, is_staff=True)
        browser = Client()
        browser.get("/admin/login/")
        browser.post("/admin/login/", {"username": "maria", "password": "guessed"})
        assert not strangers._known

        browser.post("/admin/login/", {"username": "maria", "password": PASSWORD})

        cookie = f"csrftoken=a; sessionid={browser.cookies['sessionid'].value}"
        assert not has_to_wait("POST", "/admin/", [("COOKIE", cookie)])

    @pytest.mark.django_db
    def test_a_session_of_nobody_waits(self, client):
        client.session["next"] = "/"
        client.session.save()
        client.get("/admin/login/")

        assert not strangers._known

    def test_few_are_remembered(self):
        for number in range(strangers.MOST + 10):
            strangers.note_valid(str(number))

        assert len(strangers._known) == strangers.MOST
        assert has_to_wait("PUT", "/", [("AUTHORIZATION", "Bearer 9")])
        assert not has_to_wait("PUT", "/", [("AUTHORIZATION", "Bearer 10")])


IN_LINE = 5
# An application that keeps whoever asks for the page to sign in until they may go on, and counts them.
SLOW_CONF = f"""
import pathlib, runpy, time
from iotsupport.serving import collector
globals().update(runpy.run_path({str(NEW_CONF)!r}))

class Slow:
    def __init__(self, application):
        self.application = application

    def __getattr__(self, name):
        return getattr(self.application, name)

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/admin/login/":
            with open({{begun!r}}, "a") as file:
                file.write("x")
            while not pathlib.Path({{go_on!r}}).exists():
                time.sleep(0.05)
        return self.application(environ, start_response)

collector.STRANGERS_IN_LINE = {IN_LINE}

def post_worker_init(worker):
    worker.wsgi = Slow(worker.wsgi)
"""


@pytest.mark.processes
def test_strangers_leave_threads_to_others(make_server: Callable[..., Server], tmp_path: Path) -> None:
    begun, go_on, conf = tmp_path / "begun", tmp_path / "go-on", tmp_path / "conf.py"
    conf.write_text(SLOW_CONF.format(begun=str(begun), go_on=str(go_on)))
    server = make_server()
    server.start("--config", str(conf), "--workers", "1", "--threads", str(STRANGERS_AT_ONCE + 1))
    firmware = bytes(100_000)
    with server.client() as client, ExitStack() as stack:

        def ask_to_sign_in() -> socket.socket:
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), LIMIT))
            stranger.sendall(b"GET /admin/login/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return stranger

        assert client.upload("firmware.bin", firmware).status_code == 200
        inside = [ask_to_sign_in() for _ in range(STRANGERS_AT_ONCE)]
        eventually(lambda: begun.exists() and begun.stat().st_size == STRANGERS_AT_ONCE)
        waiting = [ask_to_sign_in() for _ in range(IN_LINE)]

        # With a thread of their own.
        assert client.save_config(MAC, b"{}").status_code == 200
        assert requests.get(f"{server.url}/assets/firmware.bin", timeout=LIMIT).content == firmware
        assert requests.get(f"{server.url}/health", timeout=LIMIT).status_code == 200
        assert begun.stat().st_size == STRANGERS_AT_ONCE

        # One too many: half of those from one address go, who have waited longest.
        waiting.append(ask_to_sign_in())
        refused, waiting = waiting[: len(waiting) // 2], waiting[len(waiting) // 2 :]
        for each in refused:
            answer = each.makefile().read()
            assert answer.startswith("HTTP/1.1 503") and "\nRetry-After: 5\n" in answer

        waiting.pop().close()
        go_on.touch()
        assert {each.recv(12) for each in [*inside, *waiting]} == {b"HTTP/1.1 200"}


@pytest.mark.processes
def test_who_waits_too_long_is_refused(make_server: Callable[..., Server], tmp_path: Path) -> None:
    conf = tmp_path / "conf.py"
    more = "collector.STRANGERS_AT_ONCE = 0\ncollector.IN_LINE_SECONDS = 0.5\n"
    conf.write_text(SLOW_CONF.format(begun="", go_on="") + more)
    server = make_server().start("--config", str(conf), "--workers", "1")

    answer = requests.get(f"{server.url}/admin/login/", timeout=LIMIT)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "Send it again in a moment" in answer.text
