"""Editing as people do it: two browsers and one configuration, and what the editor has to help with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import pytest
from playwright.sync_api import Browser, Dialog, Page

from iotsupport.tests.support.browser import Visitor, chromium
from iotsupport.tests.support.server import NEW, PASSWORD, Client, Installation, Server

BEFORE = '{\n  "deviceName": "Lamp",\n  "room": 4,\n  "enableOTA": true,\n  "reportSeconds": 60\n}\n'
OTHER_LINE = BEFORE.replace("60", "30")
MINE = BEFORE.replace("Lamp", "Torch")
BOTH = MINE.replace("60", "30")

numbers = count(1)


@pytest.fixture(scope="module")
def server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("editing")).start(*NEW)
    server.add_staff("maria", is_superuser=True)
    yield server
    server.remove()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def administrator(browser: Browser, server: Server) -> Iterator[Visitor]:
    with Visitor(browser, server) as visitor:
        yield visitor.enter()


@pytest.fixture(scope="module")
def colleague(browser: Browser, server: Server) -> Iterator[Visitor]:
    with Visitor(browser, server) as visitor:
        yield visitor.sign_in("maria", PASSWORD)


@pytest.fixture
def visitor(administrator: Visitor) -> Iterator[Visitor]:
    """The administrator, whom no page may show an error of its own, or send to another host."""
    with administrator.new_page():
        yield administrator
        assert administrator.troubles == []


@pytest.fixture
def maria(colleague: Visitor) -> Iterator[Visitor]:
    """Somebody else, at a browser of her own."""
    with colleague.new_page():
        yield colleague
        assert colleague.troubles == []


@pytest.fixture
def plain(browser: Browser, server: Server) -> Iterator[Visitor]:
    """The administrator with a phone, and without JavaScript."""
    with Visitor(browser, server, java_script_enabled=False) as visitor:
        visitor.enter().page.set_viewport_size({"width": 390, "height": 800})
        yield visitor
        assert visitor.troubles == []


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


def open_config(visitor: Visitor, mac: str) -> Page:
    visitor.open(f"devices/deviceconfig/?q={mac}")
    visitor.follow("#result_list .field-device a")
    return visitor.page


def change(visitor: Visitor, mac: str, text: str) -> None:
    """What somebody else does meanwhile."""
    open_config(visitor, mac)
    visitor.type_config(text)
    visitor.save()


def is_narrow(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


class TestTwoWhoEditOneConfiguration:
    def test_in_different_lines_save_both(self, visitor: Visitor, maria: Visitor, server: Server, mac: str):
        page = open_config(visitor, mac)
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
        page = open_config(visitor, mac)
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
        open_config(visitor, mac)
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
        open_config(visitor, mac)
        open_config(maria, mac)
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
        page = open_config(visitor, mac)
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
        page = open_config(visitor, mac)
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

    def test_an_ended_session_loses_nothing(self, browser: Browser, server: Server, script: Client, mac: str):
        with Visitor(browser, server) as visitor:
            open_config(visitor.enter(), mac)
            script.save_config(mac, OTHER_LINE.encode())
            visitor.type_config(MINE)
            visitor.save()
            visitor.context.clear_cookies(name="sessionid")

            visitor.follow("button:text-is('Save both')")
            visitor.page.fill("[name=username]", "admin")
            visitor.page.fill("[name=password]", PASSWORD)
            visitor.follow("[type=submit]")

            assert visitor.editor_text() == BOTH
            visitor.save()
            assert stored(server, mac) == BOTH
            assert visitor.troubles == []

    def test_without_javascript_on_a_phone(self, plain: Visitor, server: Server, script: Client, mac: str):
        page = open_config(plain, mac)
        script.save_config(mac, OTHER_LINE.encode())
        page.fill("[name=content]", MINE)

        plain.save()

        assert page.input_value("[name=content]") == BOTH
        assert is_narrow(page)
        plain.follow("button:text-is('Save both')")
        assert stored(server, mac) == BOTH
