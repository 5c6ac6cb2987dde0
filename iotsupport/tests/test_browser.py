"""The main job in a real browser: gunicorn, chromium, files. Nothing is mocked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from iotsupport.tests.support.browser import EDITOR, PHONE, WIDE, Visitor
from iotsupport.tests.support.images import make_image
from iotsupport.tests.support.server import NEW, PASSWORD, Client, Installation, Server
from iotsupport.tests.support.visiting import *  # noqa: F403
from iotsupport.tests.support.waiting import LIMIT

ASSET_MAX_BYTES = 100_000

# Numbers, key order and white space that a parser would not write again as they are.
VERBATIM = '{"z": 1.0,\n\t"a": 1e3,   "n": 12345678901234567890, "m": -0.0,\n  "é": "€ 😀"\n}\n\n'

# Whether nothing of these elements is cut off at their edge.
SHOWS_ALL = "elements => elements.length > 0 && elements.every(element => element.scrollWidth <= element.clientWidth)"


@pytest.fixture(scope="module")
def server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("browser")
    server = Server(template, data_dir, ASSET_MAX_BYTES=str(ASSET_MAX_BYTES)).start(*NEW)
    yield server
    server.remove()


@pytest.fixture
def script(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


def config_file(server: Server, mac_address: str) -> Path:
    return server.directory("configs") / f"{mac_address}.json"


def open_row(visitor: Visitor, path: str, text: str) -> Page:
    """Open what a list shows under this text."""
    visitor.open(path)
    visitor.follow(f"#result_list a:text-is('{text}')")
    return visitor.page


def revert_to_first_version(visitor: Visitor) -> None:
    visitor.follow(".historylink")
    visitor.page.check("#versions-list tbody tr:last-child [name=old]")
    visitor.follow("[value=Compare]")
    visitor.follow(".bar .button:text-is('Restore version 1')")
    visitor.follow("[value='Restore version 1']")


def choose_file(visitor: Visitor, name: str, content: bytes) -> None:
    upload: Any = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    visitor.page.set_input_files("[name=file]", upload)


def test_lets_in_who_knows_the_password(stranger: Visitor):
    stranger.page.goto("/")
    stranger.sign_in("admin", "wrong")
    refused = stranger.page.locator(".errornote").inner_text()

    stranger.sign_in("admin", "pigeons-and-mirrors")

    assert "Please enter the correct username and password" in refused
    assert stranger.page.title() == "Devices and their files | IoT Support"


def test_leads_to_the_documentation_of_the_api(visitor: Visitor):
    visitor.open("")

    visitor.page.click("text=API documentation")

    visitor.page.wait_for_selector("text=Create or replace a configuration, byte for byte")


def test_says_where_the_clock_of_the_browser_is_another_than_the_servers(visitor: Visitor):
    page = visitor.open("state/", visitor.new_tab())
    assert page.inner_text("#browser-clock") == "Your clock agrees."

    page.add_init_script("Object.defineProperty(performance, 'timeOrigin', {value: performance.timeOrigin + 600000})")
    page.reload()

    assert page.inner_text("#browser-clock").startswith("Your clock is 10 minutes ahead of the server's: set the one")


def test_mirrors_exactly_what_is_typed(visitor: Visitor, server: Server):
    visitor.open("devices/deviceconfig/add/")
    visitor.page.fill("[name=mac_address]", "02:AA:00:00:00:01")

    visitor.type_config(VERBATIM)
    visitor.save()

    assert "was added successfully" in visitor.messages()
    assert config_file(server, "02-aa-00-00-00-01").read_bytes() == VERBATIM.encode()
    downloaded = requests.get(f"{server.url}/configs/02-aa-00-00-00-01.json", timeout=LIMIT)
    assert downloaded.content == VERBATIM.encode()


def test_takes_a_configuration_key_by_key(visitor: Visitor, server: Server):
    visitor.open("devices/deviceconfig/add/")
    visitor.page.fill("[name=mac_address]", "02aa00000002")
    visitor.type_config("")

    visitor.page.keyboard.type('{"deviceName": "Lamp", "levels": [1.0, {"to": 1e3}]}')
    visitor.save()

    assert "was added successfully" in visitor.messages()
    typed = b'{"deviceName": "Lamp", "levels": [1.0, {"to": 1e3}]}'
    assert config_file(server, "02-aa-00-00-00-02").read_bytes() == typed


def test_marks_a_mistake_while_it_is_typed(visitor: Visitor):
    visitor.open("devices/deviceconfig/add/")

    visitor.type_config('{\n  "enableOTA": tru\n}')

    visitor.page.wait_for_selector(".ace_gutter-cell.ace_error")


def test_the_keyboard_leads_through_the_editor_and_changes_nothing(visitor: Visitor, server: Server, script: Client):
    # So long that it can be scrolled: browsers stop at what can be.
    content = VERBATIM + "\n" * 200
    script.save_config("02-aa-00-00-00-03", content.encode())
    page = visitor.open_config("02-aa-00-00-00-03")
    page.focus(f"{EDITOR} textarea")

    focused = []
    for keys in ["Escape", "Tab", "Shift+Tab", "Escape", "Shift+Tab"]:
        page.keyboard.press(keys)
        focused.append(page.evaluate(f"!!document.activeElement.closest('{EDITOR}')"))

    assert focused == [True, False, True, True, False]
    assert "Esc, then Tab, goes on." in page.inner_text("#id_content_helptext")
    assert visitor.editor_text() == content
    visitor.save()
    assert config_file(server, "02-aa-00-00-00-03").read_bytes() == content.encode()


def test_tab_indents_unless_it_follows_esc(visitor: Visitor):
    page = visitor.open("devices/deviceconfig/add/")
    visitor.type_config("")

    for key in ["Tab", "Escape", "Shift", "1", "Tab", "2"]:
        page.keyboard.press(key)

    assert visitor.editor_text() == "  1 2"


def test_shows_refused_text_again(visitor: Visitor, server: Server):
    visitor.open("devices/deviceconfig/add/")
    for mac_address, content, error in [
        ("02-aa-00-00-00-10", '{"a": 1,\n "a": 2}\n', 'Line 2, column 2: the key "a" is in this object already.'),
        ("02-aa-00-00-00-10", '{\n  "enableOTA": tru\n}', "Line 2, column 16: tru stands here without quotes."),
        ("02-aa-00-00-00-1g", '{"typed": true}\n', "This is not a MAC address:"),
        ("02:71:bc:ff:fe:12:34:56", '{"typed": true}\n', "the six bytes without ff:fe: 02-71-bc-12-34-56."),
    ]:
        visitor.paste("[name=mac_address]", mac_address)
        visitor.type_config(content)

        visitor.save()

        assert error in visitor.errors()
        assert visitor.page.eval_on_selector_all(".errorlist", SHOWS_ALL), error
        assert visitor.editor_text() == content
        assert visitor.page.input_value("[name=mac_address]") == mac_address
        assert not config_file(server, mac_address).exists()


def test_takes_refused_text_once_it_is_corrected(visitor: Visitor, server: Server):
    visitor.open("devices/deviceconfig/add/")
    visitor.page.fill("[name=mac_address]", "02-aa-00-00-00-11")
    visitor.type_config('{"a": 1,}')
    visitor.save()

    visitor.type_config('{"a": 1}')
    visitor.save()

    assert "was added successfully" in visitor.messages()
    assert config_file(server, "02-aa-00-00-00-11").read_bytes() == b'{"a": 1}'


@pytest.mark.parametrize(
    "content",
    [b'{\r\n\t"a": 1.0\r\n}\r\n', b'\n\n{"a": 1e3}', b'{"a":\r1,\n"b":\r\n2}  ', VERBATIM.encode()],
    ids=["CRLF", "leading newlines", "mixed line ends", "verbatim"],
)
def test_saving_without_a_change_keeps_every_byte(visitor: Visitor, server: Server, script: Client, content: bytes):
    script.save_config("02-aa-00-00-00-20", content)
    visitor.open_config("02-aa-00-00-00-20")

    visitor.save()

    assert "was changed successfully" in visitor.messages()
    assert config_file(server, "02-aa-00-00-00-20").read_bytes() == content


def test_a_changed_text_keeps_its_line_ends(visitor: Visitor, server: Server, script: Client):
    script.save_config("02-aa-00-00-00-21", b'{\r\n"a": 1\r\n}\r\n')
    visitor.open_config("02-aa-00-00-00-21")

    visitor.type_config('{\n"a": 2\n}\n')
    visitor.save()

    assert config_file(server, "02-aa-00-00-00-21").read_bytes() == b'{\r\n"a": 2\r\n}\r\n'


def test_says_why_nothing_can_be_stored_and_keeps_what_was_typed(visitor: Visitor, server: Server, script: Client):
    script.save_config("02-aa-00-00-00-24", b'{"before": 1}')
    visitor.open_config("02-aa-00-00-00-24")
    visitor.type_config('{"after": 1}')
    away = server.data_dir / "away"
    server.directory("configs").rename(away)

    visitor.save()

    away.rename(server.directory("configs"))
    assert "Nothing was saved. The configurations directory is missing. Create it" in visitor.errors()
    assert visitor.editor_text() == '{"after": 1}'
    assert script.get("/configs/02-aa-00-00-00-24").json()["content"] == {"before": 1}
    visitor.save()
    assert config_file(server, "02-aa-00-00-00-24").read_bytes() == b'{"after": 1}'


def sign_out_meanwhile(visitor: Visitor) -> None:
    """End the session, as its time does."""
    visitor.context.clear_cookies(name="sessionid")


# More than is read of somebody who is not signed in.
LONG = VERBATIM.replace("}", ', "long": "' + "x" * 65_000 + '"}')


def test_what_was_typed_when_the_session_ended_is_in_the_form_after_signing_in(
    stranger: Visitor, server: Server, script: Client
):
    mac_address = "02-aa-00-00-00-25"
    script.save_config(mac_address, b"{}")
    stranger.enter()
    stranger.open_config(mac_address)
    stranger.type_config(LONG)
    sign_out_meanwhile(stranger)

    stranger.save()
    assert "What you typed is not lost." in stranger.page.inner_text(".unsaved-notice")
    stranger.page.fill("[name=username]", "admin")
    stranger.page.fill("[name=password]", "pigeons-and-mirrors")
    stranger.follow("[type=submit]")

    assert "Your text is back in the form: save it." in stranger.page.inner_text(".unsaved-notice")
    assert stranger.editor_text() == LONG
    assert config_file(server, mac_address).read_bytes() == b"{}"
    stranger.save()
    assert config_file(server, mac_address).read_bytes() == LONG.encode()
    assert stranger.page.locator(".unsaved-notice").count() == 0


OF_SOMEBODY_ELSE = """
    const [[key, draft]] = Object.entries(sessionStorage);
    const other = {...JSON.parse(draft), user: "4711", path: "/admin/auth/user/add/"};
    sessionStorage.setItem(key.replace(/:.*/, ":" + other.path), JSON.stringify(other));
