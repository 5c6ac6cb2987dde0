"""Versions as somebody uses them: two are chosen and compared, one is restored, a deleted one is brought back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iotsupport.tests.support.browser import PHONE, WIDE, Visitor
from iotsupport.tests.support.server import NEW, Client, Installation, Server
from iotsupport.tests.support.visiting import *  # noqa: F403

MAC = "02-aa-00-00-00-01"
VERSIONS = f"devices/deviceconfig/versions/{MAC}/"
LONG = "firmware-with-a-name-of-one-word-that-does-not-end-before-the-edge.bin"
TEXTS = [
    '{\n  "deviceName": "Kitchen thermometer",\n  "room": "kitchen",\n  "enableOTA": true,\n  "reportSeconds": 60\n}\n',
    '{\n  "deviceName": "Kitchen thermometer",\n  "room": "kitchen",\n  "enableOTA": true,\n  "reportSeconds": 30,\n'
    '  "sensors": [\n    {"type": "DHT22", "pin": 4, "offset": -0.5, "name": "above the window, on a shelf"}\n  ]\n}',
    '{\n  "deviceName": "Kitchen thermometer",\n  "reportSeconds": 5\n}',
]


@pytest.fixture(scope="module")
def server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("versions")).start(*NEW)
    yield server
    server.remove()


@pytest.fixture
def script(server: Server) -> Iterator[Client]:
    """With three versions of one configuration that are saved anew."""
    with server.client() as client:
        for text in TEXTS:
            client.save_config(MAC, text.encode())
        yield client


def config_file(server: Server) -> Path:
    return server.directory("configs") / f"{MAC}.json"


def marked(visitor: Visitor) -> list[str]:
    return visitor.page.locator(".difference mark").all_inner_texts()


def test_two_are_compared_and_one_is_restored(visitor: Visitor, server: Server, script: Client):
    page = visitor.open(VERSIONS)
    last = int(page.locator("#versions-list [name=old]").first.get_attribute("value") or 0)

    page.check(f"#versions-list [name=old][value='{last - 2}']")
    page.check(f"#versions-list [name=new][value='{last - 1}']")
    visitor.follow("[value=Compare]")
    assert page.locator("#difference h2").inner_text() == f"Version {last - 2} and version {last - 1}"
    assert marked(visitor)[:2] == ["60", "30,"]

    visitor.follow(f".bar .button:has-text('Restore version {last - 2}')")
    assert config_file(server).read_text() == TEXTS[2]
    page.fill("[name=reason]", "quicker while we test")
    visitor.follow("[type=submit].default")

    assert "is saved anew" in visitor.messages()
    assert config_file(server).read_text() == TEXTS[0]
    assert "quicker while we test" in page.locator("#versions-list tbody tr").first.inner_text()
    assert "(now)" in page.locator("#versions-list tbody tr").first.inner_text()


def test_a_deleted_one_is_brought_back_from_its_list(visitor: Visitor, server: Server, script: Client):
    script.delete(f"/configs/{MAC}").raise_for_status()
    visitor.open("devices/deviceconfig/")

    visitor.follow(".object-tools a:text-is('Deleted')")
    assert "Kitchen thermometer" in visitor.rows().first.inner_text()
    visitor.follow("#result_list button:text-is('Bring back')")

    assert "is back, as it was." in visitor.messages()
    assert config_file(server).read_text() == TEXTS[2]


def test_all_of_it_goes_by_keyboard(visitor: Visitor, server: Server, script: Client):
    page = visitor.open(VERSIONS)
    last = int(page.locator("#versions-list [name=old]").first.get_attribute("value") or 0)
    page.focus(f"#versions-list [name=old][value='{last - 1}']")

    page.keyboard.press("ArrowDown")
    with page.expect_navigation(wait_until="load"):
        page.keyboard.press("Enter")
    assert page.locator("#difference h2").inner_text() == f"Version {last - 2} and version {last} (now)"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == f"Restore version {last - 2}"
    with page.expect_navigation(wait_until="load"):
        page.keyboard.press("Enter")
    page.focus("[name=reason]")
    with page.expect_navigation(wait_until="load"):
        page.keyboard.press("Enter")

    assert config_file(server).read_text() == TEXTS[0]


def test_nothing_is_scrolled_sideways(visitor: Visitor, script: Client):
    script.save_config(MAC, ('{"word": "' + "x" * 500 + '"}').encode())
    for content in [b"one", b"two"]:
        script.upload(LONG, content)
    of_asset = f"assets/asset/versions/{LONG}/"

    for path in [
        VERSIONS,
        f"{VERSIONS}?old=1&new=2",
        f"{VERSIONS}1/restore/",
        of_asset,
        f"{of_asset}1/restore/",
        "devices/deletedconfig/",
    ]:
        page = visitor.open(path)
        for size in [WIDE, PHONE]:
            page.set_viewport_size(size)
            fits = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert fits, (path, size)


def test_on_a_phone_the_line_that_was_stands_above_the_one_that_is(visitor: Visitor, script: Client):
    visitor.page.set_viewport_size(PHONE)
    changed = visitor.open(VERSIONS).locator(".difference .changed").first

    old, new = (changed.locator(f"td.{side}:not(.number)").bounding_box() for side in ["old", "new"])

    assert old is not None and new is not None
    assert (old["x"], old["y"] + old["height"]) == (new["x"], new["y"])
