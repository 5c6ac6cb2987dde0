"""The keys that a schema offers beside the editor."""

from __future__ import annotations

import json
from typing import Any

from devices.patching import insert_member
from devices.schemas.keys import MOST_KEYS, Key, keys_of

SCHEMA = """{
  "type": "object",
  "required": ["deviceName", "wifi"],
  "properties": {
    "deviceName": {"type": "string", "title": "Name", "description": "As people call it."},
    "reportSeconds": {"type": "number", "minimum": 1, "default": 60.0},
    "mode": {"enum": ["eco", "full"]},
    "pin": {"$ref": "#/$defs/pin", "title": "Pin of the lamp"},
    "wifi": {
      "type": "object",
      "required": ["ssid", "channel"],
      "properties": {"ssid": {"type": "string"}, "channel": {"type": ["integer", "null"], "minimum": 1}}
    }
  },
  "$defs": {"pin": {"type": "integer", "description": "Not 6 to 11.", "default": 4}}
}"""


def keys(text: str | None = "{}", schema: str = SCHEMA) -> dict[str, Key]:
    return {key.name: key for key in keys_of(schema, text)}


def test_are_in_the_order_of_the_schema_with_those_of_inner_objects():
    assert list(keys()) == ["deviceName", "reportSeconds", "mode", "pin", "wifi", "wifi.ssid", "wifi.channel"]


def test_say_what_the_schema_says():
    found = keys()

    assert (found["deviceName"].title, found["deviceName"].description) == ("Name", "As people call it.")
    assert (found["reportSeconds"].default, found["mode"].default) == ("60.0", "")
    assert [name for name, key in found.items() if key.is_required] == [
        "deviceName",
        "wifi",
        "wifi.ssid",
        "wifi.channel",
    ]


def test_what_stands_beside_a_reference_goes_before_what_it_leads_to():
    pin = keys()["pin"]

    assert (pin.title, pin.description, pin.default) == ("Pin of the lamp", "Not 6 to 11.", "4")


def test_each_has_a_value_to_begin_with():
    sources = {name: key.source for name, key in keys().items()}

    assert sources == {
        "deviceName": '""',
        "reportSeconds": "60.0",
        "mode": '"eco"',
        "pin": "4",
        "wifi": '{"ssid": "", "channel": 1}',
        "wifi.ssid": '""',
        "wifi.channel": "1",
    }


def test_those_of_the_text_are_present_and_those_behind_something_else_cannot_be_inserted():
    found = keys('{"pin": 5, "wifi": null, "mode": {}}')

    assert [name for name, key in found.items() if key.is_present] == ["mode", "pin", "wifi"]
    assert [name for name, key in found.items() if key.is_open] == ["deviceName", "reportSeconds"]


def test_of_a_text_that_is_none_nothing_is_known():
    assert not any(key.is_present for key in keys(None).values())


def test_are_inserted_where_they_belong():
    text = '{\n  "deviceName": "Lamp",\n  "wifi": {\n    "ssid": "x"\n  }\n}\n'
    channel = keys(text)["wifi.channel"]

    inserted = insert_member(text, channel.path, channel.source)

    assert inserted == text.replace('"x"', '"x",\n    "channel": 1')


def test_a_schema_that_leads_to_itself_has_an_end():
    schema: Any = {"properties": {"inner": {"$ref": "#"}, "loop": {"$ref": "#/properties/loop"}}}

    assert list(keys(schema=json.dumps(schema)))[:2] == ["inner", "loop"]
    wide = {"properties": {f"key{number}": {"$ref": "#/$defs/inner"} for number in range(60)}}
    inner: Any = {"properties": {f"inner{number}": {} for number in range(60)}}
    assert len(keys(schema=json.dumps(wide | {"$defs": {"inner": inner}}))) == MOST_KEYS


def test_a_schema_may_say_nothing():
    assert keys(schema='{"properties": {"a": true, "b": {"enum": []}, "c": {"type": []}}}')["a"].source == "null"
    assert keys(schema="{}") == {}