"""


def test_permissions_that_were_chosen_come_back_and_passwords_do_not(stranger: Visitor):
    stranger.enter()
    stranger.open("auth/group/add/")
    stranger.page.fill("[name=name]", "Gardeners")
    stranger.page.select_option("#id_permissions_from", index=[1, 2])
    stranger.page.dblclick("#id_permissions_from option >> nth=1")
    chosen = stranger.page.locator("#id_permissions_to option").all_inner_texts()
    sign_out_meanwhile(stranger)
    stranger.save()
    # What somebody else left in this tab is not for this user.
    stranger.page.evaluate(OF_SOMEBODY_ELSE)
    stranger.sign_in("admin", "pigeons-and-mirrors")
    elsewhere = stranger.page.inner_text(".unsaved-notice")
    stored = str(stranger.page.evaluate("JSON.stringify(sessionStorage)"))

    stranger.follow(".unsaved-notice a")

    assert "/admin/auth/group/add/" in elsewhere
    assert "pigeons" not in stored
    assert stranger.page.input_value("[name=name]") == "Gardeners"
    assert stranger.page.locator("#id_permissions_to option").all_inner_texts() == chosen != []
    stranger.save()
    assert "was added successfully" in stranger.messages()


def test_signed_in_again_in_another_tab_the_text_is_one_click_from_being_saved(
    stranger: Visitor, server: Server, script: Client
):
    script.save_config("02-aa-00-00-00-26", b"{}")
    stranger.enter()
    stranger.open_config("02-aa-00-00-00-26")
    stranger.type_config(VERBATIM)
    first = stranger.page
    stranger.new_tab()
    stranger.context.clear_cookies(name="sessionid")
    stranger.sign_in("admin", "pigeons-and-mirrors")
    stranger.page = first

    stranger.save()

    assert "from before you last signed in" in first.inner_text("#content-main")
    assert first.input_value(".unsaved textarea") == VERBATIM
    stranger.troubles.clear()  # the browser tells of the 403, too
    stranger.follow("text='Send it now'")
    assert "was changed successfully" in stranger.messages()
    assert config_file(server, "02-aa-00-00-00-26").read_bytes() == VERBATIM.encode()


def test_nothing_is_sent_while_the_server_does_not_answer(visitor: Visitor, server: Server, script: Client):
    script.save_config("02-aa-00-00-00-27", b"{}")
    page = visitor.open_config("02-aa-00-00-00-27")
    visitor.type_config(VERBATIM)
    visitor.context.set_offline(True)

    page.click("[name=_save]")

    assert "Nothing was sent." in page.inner_text(".unsaved-notice")
    visitor.context.set_offline(False)
    visitor.troubles.clear()
    visitor.save()
    assert config_file(server, "02-aa-00-00-00-27").read_bytes() == VERBATIM.encode()


def test_leaving_asks_only_where_something_is_changed_and_not_saved(visitor: Visitor, script: Client):
    script.save_config("02-aa-00-00-00-28", b'{\r\n"a": 1}')
    visitor.new_tab()
    page = visitor.open_config("02-aa-00-00-00-28")
    asked: list[str] = []

    def accept(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", accept)
    for text, then, expected in [
        ('{"a": 2}', lambda: page.reload(wait_until="load"), ["beforeunload"]),
        ('{"a": 2}', lambda: visitor.follow(".historylink"), ["beforeunload"]),
        ('{\n"a": 1}', lambda: visitor.follow(".historylink"), []),
        ('{"a": 2}', lambda: visitor.follow("[name=_continue]"), []),
        ('{"a": 2}', lambda: visitor.follow(".historylink"), []),
    ]:
        if "/change/" not in page.url:
            page.go_back(wait_until="load")
        asked.clear()
        visitor.type_config(text)

        then()

        assert asked == expected


def test_finds_a_device(visitor: Visitor, script: Client):
    script.save_config("02-aa-00-00-00-3a", b'{"deviceName": "Hall clock", "deviceEntityId": "sensor.hall_clock"}')
    script.save_config("02-aa-00-00-00-3b", b'{"deviceName": "Hall lamp", "deviceEntityId": "light.hall"}')
    visitor.open("devices/deviceconfig/")

    for term in ["Hall clock", "02:AA:00:00:00:3A"]:
        visitor.page.fill("#searchbar", term)
        visitor.follow("[value=Search]")

        assert visitor.rows().count() == 1, term
        assert "Hall clock" in visitor.rows().inner_text()

    visitor.follow("#result_list .field-device a")
    assert '"Hall clock"' in visitor.editor_text()


def test_filters_by_what_a_device_allows(visitor: Visitor, script: Client):
    script.save_config("02-aa-00-00-00-3c", b'{"deviceName": "Filtered", "enableOTA": true}')
    script.save_config("02-aa-00-00-00-3d", b'{"deviceName": "Filtered", "enableOTA": false}')
    visitor.open("devices/deviceconfig/?q=Filtered")

    visitor.follow("#changelist-filter a:text-is('No')")

    assert visitor.rows().count() == 1
    assert "02-aa-00-00-00-3d" in visitor.rows().inner_text()


def test_a_deleted_configuration_is_not_served_any_more(visitor: Visitor, server: Server, script: Client):
    script.save_config("02-aa-00-00-00-40", b"{}")
    visitor.open_config("02-aa-00-00-00-40")

    visitor.follow(".deletelink")
    visitor.follow("[type=submit][value^=Yes]")

    assert "was deleted successfully" in visitor.messages()
    assert not config_file(server, "02-aa-00-00-00-40").exists()


@pytest.mark.parametrize("count", [1, 2])
def test_a_deletion_is_taken_back_by_its_message(visitor: Visitor, server: Server, script: Client, count: int):
    names = [f"02-aa-00-00-0{count}-4{number}" for number in range(count)]
    for name in names:
        script.save_config(name, VERBATIM.encode())
    visitor.open(f"devices/deviceconfig/?q=02-aa-00-00-0{count}-4")
    for box in visitor.page.locator("[name=_selected_action]").all():
        box.check()
    visitor.page.select_option("[name=action]", "delete_selected")
    visitor.follow("[name=index]")
    visitor.follow("[type=submit][value^=Yes]")
    assert not any(config_file(server, name).exists() for name in names)

    visitor.follow(".messagelist button:text-is('Undo')")

    assert "back, as" in visitor.messages()
    assert visitor.rows().count() == count
    assert [config_file(server, name).read_bytes() for name in names] == [VERBATIM.encode()] * count


def test_deletes_the_selected_ones_with_their_files(visitor: Visitor, server: Server, script: Client):
    names = ["02-aa-00-00-00-41", "02-aa-00-00-00-42", "02-aa-00-00-00-43"]
    for name in names:
        script.save_config(name, b'{"deviceName": "Selected"}')
    visitor.open("devices/deviceconfig/?q=Selected")
    for name in names[:2]:
        visitor.rows().filter(has_text=name).locator("[name=_selected_action]").check()

    visitor.page.select_option("[name=action]", "delete_selected")
    visitor.follow("[name=index]")
    visitor.follow("[type=submit][value^=Yes]")

    assert "Successfully deleted 2 device configurations." in visitor.messages()
    assert [config_file(server, name).exists() for name in names] == [False, False, True]


def test_an_earlier_configuration_comes_back_byte_for_byte(visitor: Visitor, server: Server, script: Client):
    script.save_config("02-aa-00-00-00-50", VERBATIM.replace("\n", "\r\n").encode())
    script.save_config("02-aa-00-00-00-50", b"{}")
    visitor.open_config("02-aa-00-00-00-50")

    revert_to_first_version(visitor)

    assert "is saved anew" in visitor.messages()
    assert config_file(server, "02-aa-00-00-00-50").read_bytes() == VERBATIM.replace("\n", "\r\n").encode()


def test_the_history_tells_who_changed_what(visitor: Visitor, script: Client):
    script.save_config("02-aa-00-00-00-51", b'{"deviceName": "Old name"}')
    script.save_config("02-aa-00-00-00-51", b'{"deviceName": "New name"}')
    visitor.open_config("02-aa-00-00-00-51")

    visitor.follow(".historylink")

    assert "admin" in visitor.page.locator("#versions-list tbody tr").first.inner_text()
    assert visitor.page.locator(".difference mark").all_inner_texts() == ["Old", "New"]


def test_serves_exactly_what_was_uploaded(visitor: Visitor, server: Server):
    content = bytes(range(256)) * 300
    visitor.open("assets/asset/add/")
    choose_file(visitor, "firmware 1.bin", content)

    visitor.save()

    assert "was added successfully" in visitor.messages()
    assert requests.get(f"{server.url}/assets/firmware%201.bin", timeout=LIMIT).content == content


def test_a_second_upload_is_the_next_version(visitor: Visitor, server: Server, script: Client):
    script.upload("font.bin", b"one")
    open_row(visitor, "assets/asset/", "font.bin")
    choose_file(visitor, "font (2).bin", b"two")

    visitor.save()

    assert (server.directory("assets") / "font.bin").read_bytes() == b"two"
    assert not (server.directory("assets") / "font (2).bin").exists()


def test_adding_a_name_that_is_there_replaces_it(visitor: Visitor, server: Server, script: Client):
    script.upload("logo.png", b"one")
    visitor.open("assets/asset/add/")
    choose_file(visitor, "logo.png", b"two")

    visitor.save()

    assert "The file is the new version of logo.png." in visitor.messages()
    assert (server.directory("assets") / "logo.png").read_bytes() == b"two"


def test_says_why_an_upload_is_refused(visitor: Visitor, server: Server):
    visitor.open("assets/asset/add/")
    for name, content, error in [
        ("a..b", b"x", "The file name holds two dots in a row. Rename the file, then try again."),
        ("large.bin", b"x" * (ASSET_MAX_BYTES + 1), f"The file has more than {ASSET_MAX_BYTES} bytes."),
    ]:
        choose_file(visitor, name, content)

        visitor.save()

        assert error in visitor.errors()
        assert not (server.directory("assets") / name).exists()


def test_an_earlier_asset_comes_back(visitor: Visitor, server: Server, script: Client):
    script.upload("back.bin", b"first" * 1000)
    script.upload("back.bin", b"second")
    open_row(visitor, "assets/asset/", "back.bin")

    revert_to_first_version(visitor)

    assert "Version 1 of back.bin is saved anew." in visitor.messages()
    assert (server.directory("assets") / "back.bin").read_bytes() == b"first" * 1000


def test_a_token_is_shown_once_and_works_until_it_is_revoked(visitor: Visitor, server: Server):
    visitor.open("iotsupport/apitoken/add/")
    visitor.page.fill("[name=description]", "nightly build")
    visitor.page.check("text=everything that its user may")
    visitor.save()
    token = visitor.page.locator("#token").inner_text()
    with Client(server.url, token) as script:
        assert script.get("/configs").status_code == 200

        visitor.follow("text=Done")
        row = visitor.rows().filter(has_text="nightly build")
        assert token not in visitor.page.content()
        row.locator("[name=_selected_action]").check()
        visitor.page.select_option("[name=action]", "revoke")
        visitor.follow("[name=index]")

        assert "API tokens revoked: 1." in visitor.messages()
        assert script.get("/configs").status_code == 401


def test_shows_nothing_to_staff_without_permissions(stranger: Visitor, server: Server):
    server.add_staff("trainee")

    stranger.sign_in("trainee", PASSWORD)

    content = stranger.page.locator("#content-main").inner_text()
    assert content == "You don’t have permission to view or edit anything."


def test_shows_a_configuration_to_those_who_may_only_look(stranger: Visitor, server: Server, script: Client):
    script.save_config("02-aa-00-00-00-60", b'{\n  "deviceName": "Looked at"\n}')
    server.add_staff("guest", "view_deviceconfig")
    stranger.sign_in("guest", PASSWORD)

    stranger.open("devices/deviceconfig/?q=02-aa-00-00-00-60")
    stranger.follow("#result_list .field-device a")

    assert stranger.page.locator(".field-content .readonly").inner_text() == '{\n  "deviceName": "Looked at"\n}'
    assert stranger.page.locator("[name=_save], .deletelink, textarea").count() == 0


def add_user_with_token(server: Server, name: str) -> None:
    server.add_staff(name)
    server.database.change(f"INSERT INTO auth_group (name) VALUES ('{name}')")  # noqa: S608
    columns = "'read-configs write-configs read-assets', 'iot_long', date_joined"
    server.database.change(
        "INSERT INTO iotsupport_apitoken (user_id, description, digest, may, hint, created_at)"  # noqa: S608
        f" SELECT id, username, '{name[-40:]}', {columns} FROM auth_user WHERE username = '{name}'"
    )


def test_nothing_is_cut_off_or_scrolled_sideways(visitor: Visitor, script: Client, server: Server):
    name = "A-sensor-with-a-name-of-one-word-that-does-not-end-before-the-edge-of-the-page"
    script.save_config("02-aa-00-00-00-70", f'{{"deviceName": "{name}", "deviceEntityId": "{name}"}}'.encode())
    assert script.get("/configs/02-aa-00-00-00-71.json").status_code == 404
    add_user_with_token(server, name)
    script.upload(f"{name}.bin", make_image(project=name.encode()[:31]))
    asset = open_row(visitor, "assets/asset/", f"{name}.bin").url.partition("/admin/")[2].removesuffix("change/")

    lists = ["assets/asset/?chip=ESP32-C3", "devices/deviceconfig/?q=070", "devices/waitingboard/"]
    lists += ["auth/user/", "auth/group/", "iotsupport/apitoken/?state=valid"]
    for path in ["", "devices/deviceconfig/", *lists, f"{asset}change/", f"{asset}history/"]:
        page = visitor.open(path)
        for size in [WIDE, PHONE]:
            page.set_viewport_size(size)
            assert page.eval_on_selector_all("html, .results, #result_list td", SHOWS_ALL), (path, size)
    page = visitor.open_config("02-aa-00-00-00-70")
    for size in [WIDE, PHONE]:
        page.set_viewport_size(size)
        assert page.eval_on_selector_all("html, .panel", SHOWS_ALL), size
        beside = page.evaluate(
            "() => document.querySelector('.panel:not([hidden])').getBoundingClientRect().left"
            " > document.querySelector('.django-ace-widget').getBoundingClientRect().right"
        )
        assert beside == (size == WIDE)


def test_a_slash_leads_to_the_search_but_not_where_one_types(visitor: Visitor):
    page = visitor.open("devices/deviceconfig/?q=lamp")
    page.keyboard.press("Tab")

    page.keyboard.press("/")
    page.keyboard.type("a/b")

    assert page.evaluate("document.activeElement.id") == "searchbar"
    assert page.input_value("#searchbar") == "a/b"


def test_a_number_of_the_first_page_is_followed_by_keyboard(visitor: Visitor, script: Client):
    script.save_config("02-aa-00-00-00-72", b'{"deviceName": "Never fetched"}')
    page = visitor.open("")
    page.focus(".numbers a:has-text('never fetched')")

    with page.expect_navigation(wait_until="load"):
        page.keyboard.press("Enter")

    assert "state=never_fetched" in page.url
    assert page.locator("#result_list >> text='Never fetched'").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_editor_has_the_colours_of_the_page(visitor: Visitor, scheme: Any):
    visitor.page.emulate_media(color_scheme=scheme)
    page = visitor.open("devices/deviceconfig/add/")

    body, editor = [
        page.eval_on_selector(element, "element => getComputedStyle(element).backgroundColor")
        for element in ["body", ".ace_editor"]
    ]

    assert editor == body
    assert (body == "rgb(255, 255, 255)") == (scheme == "light")


def test_no_page_needs_what_the_content_security_policy_forbids(visitor: Visitor):
    for path in ["assets/asset/", "auth/group/add/", "auth/user/1/change/", "iotsupport/apitoken/", "password_change/"]:
        page = visitor.open(path)

        assert page.title().endswith(" | IoT Support")
        assert visitor.troubles == [], path


def test_exports_what_a_search_found_and_imports_it_again(
    visitor: Visitor, server: Server, script: Client, tmp_path: Path
):
    macs = [f"02-ee-00-00-00-0{number}" for number in range(3)]
    for number, mac_address in enumerate(macs):
        script.save_config(mac_address, VERBATIM.replace('"a"', f'"deviceName": "Exported {number}", "a"').encode())
    exported = [config_file(server, mac_address).read_bytes() for mac_address in macs]
    visitor.open("devices/deviceconfig/?q=exported")
    with visitor.page.expect_download() as download:
        visitor.page.click("text=Export all 3")
    download.value.save_as(tmp_path / download.value.suggested_filename)
    [archive] = tmp_path.glob("configs-20*.zip")
    script.delete(f"/configs/{macs[0]}")
    script.save_config(macs[1], b'{"deviceName": "Changed since"}')

    visitor.follow("text=Import a zip")
    choose_file(visitor, "broken.zip", archive.read_bytes()[:-1])
    visitor.page.fill("[name=reason]", "Back as it was")
    visitor.follow("input.default")
    assert "This is no zip, or not all of it." in visitor.errors()
    assert visitor.page.input_value("[name=reason]") == "Back as it was"
    choose_file(visitor, archive.name, archive.read_bytes())
    visitor.follow("input.default")

    said = visitor.page.locator(".tally").inner_text().split("\n")
    assert said == ["3 chosen", "2 would change", "1 stay as they are"]
    assert "Changed since" in visitor.page.locator(".difference").all_text_contents()[1]
    assert config_file(server, macs[1]).read_bytes() == b'{"deviceName": "Changed since"}'
    visitor.follow("text=Apply to 2")
    expect(visitor.page.locator("text=It is applied.")).to_be_visible()
    assert [config_file(server, mac_address).read_bytes() for mac_address in macs] == exported
