"""Types as people work with them: a schema, a configuration that does not fit it, and which do not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from iotsupport.tests.support.browser import Visitor
from iotsupport.tests.support.server import NEW, Installation, Server
from iotsupport.tests.support.visiting import *  # noqa: F403

MAC = "02-bb-00-00-00-01"
SCHEMA = """{
  "properties": {
    "pin": {"enum": [1, 2, 4]},
    "rate": {"minimum": %s}
  },
  "required": ["pin"]
}
"""
FITS, DOES_NOT = '{\n  "pin": 1,\n  "rate": 60\n}\n', '{\n  "pin": 3,\n  "rate": 5\n}\n'


@pytest.fixture(scope="module")
def server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("types")).start(*NEW)
    with server.client() as script:
        script.save_config(MAC, FITS.encode())
    yield server
    server.remove()


def editor(field: str) -> str:
    return f".field-{field} .django-ace-widget"


def replace(page: Page, field: str, text: str) -> None:
    page.click(f"{editor(field)} .ace_content")
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


def marked_rows(page: Page, field: str) -> list[int]:
    """Which lines of an editor are marked, counted from 1."""
    return [int(row) for row in page.locator(f"{editor(field)} .ace_gutter-cell.marked-line").all_inner_texts()]


def fits_on_a_phone(page: Page) -> bool:
    page.set_viewport_size({"width": 390, "height": 800})
    fits = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.set_viewport_size({"width": 1280, "height": 800})
    return bool(fits)


def test_1_a_type_is_made_and_the_line_of_a_mistake_is_seen(visitor: Visitor) -> None:
    page = visitor.open("devices/devicetype/add/")
    page.fill("[name=name]", "Gate")
    replace(page, "schema", SCHEMA % '"10"')
    replace(page, "starting_content", FITS)

    visitor.save()

    assert visitor.errors().startswith('Line 4, column 25: properties.rate.minimum must be a number; is "10".')
    assert (marked_rows(page, "schema"), marked_rows(page, "starting_content")) == ([4], [])
    assert fits_on_a_phone(page)
    replace(page, "schema", SCHEMA % "10")
    visitor.save()
    assert "The device type “Gate” was added successfully." in visitor.messages()


def test_2_a_new_configuration_begins_with_what_its_type_begins_with(visitor: Visitor) -> None:
    page = visitor.open("devices/deviceconfig/add/?mac_address=02-bb-00-00-00-02")

    visitor.follow("text=Gate")

    assert visitor.editor_text() == FITS
    assert page.input_value("[name=mac_address]") == "02-bb-00-00-00-02"
    visitor.save()
    assert "was added successfully" in visitor.messages()


def test_3_choosing_a_type_says_whether_the_text_fits(visitor: Visitor) -> None:
    page = visitor.open("devices/deviceconfig/?q=02-bb-00-00-00-01")
    visitor.follow("#result_list tbody th a")

    page.select_option("[name=type]", label="Gate")

    expect(page.locator(".tool-note")).to_have_text("It fits the type “Gate”.")
    visitor.save()


def test_4_what_does_not_fit_is_told_line_by_line_and_saved_when_one_insists(visitor: Visitor) -> None:
    page = visitor.open("devices/deviceconfig/?q=02-bb-00-00-00-01")
    visitor.follow("#result_list tbody th a")
    visitor.type_config(DOES_NOT)

    visitor.save()

    told = page.locator(".marked-lines").inner_text()
    assert "Line 2, column 10: pin must be one of 1, 2, 4; is 3." in told
    assert "Line 3, column 11: rate must be at least 10; is 5." in told
    assert marked_rows(page, "content") == [2, 3]
    assert visitor.editor_text() == DOES_NOT
    assert fits_on_a_phone(page)
    page.check("[name=although_it_does_not_fit]")
    visitor.save()
    assert "was changed successfully" in visitor.messages()


def test_5_what_does_not_fit_is_found_in_the_list(visitor: Visitor) -> None:
    page = visitor.open("devices/deviceconfig/")

    visitor.follow("text=Does not fit its type")

    expect(visitor.rows()).to_have_count(1)
    expect(visitor.rows()).to_contain_text("does not fit")
    assert fits_on_a_phone(page)


def test_6_a_schema_is_saved_when_one_has_seen_what_it_refuses(visitor: Visitor) -> None:
    page = visitor.open("devices/devicetype/")
    visitor.follow("text=Gate")
    replace(page, "schema", SCHEMA % "100")
    page.fill("[name=description]", "Faster")
    replace(page, "starting_content", FITS.replace("60", "100"))

    visitor.save()

    expect(page.locator(".misfits tbody tr")).to_have_count(2)
    assert fits_on_a_phone(page)
    visitor.follow("text=Edit the schema")
    assert page.input_value("[name=description]") == "Faster"
    visitor.save()
    visitor.follow("text=Save, and mark 2")
    assert "keep working, and are marked" in visitor.messages()
    visitor.follow("#result_list .field-misfits a")
    expect(visitor.rows()).to_have_count(2)
