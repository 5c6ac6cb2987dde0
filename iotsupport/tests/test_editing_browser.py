"""Editing as people do it: two browsers and one configuration, and what the editor has to help with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from iotsupport.tests.support.browser import EDITOR, PHONE, Visitor
from iotsupport.tests.support.server import NEW, PASSWORD, Client, Installation, Server
from iotsupport.tests.support.visiting import *  # noqa: F403

BEFORE = '{\n  "deviceName": "Lamp",\n  "room": 4,\n  "enableOTA": true,\n  "reportSeconds": 60\n}\n'
OTHER_LINE = BEFORE.replace("60", "30")
MINE = BEFORE.replace("Lamp", "Torch")
BOTH = MINE.replace("60", "30")

SCHEMA = {
    "properties": {
        "deviceName": {"type": "string", "title": "Name"},
        "reportSeconds": {"type": "integer", "minimum": 1},
        "brightness": {"type": "integer", "default": 128, "description": "Of the display."},
        "wifi": {"type": "object", "properties": {"channel": {"type": "integer", "minimum": 1}}},
    }
}
WITH_TYPE = "02-cc-00-00-00-00"

numbers = count(1)


@pytest.fixture(scope="module")
def server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("editing")).start(*NEW)
    server.add_staff("maria", is_superuser=True)
    with server.client() as client:
        client.put("/types/Lamp", json={"schema": SCHEMA}).raise_for_status()
        client.put(f"/configs/{WITH_TYPE}", json={"content": {}, "type": "Lamp"}).raise_for_status()
        client.save_config(WITH_TYPE, BEFORE.encode()).raise_for_status()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def colleague(browser: Browser, server: Server) -> Iterator[Visitor]:
    with Visitor(browser, server) as visitor:
        yield visitor.sign_in("maria", PASSWORD)


@pytest.fixture
def maria(colleague: Visitor) -> Iterator[Visitor]:
    """Somebody else, at a browser of her own."""
    with colleague.visit():
        yield colleague
        assert colleague.troubles == []


@pytest.fixture(scope="module")
def phone(browser: Browser, server: Server) -> Iterator[Visitor]:
    with Visitor(browser, server, PHONE, java_script_enabled=False) as visitor:
        yield visitor.enter()


@pytest.fixture
def plain(phone: Visitor) -> Iterator[Visitor]:
    """The administrator with a phone, and without JavaScript."""
    with phone.visit():
        yield phone
        assert phone.troubles == []


@pytest.fixture
def script(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def mac(script: Client) -> str:
    """A configuration of this test's own."""
    mac_address = f"02-bb-00-00-00-{next(numbers):02x}"
    script.save_config(mac_address, BEFORE.encode())
    return mac_address


def stored(server: Server, mac: str) -> str | None:
    file = server.directory("configs") / f"{mac}.json"
    return file.read_text() if file.exists() else None


def change(visitor: Visitor, mac: str, text: str) -> None:
    """What somebody else does meanwhile."""
    visitor.open_config(mac)
    visitor.type_config(text)
    visitor.save()


def cursor(page: Page) -> tuple[int, int]:
    """Line and column, counted from 1."""
    place = page.eval_on_selector(EDITOR, "widget => widget.editor.getCursorPosition()")
    return place["row"] + 1, place["column"] + 1


def has_focus(page: Page) -> bool:
    return bool(page.evaluate(f"!!document.activeElement.closest('{EDITOR}')"))


