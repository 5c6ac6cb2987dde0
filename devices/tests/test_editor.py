"""What helps to write a configuration, and saves nothing: lines with mistakes, Format, Insert, Save as new."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest

from devices.models import DeviceConfig, DeviceType
from iotsupport.tests.support.api_client import make_user, nothing_changed, session_client

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

MAC = "aa-bb-cc-dd-ee-ff"
LIST = "/admin/devices/deviceconfig/"
ADD = f"{LIST}add/"
SCRIPT = {"Accept": "application/json"}

SCHEMA = """{"required": ["deviceName"], "properties": {
  "deviceName": {"type": "string", "title": "Name", "description": "As <people> call it."},
  "room": {"type": "integer", "default": 4},
  "wifi": {"type": "object", "properties": {"channel": {"type": "integer", "minimum": 1}}}
}}"""


@pytest.fixture
def device_type() -> DeviceType:
    return DeviceType.objects.create(name="Lamp", schema=SCHEMA)


@pytest.fixture
def config(device_type: DeviceType) -> DeviceConfig:
    return DeviceConfig.objects.create(mac_address=MAC, content='{"deviceName": "Lamp"}', type=device_type)


def change_url(config: DeviceConfig) -> str:
    return f"{LIST}{config.pk}/change/"


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", "", response.content.decode())))


def typed(response: Any) -> str:
    return str(response.context_data["adminform"].form["content"].value())


def marked(response: Any) -> list[tuple[str, str, str]]:
    """Line, column, and the line with what is wrong in it in brackets."""
    found = re.findall(
        r'data-line="(\d+)" data-column="(\d+)">.*?<code>(.*?)</code>', response.content.decode(), re.DOTALL
    )
    return [(line, column, html.unescape(re.sub("</?mark>", "|", code))) for line, column, code in found]


def keys(response: Any) -> dict[str, str]:
    """Of each key of the panel, what its button sends; nothing where it has none."""
    page = response if isinstance(response, str) else response.content.decode()
    panel = page.partition('id="keys"')[2].partition("</section>")[0]
    items = re.findall(r"<li>(.*?)</li>", panel, re.DOTALL)
    return {
        re.findall("<code>(.*?)</code>", item)[0]: html.unescape((re.findall('value="([^"]*)"', item) or [""])[0])
        for item in items
    }


class TestAMistake:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ('{\r\n  "enableOTA": tru\r\n}', ("2", "16", '  "enableOTA": |tru|')),
            ('{"a": 1,\r\n "a<b>": 2, "a<b>": 3}', ("2", "13", ' "a<b>": 2, |"a<b>"|: 3}')),
            ('{"a": 1\r\n', ("2", "1", "|\N{NO-BREAK SPACE}|")),
            (f'{{"a": "{"x" * 90}", b: "{"y" * 90}"}}', ("1", "101", f'…{"x" * 57}", |b|: "{"y" * 57}…')),
        ],
        ids=["word", "key", "end", "long line"],
    )
    def test_is_shown_in_its_line(self, signed_in, config, content, expected):
        refused = signed_in.post(change_url(config), {"content": content})

        assert marked(refused) == [expected]

    def test_of_a_schema_shows_the_line_of_each(self, signed_in, config):
        refused = signed_in.post(change_url(config), {"content": '{\n"room": "4",\n"wifi": {"channel": 0}\n}'})

        assert [(line, code) for line, _, code in marked(refused)] == [
            ("1", "|{|"),
            ("2", '"room": |"4"|,'),
            ("3", '"wifi": {"channel": |0|}'),
        ]
        assert "Line 2, column 9: room must be a whole number" in text_of(refused)

    def test_without_a_line_shows_none(self, signed_in, config):
        assert marked(signed_in.post(change_url(config), {"content": ""})) == []


class TestFormat:
    def test_shows_the_form_again(self, signed_in, config):
        sent = {"content": '{"a":1.0,\r\n"b":2}', "based_on": "another", "_format": ""}
        with nothing_changed():
            shown = signed_in.post(change_url(config), sent)

        assert typed(shown) == '{\n  "a": 1.0,\n  "b": 2\n}\n'
        assert "Formatted. Nothing is saved yet." in text_of(shown)
        assert 'name="based_on" value="another"' in shown.content.decode()

    def test_of_a_new_one_keeps_the_address(self, signed_in):
        shown = signed_in.post(ADD, {"mac_address": "aa bb", "content": "{}", "_format": ""})

        assert 'name="mac_address" value="aa bb"' in shown.content.decode()
        assert "errorlist" not in shown.content.decode()

    def test_of_what_is_no_configuration_says_why_and_where(self, signed_in, config):
        shown = signed_in.post(change_url(config), {"content": '{\r\n"a": tru}', "_format": ""})

        assert "Not formatted. Line 2, column 6: tru stands here" in text_of(shown)
        assert marked(shown) == [("2", "6", '"a": |tru|}')]
        assert typed(shown) == '{\n"a": tru}'

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ('{"a":1}', {"content": '{\n  "a": 1\n}\n', "note": "Formatted. Nothing is saved yet.", "refused": None}),
            ('{\n"a": x}', {"content": '{\n"a": x}', "refused": {"line": 2, "column": 6}}),
            ('{"a": "' + "x" * 65536 + '"}', {"refused": {"line": None, "column": None}}),
        ],
        ids=["formatted", "refused", "too large"],
    )
    def test_answers_a_script(self, signed_in, config, content, expected):
        answer = signed_in.post(change_url(config), {"content": content, "_format": ""}, headers=SCRIPT)

        assert answer.json().items() >= expected.items()

    @pytest.mark.parametrize("button", ["_format", "_insert", "_copy", "_keys"])
    def test_is_not_for_who_may_only_look(self, config, button):
        guest = session_client(make_user("devices.view_deviceconfig", is_staff=True))

        assert guest.post(change_url(config), {"content": "{}", button: ""}, headers=SCRIPT).status_code == 403

    def test_of_what_was_deleted_meanwhile_loses_nothing(self, signed_in, config):
        url = change_url(config)
        config.delete()

        shown = signed_in.post(url, {"content": '{"typed": 1}', "based_on": "x", "_format": ""})

        assert "deleted it just now" in text_of(shown)
        assert typed(shown) == '{"typed": 1}'


class TestKeys:
    def test_of_the_type_stand_beside_the_editor(self, signed_in, config):
        page = signed_in.get(change_url(config))

        assert keys(page) == {
            "deviceName": "",
            "room": '["room"]',
            "wifi": '["wifi"]',
            "wifi.channel": '["wifi", "channel"]',
        }
        assert "Name As <people> call it." in text_of(page)
        assert "default 4" in text_of(page)

    def test_without_a_type_there_are_none(self, signed_in):
        assert keys(signed_in.get(ADD)) == {}

    def test_one_is_inserted_and_nothing_is_saved(self, signed_in, config):
        sent = {"content": '{\r\n\t"deviceName": "Lamp"\r\n}', "_insert": '["wifi", "channel"]'}
        with nothing_changed():
            shown = signed_in.post(change_url(config), sent)

        assert typed(shown) == '{\n\t"deviceName": "Lamp",\n\t"wifi": {"channel": 1}\n}'
        assert "wifi.channel is inserted. Nothing is saved yet." in text_of(shown)
        assert keys(shown)["wifi.channel"] == ""

    def test_a_script_is_told_where_it_stands(self, signed_in, config):
        sent = {"content": '{"é😀": 1}', "_insert": '["room"]'}

        answer = signed_in.post(change_url(config), sent, headers=SCRIPT).json()

        assert answer["content"] == '{"é😀": 1, "room": 4}'
        assert answer["place"] == [{"line": 1, "column": 19}, {"line": 1, "column": 20}]
        assert keys(answer["keys"])["room"] == ""

    @pytest.mark.parametrize(
        ("content", "key", "reason"),
        [
            ("{", '["room"]', "Not inserted. Line 1"),
            ('{"room": 5}', '["room"]', "Not inserted. room is there already"),
            ('{"wifi": 5}', '["wifi", "channel"]', "or something else stands in its place"),
            ("{}", '["unknown"]', "The type does not have this key any more"),
        ],
    )
    def test_what_cannot_be_inserted_is_refused(self, signed_in, config, content, key, reason):
        shown = signed_in.post(change_url(config), {"content": content, "_insert": key})

        assert reason in text_of(shown)
        assert typed(shown) == content

    def test_another_type_has_others(self, signed_in, config, device_type):
        other = DeviceType.objects.create(name="Clock", schema=json.dumps({"properties": {"alarm": {}}}))
        sent = {"content": "{}", "_keys": "1", "type": str(other.pk)}

        answer = signed_in.post(change_url(config), sent, headers=SCRIPT).json()

        assert keys(answer["keys"]) == {"alarm": '["alarm"]'}
        assert "hidden" in signed_in.post(ADD, sent | {"type": ""}, headers=SCRIPT).json()["keys"]


class TestSaveAsNew:
    def test_asks_for_the_address_of_the_other_device(self, signed_in, config):
        with nothing_changed():
            asked = signed_in.post(change_url(config), {"content": '{"typed": 1}', "based_on": "x", "_copy": ""})

        assert "A copy for another device: type its MAC address" in text_of(asked)
        assert f'action="{ADD}"' in asked.content.decode()
        assert 'name="mac_address" autofocus' in re.sub(
            ' (maxlength|class|aria-\\w+|required|id)(="[^"]*")?', "", asked.content.decode()
        )
        assert typed(asked) == '{"typed": 1}'

    def test_never_overwrites(self, signed_in, config):
        with nothing_changed():
            refused = signed_in.post(ADD, {"mac_address": MAC, "content": '{"typed": 1}'})

        assert "This device has a configuration already, and nothing of it is overwritten" in text_of(refused)
        assert f'<a href="{change_url(config)}">' in refused.content.decode()
        assert typed(refused) == '{"typed": 1}'

    def test_is_not_offered_to_who_may_not_add(self, config):
        editor = session_client(make_user("devices.view_deviceconfig", "devices.change_deviceconfig", is_staff=True))

        assert 'name="_copy"' not in editor.get(change_url(config)).content.decode()
        assert editor.post(change_url(config), {"content": "{}", "_copy": ""}).status_code == 403


def test_enter_saves_whatever_buttons_there_are(signed_in, config):
    page = signed_in.get(change_url(config)).content.decode()

    form = page.partition('id="deviceconfig_form"')[2].partition("</form>")[0]
    buttons = re.findall(r'<(?:input type="submit"|button type="submit")[^>]* name="(\w+)"', form)
    assert buttons[0] == "_save"
    assert page.index('name="_insert"') > page.index('name="_save"')
