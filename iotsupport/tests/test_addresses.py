"""A file has the same addresses for all who answer: what each app declares once, and deploy/nginx.conf says again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.urls import Resolver404, resolve, set_script_prefix
from hypothesis import example, given
from hypothesis import strategies as st

from assets.names import find_filename
from assets.views import DOWNLOADS as ASSETS
from devices.fields import normalise_mac_address
from devices.views import DOWNLOADS as CONFIGS
from iotsupport.api import api
from iotsupport.middleware import PUBLIC_URLS
from iotsupport.mirror.files import mirror_storage
from iotsupport.serving.ahead_of_django import find_file
from iotsupport.serving.downloads import Downloads
from iotsupport.serving.strangers import GLANCES
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.properties import PATIENT

pytestmark = pytest.mark.usefixtures("directories")

KINDS = {"configs": CONFIGS, "assets": ASSETS}
PREFIXES = ["", "/api"]

MAC = "aa-bb-cc-dd-ee-ff"
USUAL = [
    *[("configs", name) for name in [MAC, "00-00-00-00-00-00", "0a-1b-2c-3d-4e-5f"]],
    *[("assets", name) for name in ["firmware.bin", "UPPER.BIN", "-_.7", "a", "x" * 200, "a.b.c-d_e"]],
]
# The application's own: it knows other spellings, and what to say about the rest.
UNUSUAL = [
    *[f"/configs/{name}.json" for name in [MAC.upper(), "aabbccddeeff", "aa:bb:cc:dd:ee:ff", "aa-bb-cc-dd-ee:ff", "x"]],
    *[
        f"/configs/{name}.json"
        for name in [f"{MAC}-00", MAC[:-1], f" {MAC}", f"{MAC}\n", f"a/{MAC}", "", "..", ".new-7"]
    ],
    *[
        f"/configs/{name}"
        for name in [MAC, f"{MAC}.JSON", f"{MAC}.json\n", f"{MAC}.json/", f"{MAC}xjson", ".new-7", ""]
    ],
    *[f"{folder}/{MAC}.json" for folder in ["/config", "/esp32/configs", "/esp32", "/Configs", "/api/api/configs"]],
    *[f"{folder}/{MAC}.json" for folder in ["//configs", "/configs/", "/apiconfigs", "/esp32/config/x", "/api"]],
    *[f"/assets/{name}" for name in ["", ".hidden", ".new-7", "..", ".", "a/b", "a/", "../configs/x.json"]],
    *[
        "/asset/firmware.bin",
        "/assets",
        "/Assets/firmware.bin",
        "/api/api/assets/firmware.bin",
        "//assets/firmware.bin",
    ],
]

NGINX = (BASE_DIR / "deploy/nginx.conf").read_text()


def pattern(text: str) -> re.Pattern[str]:
    """An expression of nginx's as one of Python's."""
    return re.compile(text.replace(r"\z", r"\Z"))


def from_nginx(path: str) -> str | None:
    """The file that nginx sends by itself, if it is there: directory and name."""
    for text, block in re.findall(
        r'^        location ~ "?(.+?)"? \{\n(.*?)^        \}', NGINX, re.MULTILINE | re.DOTALL
    ):
        place = re.search(r"alias /var/lib/iotsupport/(\w+/)\$1;", block)
        if place and (found := pattern(text).search(path)):
            return place[1] + found[1]
    return None


def ahead_of_django(path: str) -> str | None:
    file = find_file(path)
    return None if file is None else str(Path(file).relative_to(Path(mirror_storage("configs").location).parent))


def asked_of_view(path: str) -> str | None:
    """The name that Django gives to the view of a download."""
    try:
        found = resolve(path, PUBLIC_URLS)
    except Resolver404:
        return None
    return next(iter(found.kwargs.values()), None)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("kind", "name"), USUAL)
def test_a_usual_address_leads_everybody_to_the_same_file(kind, name, prefix):
    downloads: Downloads = KINDS[kind]
    for folder in downloads.folders:
        path = f"{prefix}/{folder}/{name}{downloads.ending}"

        assert ahead_of_django(path) == from_nginx(path) == f"{kind}/{name}{downloads.ending}"
        assert asked_of_view(path) == name


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", UNUSUAL)
def test_any_other_address_is_left_to_the_view(path, prefix):
    assert ahead_of_django(prefix + path) is None
    assert from_nginx(prefix + path) is None


NAMES = st.text(st.characters(codec="utf-8") | st.sampled_from("./\\-_\n \x7f\u0308\u202e"), min_size=1, max_size=12)


@PATIENT
@given(NAMES)
@example("with space.bin")
@example("größe #1.bin")
@example("o\u0308.bin")
@example("two..dots")
@example("x" * 201)
@example("firmware.bin\n")
@example(".new-0123456789abcdef0123456789abcdef")
def test_neither_sends_another_asset_than_the_view(name):
    """nginx sends any that is there; of the names that find none, the view says what is wrong."""
    path = f"/assets/{name}"
    if (ahead := ahead_of_django(path)) is not None:
        assert ahead == from_nginx(path)
    if (sent := from_nginx(path)) is not None:
        try:
            assert sent == f"assets/{find_filename(name, lambda _: True)}"
        except ValidationError:
            assert "/" not in name and not name.startswith(".")


@PATIENT
@given(st.lists(st.sampled_from([*"09afAF-:.g\n ", "0a", "-bb", MAC]), max_size=18).map("".join))
@example(MAC)
def test_neither_sends_another_configuration_than_the_view(name):
    path = f"/configs/{name}.json"
    if (sent := from_nginx(path)) is not None:
        assert sent == f"configs/{normalise_mac_address(name)}.json"
    assert ahead_of_django(path) == sent


@pytest.mark.parametrize("prefix", ["", "/iot"])
def test_the_documentation_tells_the_first_address(prefix):
    set_script_prefix(f"{prefix}/")
    documented = {
        path
        for path, methods in api.get_openapi_schema()["paths"].items()
        if "security" not in methods.get("get", {"security": []})
    }

    assert documented == {f"{prefix}/configs/{{mac_address}}.json", f"{prefix}/assets/{{filename}}"}


class TestHTTPSInNginx:
    """Devices, and what watches the server, are not sent to HTTPS; people and scripts are."""

    block = re.search(r"map \"\$scheme \$request_method \$uri\" \$needs_https \{(.*?)\}\n", NGINX, re.DOTALL)

    def needs_https(self, method: str, path: str) -> bool:
        assert self.block
        for text, value in re.findall(r'^\s+"~(.+)" (\S+);$', self.block[1], re.MULTILINE):
            if pattern(text).search(f"http {method} {path}"):
                return bool(value == "1")
        return False

    @pytest.mark.parametrize("prefix", PREFIXES)
    def test_whatever_everybody_may_get_stays_plain(self, prefix):
        paths = [f"/{folder}/x{kind.ending}" for kind in KINDS.values() for folder in kind.folders]
        for path in [prefix + path for path in [*paths, *GLANCES]]:
            assert resolve(path, PUBLIC_URLS)
            assert not self.needs_https("GET", path)
            assert not self.needs_https("HEAD", path)
            assert self.needs_https("PUT", path) == bool(prefix)

    @pytest.mark.parametrize(
        "path", ["/api/configs", "/api/assets", "/api/configs/x", "/api/docs", "/admin/", "/admin"]
    )
    def test_the_rest_does_not(self, path):
        assert self.needs_https("GET", path)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_health_and_metrics_have_a_place_of_their_own_in_nginx(prefix):
    [text] = re.findall(r"location ~ (\S+health\S+) \{", NGINX)

    assert all(pattern(text).search(prefix + glance) for glance in GLANCES)
    assert not pattern(text).search(f"{prefix}/health/x")