def is_narrow(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


class TestTwoWhoEditOneConfiguration:
    def test_in_different_lines_save_both(self, visitor: Visitor, maria: Visitor, server: Server, mac: str):
        page = visitor.open_config(mac)
        change(maria, mac, OTHER_LINE)
        visitor.type_config(MINE)

        visitor.save()

        assert "maria changed it just now, in the admin" in page.inner_text(".meanwhile")
        assert page.locator(".conflict mark").all_inner_texts()[:4] == ["60", "30", "Lamp", "Torch"]
        assert stored(server, mac) == OTHER_LINE
        assert visitor.editor_text() == BOTH
        visitor.follow("button:text-is('Save both')")
        assert "was changed successfully" in visitor.messages()
        assert stored(server, mac) == BOTH

    def test_in_the_same_line_choose(self, visitor: Visitor, maria: Visitor, server: Server, mac: str):
        page = visitor.open_config(mac)
        change(maria, mac, OTHER_LINE.replace("4", "5"))
        visitor.type_config(MINE.replace("60", "20"))

        visitor.save()

        assert "they have yours, in line 5." in page.inner_text(".form-note")
        assert visitor.editor_text() == MINE.replace("60", "20").replace("4", "5")
        visitor.follow("button:text-is('Save yours alone')")
        assert stored(server, mac) == MINE.replace("60", "20")

    def test_and_a_third_change_are_asked_again(
        self, visitor: Visitor, maria: Visitor, server: Server, script: Client, mac: str
    ):
        visitor.open_config(mac)
        change(maria, mac, OTHER_LINE)
        visitor.type_config(MINE)
        visitor.save()
        script.save_config(mac, OTHER_LINE.replace("true", "false").encode())

        visitor.save()

        assert "admin changed it just now, by the API" in visitor.page.inner_text(".meanwhile")
        assert stored(server, mac) == OTHER_LINE.replace("true", "false")
        visitor.save()
        assert stored(server, mac) == BOTH.replace("true", "false")

    def test_where_the_other_deleted_it_bring_it_back(self, visitor: Visitor, maria: Visitor, server: Server, mac: str):
        visitor.open_config(mac)
        maria.open_config(mac)
        maria.follow(".deletelink")
        maria.follow("[type=submit][value^=Yes]")
        visitor.type_config(MINE)

        visitor.save()

        assert "maria deleted it just now" in visitor.page.inner_text(".meanwhile")
        assert visitor.editor_text() == MINE
        assert visitor.page.input_value("[name=mac_address]") == mac
        assert stored(server, mac) is None
        visitor.follow("button:text-is('Bring it back with your text')")
        assert stored(server, mac) == MINE

    def test_leave_it_only_when_they_are_sure(self, visitor: Visitor, server: Server, script: Client, mac: str):
        page = visitor.open_config(mac)
        script.save_config(mac, OTHER_LINE.encode())
        visitor.type_config(MINE)
        visitor.save()
        asked: list[str] = []

        def accept(dialog: Dialog) -> None:
            asked.append(dialog.type)
            dialog.accept()

        page.once("dialog", accept)
        visitor.follow("#leave")

        assert asked == ["beforeunload"]
        assert visitor.editor_text() == OTHER_LINE

    def test_a_choice_does_not_drop_what_was_typed_on(self, visitor: Visitor, script: Client, mac: str):
        page = visitor.open_config(mac)
        script.save_config(mac, OTHER_LINE.encode())
        visitor.type_config(MINE)
        visitor.save()
        visitor.type_config(BOTH.replace("4", "5"))

        with page.expect_event("dialog") as dialog:
            page.click("button:text-is('Save both')", no_wait_after=True)
        dialog.value.dismiss()

        assert visitor.editor_text() == BOTH.replace("4", "5")
        visitor.save()
        assert json.loads(script.get(f"/configs/{mac}.json").text)["room"] == 5

    def test_an_ended_session_loses_nothing(self, stranger: Visitor, server: Server, script: Client, mac: str):
        stranger.enter().open_config(mac)
        script.save_config(mac, OTHER_LINE.encode())
        stranger.type_config(MINE)
        stranger.save()
        stranger.context.clear_cookies(name="sessionid")

        stranger.follow("button:text-is('Save both')")
        stranger.page.fill("[name=username]", "admin")
        stranger.page.fill("[name=password]", PASSWORD)
        stranger.follow("[type=submit]")

        assert stranger.editor_text() == BOTH
        stranger.save()
        assert stored(server, mac) == BOTH

    def test_without_javascript_on_a_phone(self, plain: Visitor, server: Server, script: Client, mac: str):
        page = plain.open(f"devices/deviceconfig/?q={mac}")
        plain.follow("#result_list .field-device a")
        script.save_config(mac, OTHER_LINE.encode())
        page.fill("[name=content]", MINE)

        plain.save()

        assert page.input_value("[name=content]") == BOTH
        assert is_narrow(page)
        plain.follow("button:text-is('Save both')")
        assert stored(server, mac) == BOTH


# Returns when that has been drawn.
SCROLL_TO_THE_FIRST_LINE = """
    () => new Promise((done) => {
      const { editor } = document.querySelector(".ace_editor").env;
      editor.renderer.once("afterRender", () => requestAnimationFrame(done));
      editor.session.setScrollTop(0);
    })
"""


class TestAMistake:
    def test_is_marked_and_the_cursor_stands_there(self, visitor: Visitor, mac: str):
        page = visitor.open_config(mac)
        long = "{\n" + "".join(f'  "key{number}": "😀",\n' for number in range(200))
        visitor.type_config(f'{long}  "😀": tru\n}}')

        visitor.save()

        assert "Line 202, column 8" in visitor.errors()
        assert page.inner_text(".marked-lines code") == '  "😀": tru'
        expect(page.locator(f"{EDITOR} .ace_gutter-cell.marked-line")).to_have_text("202")
        expect(page.locator(f"{EDITOR} .ace_marker-layer .marked-line")).to_have_count(1)
        assert (cursor(page), has_focus(page)) == ((202, 9), True)  # two of JavaScript's characters are one
        page.keyboard.press("Control+Delete")
        page.keyboard.insert_text("true")
        expect(page.locator(f"{EDITOR} .ace_gutter-cell.marked-line")).to_have_count(0)
        visitor.save()
        assert "was changed successfully" in visitor.messages()

    def test_stays_in_view_however_late_the_page_is_laid_out(self, visitor: Visitor, mac: str):
        page = visitor.open_config(mac)
        long = "{\n" + "".join(f'  "key{number}": 1,\n' for number in range(200))
        visitor.type_config(f'{long}  "last": tru\n}}')
        visitor.save()
        marked, first = (
            page.locator(f"{EDITOR} .ace_gutter-cell{which}") for which in [".marked-line", ":text-is('1')"]
        )
        expect(marked).to_have_text("202")

        page.evaluate(SCROLL_TO_THE_FIRST_LINE)
        expect(marked).to_have_text("202")

        # Not in the way of who looks elsewhere.
        page.hover(f"{EDITOR} .ace_scroller")
        page.mouse.wheel(0, -100_000)
        expect(first).to_be_visible()
        expect(marked).to_have_count(0)

    def test_of_a_schema_marks_each_line_and_follows_it(self, visitor: Visitor):
        page = visitor.open_config(WITH_TYPE)
        visitor.type_config('{\n  "deviceName": 1,\n  "reportSeconds": 0\n}\n')

        visitor.save()

        marked = page.locator(f"{EDITOR} .ace_gutter-cell.marked-line")
        expect(marked).to_have_text(["2", "3"])
        page.keyboard.press("ArrowUp")
        page.keyboard.press("End")
        page.keyboard.insert_text("\n")
        expect(marked).to_have_text(["3", "4"])
        page.click(".marked-lines a >> nth=1")
        assert has_focus(page)

    def test_in_another_field_leaves_the_cursor_where_it_was(self, visitor: Visitor):
        page = visitor.open("devices/deviceconfig/add/")
        page.fill("[name=mac_address]", "nonsense")
        visitor.type_config("{\n" + "\n" * 100 + '"a": 1}')
        page.keyboard.press("ArrowUp")
        before = cursor(page)

        visitor.save()

        assert "This is not a MAC address" in visitor.errors()
        expect(page.locator(f"{EDITOR} .ace_gutter-cell").filter(has_text="101")).to_be_visible()
        assert cursor(page) == before == (101, 1)

    def test_is_told_without_javascript(self, plain: Visitor, mac: str):
        page = plain.open_config(mac)
        page.fill("[name=content]", BEFORE.replace("true", "tru"))

        plain.save()

        assert "Line 4, column 16: tru stands here" in plain.errors()
        assert page.inner_text(".marked-lines").split() == ["Line", "4", '"enableOTA":', "tru,"]
        assert is_narrow(page)


class TestFormat:
    def test_keeps_the_cursor(self, visitor: Visitor, server: Server, mac: str):
        page = visitor.open_config(mac)
        visitor.type_config('{"a":1.0,"b":[1,\n2],"text":"two  words"}')
        for _ in 'words"}':
            page.keyboard.press("ArrowLeft")

        page.click("[name=_format]")

        expect(page.locator(".tool-note")).to_have_text("Formatted. Nothing is saved yet.")
        formatted = '{\n  "a": 1.0,\n  "b": [\n    1,\n    2\n  ],\n  "text": "two  words"\n}\n'
        assert visitor.editor_text() == formatted
        assert (cursor(page), has_focus(page)) == ((7, 17), True)
        page.keyboard.press("Control+z")
        assert visitor.editor_text() == '{"a":1.0,"b":[1,\n2],"text":"two  words"}'
        assert stored(server, mac) == BEFORE

    def test_works_below_two_changes(self, visitor: Visitor, script: Client, mac: str):
        page = visitor.open_config(mac)
        script.save_config(mac, OTHER_LINE.encode())
        visitor.type_config(MINE.replace(": 4", ":4"))
        visitor.save()

        page.click("[name=_format]")

        expect(page.locator(".tool-note")).to_be_visible()
        assert visitor.editor_text() == BOTH

    def test_of_what_has_a_mistake_leads_there(self, visitor: Visitor, mac: str):
        page = visitor.open_config(mac)
        visitor.type_config(BEFORE.replace("true", "tru"))

        page.click("[name=_format]")

        expect(page.locator(".tool-note")).to_contain_text("Not formatted. Line 4, column 16")
        assert (cursor(page), has_focus(page)) == ((4, 16), True)

    def test_without_javascript_shows_the_form_again(self, plain: Visitor, server: Server, mac: str):
        page = plain.open_config(mac)
        page.fill("[name=content]", '{"a":1e3}')

        plain.follow("[name=_format]")

        assert page.input_value("[name=content]") == '{\n  "a": 1e3\n}\n'
        assert is_narrow(page)
        plain.save()
        assert stored(server, mac) == '{\n  "a": 1e3\n}\n'

    def test_after_the_session_ended_goes_through_the_sign_in(self, stranger: Visitor, mac: str):
        stranger.enter().open_config(mac)
        stranger.type_config('{"a":1}')
        stranger.context.clear_cookies(name="sessionid")

        stranger.follow("[name=_format]")

        assert "What you typed is not lost." in stranger.page.inner_text(".unsaved-notice")
        stranger.troubles.clear()  # the browser tells of the 403, too


class TestKeys:
    def test_one_is_inserted_by_keyboard_alone(self, visitor: Visitor):
        page = visitor.open_config(WITH_TYPE)
        visitor.type_config(BEFORE)
        page.focus("#keys li:has-text('wifi.channel') button")

        page.keyboard.press("Enter")

        expect(page.locator(".tool-note")).to_have_text("wifi.channel is inserted. Nothing is saved yet.")
        assert visitor.editor_text() == BEFORE.replace("60", '60,\n  "wifi": {"channel": 1}')
        assert "in the text" in page.inner_text("#keys li:has-text('wifi.channel')")
        page.keyboard.insert_text("11")  # the value is selected
        assert '"channel": 11' in visitor.editor_text()

    def test_one_is_inserted_without_javascript(self, plain: Visitor):
        page = plain.open_config(WITH_TYPE)
        assert "Of the display." in page.inner_text("#keys")

        plain.follow("#keys li:has-text('brightness') button")

        assert page.input_value("[name=content]") == BEFORE.replace("60", '60,\n  "brightness": 128')
        assert is_narrow(page)


class TestSaveAsNew:
    def test_asks_for_the_address_and_never_overwrites(
        self, visitor: Visitor, server: Server, script: Client, mac: str
    ):
        other = mac.replace("02-bb", "02-bc")
        script.save_config(other, b"{}")
        page = visitor.open_config(mac)
        visitor.type_config(MINE)

        visitor.follow("[name=_copy]")
        assert page.evaluate("document.activeElement.name") == "mac_address"
        page.keyboard.insert_text(other)
        visitor.save()

        assert "This device has a configuration already" in visitor.errors()
        assert page.locator(".errorlist a").inner_text() == other
        assert visitor.editor_text() == MINE
        page.fill("[name=mac_address]", mac.replace("02-bb", "02-bd"))
        visitor.save()
        texts = [stored(server, each) for each in [mac, other, mac.replace("02-bb", "02-bd")]]
        assert texts == [BEFORE, "{}", MINE]

    def test_without_javascript(self, plain: Visitor, server: Server, mac: str):
        page = plain.open_config(mac)
        page.fill("[name=content]", MINE)

        plain.follow("[name=_copy]")
        page.fill("[name=mac_address]", mac.replace("02-bb", "02-be"))
        plain.save()

        assert [stored(server, each) for each in [mac, mac.replace("02-bb", "02-be")]] == [BEFORE, MINE]
