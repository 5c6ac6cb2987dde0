"""The documentation: it is there without a foreign host, and says what the API does."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.core.wsgi import get_wsgi_application
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport import __version__
from iotsupport.tests.support.api_client import make_administrator, make_token
from iotsupport.tests.support.marathons import REQUESTS_OF_EACH, marathon

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

OPERATIONS = {
    ("/configs", "get"),
    ("/types", "get"),
    ("/types/{name}", "get"),
    ("/types/{name}", "put"),
    ("/types/{name}", "delete"),
    ("/configs/{mac_address}", "get"),
    ("/configs/{mac_address}", "put"),
    ("/configs/{mac_address}", "delete"),
    ("/configs/{mac_address}.json", "get"),
    ("/configs/{mac_address}.json", "put"),
    ("/configs.zip", "get"),
    ("/configs.zip", "post"),
    ("/assets.zip", "get"),
    ("/configs/{mac_address}/versions", "get"),
    ("/configs/{mac_address}/versions/{number}", "get"),
    ("/configs/{mac_address}/versions/{number}/restore", "post"),
    ("/changes", "get"),
    ("/changes", "post"),
    ("/changes/{pk}", "get"),
    ("/changes/{pk}/apply", "post"),
    ("/changes/{pk}/stop", "post"),
    ("/changes/{pk}/undo", "post"),
    ("/devices", "get"),
    ("/devices/{mac_address}", "get"),
    ("/assets", "get"),
    ("/assets", "post"),
    ("/assets/{filename}", "get"),
    ("/assets/{filename}", "delete"),
}

CONDITIONS = {"If-Match", "If-None-Match"}


class Addresses(HTMLParser):
    """What a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "action"}]


@pytest.fixture
def document() -> dict[str, Any]:
    return Client().get("/api/openapi.json").json()


class TestTheDocuments:
    def test_list_every_operation(self, document):
        found = {(path, method) for path, methods in document["paths"].items() for method in methods}

        assert found == OPERATIONS

    def test_say_which_are_open(self, document):
        secured = {(path, method) for path, methods in document["paths"].items() for method in methods} - {
            (path, method)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if not operation.get("security")
        }

        assert OPERATIONS - secured == {("/configs/{mac_address}.json", "get"), ("/assets/{filename}", "get")}

    def test_are_a_page_that_needs_nothing_from_elsewhere(self):
        response = Client().get("/api/docs")

        addresses = Addresses(response.content.decode()).found
        assert response.status_code == 200
        assert addresses
        assert all(re.match(r"/(?!/)", address) for address in addresses)
        assert all(finders.find(address.removeprefix("/static/")) for address in addresses)

    def test_obey_the_content_security_policy(self):
        response = Client().get("/api/docs")

        assert "default-src 'self'" in response["Content-Security-Policy"]
        # A script in the page itself would not run. Data is no script.
        scripts = re.findall(r"<script([^>]*)>", response.content.decode())
        assert all("src=" in attributes or "application/json" in attributes for attributes in scripts)

    def test_know_their_own_address(self, document):
        assert b'"/api/openapi.json"' in Client().get("/api/docs").content
        assert document["info"]["title"] == "IoT Support"
        assert document["info"]["version"] == __version__

    @pytest.mark.parametrize("path", ["/api/docs", "/api/openapi.json"])
    def test_are_there_for_everybody(self, path):
        assert Client().get(path).status_code == 200


@pytest.fixture
def schema() -> Any:
    import schemathesis  # here: all processes of a run read this module, and one of them needs it

    schemathesis.serializer.alias("application/zip", "application/octet-stream")
    application = get_wsgi_application()

    def reading_to_the_end(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """As servers do; the client of the tests leaves files open."""
        response = application(environ, start_response)
        try:
            return [b"".join(response)]
        finally:
            response.close()

    return schemathesis.openapi.from_wsgi("/api/openapi.json", reading_to_the_end)


@marathon
@pytest.mark.both_databases
def test_the_api_does_what_its_documents_say(schema):
    """Schemathesis makes requests from the document, right and wrong ones, and looks at the answers."""
    token = make_token(make_administrator())
    DeviceConfig.objects.put("aa-bb-cc-dd-ee-ff", '{"deviceName": "Lamp"}')
    Asset.objects.upload("firmware.bin", [b"bytes"])
    statuses: set[int] = set()

    for operation in [result.ok() for result in schema.get_all_operations()]:
        statuses |= check_operation(operation, token)

    # Neither only refusals nor only successes: the document leads to both.
    assert {200, 204, 400, 404} <= statuses


# What OpenAPI cannot say: that an uploaded part needs a file name, what a zip is, that a type must be there, and that
# an object is to be a JSON Schema.
NOT_ALL_SAID = {
    ("post", "/assets"),
    ("post", "/configs.zip"),
    ("post", "/changes"),
    ("put", "/configs/{mac_address}"),
    ("get", "/devices"),
    ("put", "/types/{name}"),
}


def check_operation(operation: Any, token: str) -> set[int]:
    """Return the statuses of its answers to requests right and wrong, for what is there and for anything."""
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

    statuses: set[int] = set()
    names = [{"mac_address": "aa-bb-cc-dd-ee-ff"}, {"filename": "firmware.bin"}, {"name": "lamp"}]
    known = [name for name in names if f"{{{next(iter(name))}}}" in operation.path]
    requests = st.one_of(
        *[operation.as_strategy(mode) for mode in GenerationMode],
        *[operation.as_strategy(mode, path_parameters=name) for mode in GenerationMode for name in known],
    )

    @settings(
        max_examples=REQUESTS_OF_EACH,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def check(case: Any) -> None:
        response = case.call(headers={"Authorization": f"Bearer {token}", "Host": "localhost"})
        # Every request here has the token; those without are TestStrangers' in both apps.
        excluded = [ignored_auth]
        # 412 is no word on the request's form.
        if CONDITIONS & set(case.headers or {}) or (operation.method, operation.path) in NOT_ALL_SAID:
            excluded.append(positive_data_acceptance)
        if response.status_code == 412:  # refused for its condition, whatever is wrong with its form
            excluded.append(negative_data_rejection)
        case.validate_response(response, excluded_checks=excluded)
        if response.status_code >= 400:
            assert set(response.json()) == {"error", "code", "details"}
        statuses.add(response.status_code)

    check()
    return statuses
