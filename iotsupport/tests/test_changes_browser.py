"""Changing many as somebody does it: gunicorn, chromium, files. Nothing is mocked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, expect

from iotsupport.tests.support.browser import EDITOR, PHONE, Visitor
from iotsupport.tests.support.server import NEW, Installation, Server
from iotsupport.tests.support.visiting import *  # noqa: F403

LIST = "devices/deviceconfig/"


@pytest.fixture(scope="module")
def server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("changes")).start(*NEW)
    yield server
    server.remove()


@pytest.fixture
def lamps(server: Server) -> list[str]:
    """Three of them; the text of the last is not as that of the others."""
    macs = [f"02-aa-00-00-00-0{number}" for number in range(3)]
    texts = ['{\n  "deviceName": "Lamp 0",\n  "pin": 1.0\n}\n', '{"deviceName": "Lamp 1", "pin": 1}', '{"pin": 5}']
    with server.client() as client:
        for mac, text in zip(macs, texts, strict=True):
            assert client.save_config(mac, text.encode()).ok
    return macs


def texts(server: Server) -> list[str]:
    return [content.decode() for _, content in sorted(server.files("configs").items())]


def choose_all(visitor: Visitor, query: str = "") -> None:
    visitor.open(f"{LIST}{query}")
    visitor.page.check("#action-toggle")
    visitor.page.select_option("[name=action]", label="Change many…")
    visitor.follow("[name=index]")


def folds(visitor: Visitor) -> Locator:
    return visitor.page.locator("details.folded")


def test_a_patch_is_typed_corrected_looked_at_applied_and_undone(visitor: Visitor, server: Server, lamps: list[str]):
    before = texts(server)
    choose_all(visitor)
    assert visitor.page.locator(".tally").inner_text() == "3 chosen"

    visitor.type_config('{\n  "pin": 5\n  "x": 1\n}')
    visitor.page.fill("[name=reason]", "The new board")
    visitor.follow("input.default")
    assert visitor.errors() == "Line 3, column 3: a comma or a closing bracket is missing here."
    assert visitor.editor_text() == '{\n  "pin": 5\n  "x": 1\n}'
    expect(visitor.page.locator(f"{EDITOR} .ace_marker-layer .marked-line")).to_have_count(1)
    visitor.type_config('{"pin": 5}')
    visitor.follow("input.default")

    page = visitor.page
    assert page.locator("h1, #content > h2").first.inner_text() == "The new board"
    assert page.locator(".tally").inner_text().split("\n") == ["3 chosen", "2 would change", "1 stay as they are"]
    assert texts(server) == before
    folds(visitor).filter(has_text="Lamp 1").locator("summary").click()
    expect(folds(visitor).filter(has_text="Lamp 1").locator("mark")).to_have_text(["1", "5"])
    visitor.follow("text=Apply to 2")

    # By itself, without loading it anew.
    expect(page.locator("text=It is applied.")).to_be_visible()
    assert texts(server) == [before[0].replace("1.0", "5"), '{"deviceName": "Lamp 1", "pin": 5}', '{"pin": 5}']
    visitor.follow("text=Undo this change…")
    assert page.locator(".steps .now").inner_text() == "Look"
    visitor.follow("text=Apply to 2")
    expect(page.locator("text=It is applied.")).to_be_visible()
    assert texts(server) == before


def test_only_what_belongs_to_what_is_to_be_done_is_asked_for(visitor: Visitor, lamps: list[str]):
    choose_all(visitor)
    patch, type_ = visitor.page.locator(".field-patch"), visitor.page.locator(".field-type")
    expect(patch).to_be_visible()
    expect(type_).to_be_hidden()

    visitor.page.focus("[name=kind]:checked")
    visitor.page.keyboard.press("ArrowDown")

    expect(patch).to_be_hidden()
    expect(type_).to_be_visible()
    visitor.page.keyboard.press("ArrowUp")
    assert visitor.editor_text() == "{\n  \n}\n"


@pytest.fixture
def without_scripts(browser: Browser, server: Server) -> Iterator[Visitor]:
    with Visitor(browser, server, java_script_enabled=False) as visitor:
        yield visitor.enter()
        assert visitor.troubles == []


def test_without_scripts_one_goes_the_same_way(without_scripts: Visitor, server: Server, lamps: list[str]):
    visitor = without_scripts
    visitor.open(f"{LIST}?q=Lamp")
    for box in visitor.rows().locator("[name=_selected_action]").all():
        box.check()
    visitor.page.select_option("[name=action]", label="Change many…")
    visitor.page.locator("[name=index]").first.click()
    visitor.page.fill("[name=patch]", '{"pin": null}')
    visitor.page.locator("input.default").click()
    visitor.page.locator("text=Apply to 2").click()

    expect(visitor.page.locator("text=It is applied.")).to_be_visible()
    assert texts(server)[:2] == ['{\n  "deviceName": "Lamp 0"\n}\n', '{"deviceName": "Lamp 1"}']


def test_nothing_scrolls_sideways_on_a_phone(visitor: Visitor, lamps: list[str]):
    visitor.page.set_viewport_size(PHONE)
    choose_all(visitor)
    visitor.page.wait_for_selector(f"{EDITOR} .ace_content")
    widths = [visitor.page.evaluate("document.documentElement.scrollWidth")]
    visitor.type_config('{"name": "' + "a long value " * 20 + '", "x": "' + "y" * 200 + '"}')
    visitor.follow("input.default")
    widths.append(visitor.page.evaluate("document.documentElement.scrollWidth"))

    assert widths == [390, 390]
