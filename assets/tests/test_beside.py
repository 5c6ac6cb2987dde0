"""What is to be had beside each asset, and to whom it is said that there is nothing new: all without a database."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from django.test import RequestFactory

from assets.models import DOUBTFUL, UNCHANGED_WHERE_RUNNING
from assets.views import download_asset
from iotsupport.mirror.files import SERVED_MODE, mirror_storage
from iotsupport.tests.support.api_client import Download, read
from iotsupport.tests.support.images import CHIP_IDS, make_esp8266_image, make_full_flash, make_image

pytestmark = pytest.mark.usefixtures("directories")

IMAGE = make_image()
MD5 = hashlib.md5(IMAGE, usedforsecurity=False).hexdigest()
SHA256 = hashlib.sha256(IMAGE).hexdigest()
IMAGE_SHA256 = IMAGE[-32:].hex()

LONGEST = "x" * 200


def put(name: str, content: bytes, mode: int = SERVED_MODE) -> None:
    storage = mirror_storage("assets")
    staged = storage.stage([content])
    staged.set_mode(mode)
    storage.replace(name, staged)


def ask(name: str, method: str = "GET", **headers: str) -> Download:
    request = RequestFactory().generic(
        method, "/assets/x", headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    return read(download_asset(request, name))


@pytest.fixture
def image() -> None:
    put("kitchen.bin", IMAGE)


@pytest.mark.parametrize("name", ["kitchen.bin", "größe #1.bin", LONGEST])
@pytest.mark.parametrize(("ending", "digest"), [(".md5", MD5), (".sha256", SHA256)])
def test_digests_are_files_of_their_own(name: str, ending: str, digest: str):
    put(name, IMAGE)

    response, body = ask(f"{name}{ending}")

    assert (response.status_code, body.decode()) == (200, digest)
    assert response["Content-Type"] == "text/plain"
    assert response["Content-Length"] == str(len(digest))
    assert response["Cache-Control"] == "no-cache"


def test_a_manifest_says_what_boards_that_update_themselves_ask_for(image: None):
    response, body = ask("kitchen.bin.manifest.json")

    assert response["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "name": "kitchen",
        "version": "1.4.2",
        "builds": [
            {
                "chipFamily": "ESP32-C3",
                "ota": {
                    "path": "/assets/kitchen.bin",
                    "md5": MD5,
                    "summary": "kitchen 1.4.2, built 2026-11-03 14:02:11 with ESP-IDF v5.3.1",
                },
                "parts": [{"path": "/assets/kitchen.bin", "offset": 65536}],
            }
        ],
        "new_install_prompt_erase": True,
    }


@pytest.mark.parametrize(("chip", "chip_id"), CHIP_IDS.items())
def test_a_manifest_names_the_chip(chip: str, chip_id: int):
    put("kitchen.bin", make_image(chip_id))

    assert json.loads(ask("kitchen.bin.manifest.json").body)["builds"][0]["chipFamily"] == chip


def test_a_signed_image_is_not_for_a_cable():
    put("kitchen.bin", make_image(signed=True))

    manifest = json.loads(ask("kitchen.bin.manifest.json").body)

    assert list(manifest) == ["name", "version", "builds"]
    assert list(manifest["builds"][0]) == ["chipFamily", "ota"]


def test_a_manifest_has_a_path_that_can_be_asked_for():
    put("größe #1.bin", IMAGE)

    [build] = json.loads(ask("größe #1.bin.manifest.json").body)["builds"]

    assert build["ota"]["path"] == "/assets/gr%C3%B6%C3%9Fe%20%231.bin"


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (b"a font", SERVED_MODE),
        (make_esp8266_image(), SERVED_MODE),
        (make_full_flash(), SERVED_MODE),
        (IMAGE[:-1], SERVED_MODE),
        (IMAGE[:-1] + b"x", SERVED_MODE),
        (IMAGE, SERVED_MODE | DOUBTFUL),
    ],
    ids=["no image", "ESP8266", "full flash", "cut", "damaged", "warned about"],
)
def test_nothing_that_boards_should_not_take_has_a_manifest(content: bytes, mode: int):
    put("kitchen.bin", content, mode)

    response, body = ask("kitchen.bin.manifest.json")

    assert (response.status_code, json.loads(body)["code"]) == (404, "NOT_FOUND")
    assert ask("kitchen.bin.md5").response.status_code == 200


@pytest.mark.parametrize("ending", [".md5", ".sha256", ".manifest.json"])
class TestAnswers:
    def test_a_real_asset_of_the_name_goes_first(self, image: None, ending: str):
        put(f"kitchen.bin{ending}", b"real")

        response, body = ask(f"kitchen.bin{ending}")

        assert (body, response["Content-Type"]) == (b"real", "application/octet-stream")

    def test_head_says_what_get_says(self, image: None, ending: str):
        get, head = ask(f"kitchen.bin{ending}"), ask(f"kitchen.bin{ending}", "HEAD")

        assert (head.response.headers, head.body) == (get.response.headers, b"")
        assert head.response["Content-Length"] == str(len(get.body))

    def test_conditions_and_ranges_are_those_of_files(self, image: None, ending: str):
        name = f"kitchen.bin{ending}"
        whole = ask(name)
        etag = whole.response["ETag"]

        assert etag == f'"{hashlib.sha256(whole.body).hexdigest()}"'
        assert ask(name, If_None_Match=etag).response.status_code == 304
        assert ask(name, If_Modified_Since=whole.response["Last-Modified"]).response.status_code == 304
        assert ask(name, If_Match='"x"').response.status_code == 412
        part = ask(name, Range="bytes=2-4")
        assert (part.response.status_code, part.body) == (206, whole.body[2:5])
        assert ask(name, Range="bytes=9999-").response.status_code == 416

    @pytest.mark.parametrize("name", ["none.bin", "", "two..dots", "kitchen.bin.md5"])
    def test_there_is_nothing_beside_what_is_not_there(self, image: None, ending: str, name: str):
        assert ask(f"{name}{ending}").response.status_code in {400, 404}

    def test_there_is_nothing_beside_what_is_withheld(self, image: None, ending: str):
        mirror_storage("assets").withhold("kitchen.bin")

        assert ask(f"kitchen.bin{ending}").response.status_code == 404

    def test_other_methods_are_refused(self, image: None, ending: str):
        assert ask(f"kitchen.bin{ending}", "POST").response.status_code == 405

    def test_new_bytes_are_told_at_once(self, image: None, ending: str):
        before = ask(f"kitchen.bin{ending}")
        put("kitchen.bin", make_image(version=b"1.5.0"))

        assert ask(f"kitchen.bin{ending}", If_None_Match=before.response["ETag"]).response.status_code == 200


ESP8266 = make_esp8266_image()


def esp8266_md5(flash_mode: int) -> str:
    return hashlib.md5(ESP8266[:2] + bytes([flash_mode]) + ESP8266[3:], usedforsecurity=False).hexdigest()


SAID = {
    "MD5": (IMAGE, {"x_ESP32_sketch_md5": MD5}),
    "in upper case": (IMAGE, {"x_ESP32_sketch_md5": MD5.upper()}),
    "digest of the image": (IMAGE, {"x_ESP32_sketch_sha256": IMAGE_SHA256.upper(), "x_ESP32_mode": "sketch"}),
    "both": (IMAGE, {"x_ESP32_sketch_md5": MD5, "x_ESP32_sketch_sha256": IMAGE_SHA256}),
    "ESP8266": (ESP8266, {"x_ESP8266_sketch_md5": hashlib.md5(ESP8266, usedforsecurity=False).hexdigest()}),
    **{f"ESP8266, flash mode {n}": (ESP8266, {"x_ESP8266_sketch_md5": esp8266_md5(n)}) for n in range(4)},
}

SAID_OTHERWISE = {
    "nothing": (IMAGE, {}),
    "other digests": (IMAGE, {"x_ESP32_sketch_md5": "0" * 32, "x_ESP32_sketch_sha256": "0" * 64}),
    "the file's digest": (IMAGE, {"x_ESP32_sketch_sha256": SHA256}),
    "empty": (IMAGE, {"x_ESP32_sketch_md5": "", "x_ESP32_sketch_sha256": ""}),
    "empty, where there is no digest": (make_image(has_digest=False), {"x_ESP32_sketch_sha256": ""}),
    "of a file system": (IMAGE, {"x_ESP32_sketch_md5": MD5, "x_ESP32_mode": "spiffs"}),
    "ESP8266, a fifth flash mode": (ESP8266, {"x_ESP8266_sketch_md5": esp8266_md5(4)}),
    "ESP8266, of a file system": (ESP8266, {"x_ESP8266_sketch_md5": esp8266_md5(0), "x_ESP8266_mode": "littlefs"}),
    "the third byte of what is no image": (
        b"abc",
        {"x_ESP8266_sketch_md5": hashlib.md5(b"ab\0", usedforsecurity=False).hexdigest()},
    ),
}


class TestBoardsThatRunIt:
    @pytest.mark.parametrize(("content", "headers"), SAID.values(), ids=SAID)
    def test_are_told_so_where_that_is_chosen(self, content: bytes, headers: dict[str, str]):
        put("kitchen.bin", content, SERVED_MODE | UNCHANGED_WHERE_RUNNING)

        response, body = ask("kitchen.bin", **headers)

        assert (response.status_code, body) == (304, b"")
        assert response["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        assert ask("kitchen.bin", "HEAD", **headers).response.status_code == 304

    @pytest.mark.parametrize(("content", "headers"), SAID.values(), ids=SAID)
    def test_get_it_again_where_it_is_not(self, content: bytes, headers: dict[str, str]):
        put("kitchen.bin", content, SERVED_MODE | DOUBTFUL)

        assert ask("kitchen.bin", **headers).response.status_code == 200

    @pytest.mark.parametrize(("content", "headers"), SAID_OTHERWISE.values(), ids=SAID_OTHERWISE)
    def test_are_only_those_that_say_so(self, content: bytes, headers: dict[str, Any]):
        put("kitchen.bin", content, SERVED_MODE | UNCHANGED_WHERE_RUNNING)

        assert ask("kitchen.bin", **headers).response.status_code == 200

    def test_hear_of_a_failed_precondition_first(self):
        put("kitchen.bin", IMAGE, SERVED_MODE | UNCHANGED_WHERE_RUNNING)

        assert ask("kitchen.bin", x_ESP32_sketch_md5=MD5, If_Match='"x"').response.status_code == 412

    def test_get_what_is_new(self):
        put("kitchen.bin", make_image(version=b"1.5.0"), SERVED_MODE | UNCHANGED_WHERE_RUNNING)

        response, body = ask("kitchen.bin", x_ESP32_sketch_md5=MD5, x_ESP32_sketch_sha256=IMAGE_SHA256)

        assert (response.status_code, body) == (200, make_image(version=b"1.5.0"))


def test_an_asset_says_both_digests(image: None):
    response, _ = ask("kitchen.bin", Range="bytes=0-0")

    assert (response["x-MD5"], response["x-SHA256"]) == (MD5, SHA256)
