"""Single sign-on in a browser: at a provider of OpenID Connect, and through nginx, as docs/sign-in.md sets it up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.browser import Visitor, chromium
from iotsupport.tests.support.mosquitto import LoggedProcess
from iotsupport.tests.support.nginx import Nginx, directory_for_nginx
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.server import NEW, PASSWORD, Installation, Server
from iotsupport.tests.support.waiting import LIMIT

DOCUMENTATION = BASE_DIR / "docs/sign-in.md"

PEOPLE = {"maria": "iot-admins", "olga": "sales"}

# Not this machine's: nginx connects from there, and whoever reaches the server itself from another one.
PROXY = "127.0.0.3"


class Provider(LoggedProcess):
    """oidc-provider-mock, which knows these people and asks for no password."""

    def __init__(self) -> None:
        super().__init__()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        people = [{"sub": name, "preferred_username": name, "groups": [group]} for name, group in PEOPLE.items()]
        options = [option for person in people for option in ["--user-claims", json.dumps(person)]]
        command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port), *options]
        self._process: subprocess.Popen[str] | None = self._start(*command)
        self.wait_for_log("Uvicorn running")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._wait_for_end(self._process)
            self._process = None


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def server(template: Installation, provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Both ways are on."""
    environ = dict(re.findall(r"^(\w+)=(.+)$", blocks("sh")[0], re.MULTILINE)) | {"TRUSTED_PROXIES": PROXY}
    environ |= {"OIDC_ISSUER": provider.url, "OIDC_CLIENT_ID": "iot", "OIDC_CLIENT_SECRET": "never-to-be-shown"}
    server = Server(template, tmp_path_factory.mktemp("sign-in"), **environ).start(*NEW)
    yield server
    assert "never-to-be-shown" not in server.log
    server.remove()


@pytest.fixture(scope="module")
def nginx(server: Server) -> Iterator[Nginx]:
    """deploy/nginx.conf with what the documentation adds to it."""
    with directory_for_nginx() as directory:
        people = directory / "people"
        people.write_text("".join(f"{name}:{{PLAIN}}{name}-secret\n" for name in PEOPLE))
        nginx = Nginx(directory / "nginx", server, workers="1")
        added = blocks("nginx")[0].replace("/etc/nginx/people", str(people))
        groups, location = added.split("# In the server block")
        text = nginx.config_file.read_text()
        for place, more in [
            ("    upstream iotsupport {", groups),
            ("        location / {", f"#{location}"),
            ("        proxy_http_version 1.1;", f"        proxy_bind {PROXY};"),
        ]:
            assert text.count(place) == 1
            text = text.replace(place, f"{more}\n{place}")
        nginx.config_file.write_text(text)
        yield nginx.start()
        nginx.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)


def at_provider(visitor: Visitor, choice: str, path: str = "/admin/") -> None:
    """Open a page of somebody who is not signed in, and do at the provider what its button of that name does."""
    visitor.page.goto(path)
    visitor.follow("a:has-text('Sign in with 127.0.0.1')")
    assert visitor.page.url.startswith(provider_of(visitor))
    visitor.follow(f"button:text-is('{choice}')")


def provider_of(visitor: Visitor) -> str:
    return str(visitor.server.environ["OIDC_ISSUER"])


def troubles(visitor: Visitor) -> list[str]:
    """Those of our own pages: the provider's want styles of a foreign host."""
    return [each for each in visitor.troubles if "Content Security Policy" in each or each.startswith("exception")]


def signed_in_as(visitor: Visitor) -> str:
    return visitor.page.locator("#user-tools strong").inner_text()


class TestOpenIDConnect:
    def test_leads_back_to_the_page_that_was_wanted(self, browser: Browser, server: Server):
        with Visitor(browser, server) as maria:
            at_provider(maria, "maria", "/admin/auth/user/?q=maria")

            assert maria.page.url == f"{server.url}/admin/auth/user/?q=maria"
            assert signed_in_as(maria).lower() == "maria"
            assert maria.rows().count() == 1
            maria.follow("#logout-form button")
            assert "You are signed out here, but not at 127.0.0.1" in maria.page.inner_text("#content")
            assert troubles(maria) == []

    def test_tells_somebody_without_a_group_whom_to_ask(self, browser: Browser, server: Server):
        with Visitor(browser, server) as olga:
            at_provider(olga, "olga")

            assert "none of your groups may do anything here. Ask whoever runs this server" in olga.page.inner_text(
                "#why"
            )
            assert "sales" in olga.page.inner_text("#why")
            olga.page.goto("/admin/")
            assert olga.page.url == f"{server.url}/admin/login/?next=/admin/"
            assert troubles(olga) == []

    def test_can_be_cancelled_and_a_password_still_works(self, browser: Browser, server: Server):
        with Visitor(browser, server) as person:
            at_provider(person, "Deny")

            assert person.page.inner_text("#why").startswith("Signing in was cancelled at 127.0.0.1:")
            person.follow("#content a:has-text('password')")
            person.sign_in("admin", PASSWORD)
            assert signed_in_as(person).lower() == "admin"
            assert troubles(person) == []


class TestAHeader:
    def visit(self, browser: Browser, server: Server, nginx: Nginx, name: str) -> Visitor:
        visitor = Visitor(browser, server, http_credentials={"username": name, "password": f"{name}-secret"})
        visitor.page.goto(f"{nginx.url}/admin/auth/user/")
        return visitor

    def test_of_a_trusted_proxy_signs_in(self, browser: Browser, server: Server, nginx: Nginx):
        with self.visit(browser, server, nginx, "maria") as maria:
            assert maria.page.url == f"{nginx.url}/admin/auth/user/"
            assert signed_in_as(maria).lower() in {"maria", "maria@127.0.0.1"}
            maria.follow("#logout-form button")
            assert "the next page that you open here signs you in again" in maria.page.inner_text("#content")

    def test_tells_somebody_without_a_group_whom_to_ask(self, browser: Browser, server: Server, nginx: Nginx):
        with self.visit(browser, server, nginx, "olga") as olga:
            assert olga.page.url == f"{nginx.url}/admin/auth/user/"
            assert "none of your groups may do anything here. Ask whoever runs this server" in olga.page.inner_text(
                "#why"
            )

    def test_from_anywhere_else_is_ignored(self, browser: Browser, server: Server):
        forged = {"X-Remote-User": "maria", "X-Remote-Groups": "iot-admins", "X-Forwarded-For": PROXY}
        with Visitor(browser, server, extra_http_headers=forged) as stranger:
            stranger.page.goto("/admin/")

            assert stranger.page.url == f"{server.url}/admin/login/?next=/admin/"

    def test_with_an_underscore_is_none(self, server: Server):
        """WSGI has one name for both."""
        with requests.Session() as proxy:
            proxy.mount("http://", From(PROXY))
            statuses = [
                proxy.get(
                    f"{server.url}/admin/",
                    headers={f"X{mark}Remote{mark}User": "eve", f"X{mark}Remote{mark}Groups": "iot-admins"},
                    allow_redirects=False,
                    timeout=LIMIT,
                ).status_code
                for mark in ["_", "-"]
            ]

        assert statuses == [302, 200]


class From(requests.adapters.HTTPAdapter):
    """Connects from an address of this machine."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, source_address=(self._address, 0))
