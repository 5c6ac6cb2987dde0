"""A patch changes what it names, where it stands; everything else keeps its bytes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.documents import Node, find, locate
from devices.parsing import InvalidConfig, parse_config
from devices.patching import Patch, insert_member, merge_patch
from devices.tests.test_documents import VALUES
from iotsupport.tests.support.properties import PATIENT, examples


def patched(text: str, patch: str) -> str:
    return merge_patch(text, Patch(patch))


INDENTED = '{\n  "a": 1.0,\n  "b": {\n    "c": "\\u0041"\n  },\n  "d": [1,  2]\n}\n'

CASES = {
    "a value is replaced where it stands": (INDENTED, '{"a": 2}', INDENTED.replace("1.0", "2")),
    "what is the same keeps its spelling": (INDENTED, '{"b": {"c": "A"}, "d": [1, 2]}', INDENTED),
    "a number is written as it was typed": ('{"pin": 0.0, "n": 7}', '{"pin": 0, "n": 1e3}', '{"pin": 0, "n": 1e3}'),
    "a large number keeps its digits": ('{"n": 1}', f'{{"n": {10**40 + 1}}}', f'{{"n": {10**40 + 1}}}'),
    "a member goes with its comma and line": (
        INDENTED,
        '{"b": null}',
        '{\n  "a": 1.0,\n  "d": [1,  2]\n}\n',
    ),
    "the first goes": (INDENTED, '{"a": null}', INDENTED.replace('"a": 1.0,\n  ', "")),
    "the last goes": (INDENTED, '{"d": null}', INDENTED.replace(',\n  "d": [1,  2]', "")),
    "the first two go": (INDENTED, '{"a": null, "b": null}', '{\n  "d": [1,  2]\n}\n'),
    "the last two go": (INDENTED, '{"b": null, "d": null}', '{\n  "a": 1.0\n}\n'),
    "all go": (INDENTED, '{"a": null, "b": null, "d": null}', "{}\n"),
    "all go, and another comes": (INDENTED, '{"a": null, "b": null, "d": null, "e": 1}', '{\n  "e": 1\n}\n'),
    "the last goes, and others come": (
        INDENTED,
        '{"d": null, "z": 1, "e": 2}',
        INDENTED.replace('"d": [1,  2]', '"z": 1,\n  "e": 2'),
    ),
    "what is not there cannot go": (INDENTED, '{"x": null, "b": {"y": null}}', INDENTED),
    "one comes on a line of its own": (INDENTED, '{"e": true}', INDENTED.replace("2]\n", '2],\n  "e": true\n')),
    "one comes into an inner object": (
        INDENTED,
        '{"b": {"e": true}}',
        INDENTED.replace('41"\n', '41",\n    "e": true\n'),
    ),
    "one line stays one line": ('{"a": 1, "b": 2}', '{"c": 3}', '{"a": 1, "b": 2, "c": 3}'),
    "without blanks": ('{"a":1,"b":2}', '{"c": 3}', '{"a":1,"b":2,"c":3}'),
    "one member, without blanks": ('{"a":1}', '{"c": 3}', '{"a":1,"c":3}'),
    "one member, with blanks": ('{ "a" : 1 }', '{"c": 3}', '{ "a" : 1, "c" : 3 }'),
    "one member on its line": ('{\n\t"a":1\n}', '{"c": 3}', '{\n\t"a":1,\n\t"c":3\n}'),
    "commas that lead": ('{ "a": 1\n, "b": 2\n}', '{"c": 3}', '{ "a": 1\n, "b": 2\n, "c": 3\n}'),
    "no empty line is added": ('{\n "a": 1,\n\n "b": 2\n}', '{"c": 3}', '{\n "a": 1,\n\n "b": 2,\n "c": 3\n}'),
    "a key that is typed with escapes": (r'{"p\u0069n": 1}', '{"pin": 2}', r'{"p\u0069n": 2}'),
    "a key with a quote": (r'{"\"": 1}', r'{"\"": null}', "{}"),
    "nothing of nothing": ("{}", "{}", "{}"),
    "the first of an empty object": ("{}", '{"a": 1, "b": 2}', '{"a": 1, "b": 2}'),
    "of an empty one with a line": ("{\n}", '{"a": 1}', '{\n  "a": 1\n}'),
    "an empty one in lines": (
        '{\n    "a": {},\n    "b": [{}]\n}',
        '{"a": {"c": 1, "d": 2}}',
        '{\n    "a": {\n        "c": 1,\n        "d": 2\n    },\n    "b": [{}]\n}',
    ),
    "an empty one on a line": ('{\n  "a": {"b": {}}\n}', '{"a": {"b": {"c": 1}}}', '{\n  "a": {"b": {"c": 1}}\n}'),
    "colons on lines of their own": ('{"a"\n: 1}', '{"b": 2}', '{"a"\n: 1, "b": 2}'),
    "objects are made": ('{"a": 1}', '{"b": {"c": {"d": null, "e": 1}}}', '{"a": 1, "b": {"c": {"e": 1}}}'),
    "objects take the place of a value": ('{"a": 1}', '{"a": {"c": null}}', '{"a": {}}'),
    "a value takes the place of an object": ('{"a": {"b": 1}}', '{"a": 2}', '{"a": 2}'),
    "null in an array stays": ('{"a": 1}', '{"a": [null, {"b": null}]}', '{"a": [null, {"b": null}]}'),
    "what is alike in an array": ('{"a": [{"x": 1, "y": 2}]}', '{"a": [{"y":2,"x":1}]}', '{"a": [{"x": 1, "y": 2}]}'),
    "what is not alike in an array": ('{"a": [{"x": 1}]}', '{"a": [{"y":1}]}', '{"a": [{"y":1}]}'),
    "lines are indented as those around them": (
        '{\r\n\t"a": 1\r\n}',
        '{\n  "b": {\n    "c": [\n      1, 2,\n\n      3\n    ]\n  }\n}',
        '{\r\n\t"a": 1,\r\n\t"b": {\r\n\t\t"c": [\r\n\t\t\t1, 2,\r\n\r\n\t\t\t3\r\n\t\t]\r\n\t}\r\n}',
    ),
    "lines that replace a value": (
        '{\n    "a": 1,\n    "b": 2\n}',
        '{"a": {\n  "}{": [1,\n 2]}}',
        '{\n    "a": {\n        "}{": [1,\n            2]},\n    "b": 2\n}',
    ),
    "many lines become one in one": (
        '{"a": 1}',
        '{\n  "a": [\n    1,\n    2\n  ],\n  "b": {\n    "c":\n 3\n  }\n}',
        '{"a": [1, 2], "b": {"c": 3}}',
    ),
}


@pytest.mark.parametrize(("text", "patch", "expected"), CASES.values(), ids=CASES)
def test_only_what_the_patch_names_is_changed(text: str, patch: str, expected: str):
    assert patched(text, patch) == expected


@pytest.mark.parametrize("patch", ["[]", "", '{"a": 1, "a": 2}', '{"a": NaN}'])
def test_a_patch_is_one_object_as_a_configuration_is(patch: str):
    with pytest.raises(InvalidConfig):
        Patch(patch)


def merged(target: Any, patch: Any) -> Any:
    """MergePatch of RFC 7396, section 2, word by word."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def untouched(text: str, node: Node, patch: Any) -> dict[tuple[str, ...], str]:
    """The key and value, as they are typed, of each member that the patch does not name."""
    found: dict[tuple[str, ...], str] = {}
    for key, member in (node.members or {}).items():
        if key not in patch:
            found[(key,)] = text[member.start : member.end] + text[member.value.start : member.value.end]
        elif isinstance(patch[key], dict):
            inner = untouched(text, member.value, patch[key])
            found |= {(key, *path): source for path, source in inner.items()}
    return found


# Few keys, so that patch and text often speak of the same member.
KEYS = st.sampled_from(["a", "b", "ü", '"', ""])
LEAVES = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(-1e9, 1e9) | st.text(max_size=3)
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)),
    max_size=5,
)
LAYOUTS = st.tuples(
    st.sampled_from([None, 0, 2, "\t"]),
    st.booleans(),
    st.sampled_from([(",", ":"), (" , ", " : "), (", ", ":  ")]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)


def written(document: Any, layout: Any) -> str:
    indent, ascii_only, separators, line_end = layout
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only, separators=separators)
    return text.replace("\n", line_end)


@given(DOCUMENTS, LAYOUTS, DOCUMENTS, LAYOUTS)
@settings(PATIENT, max_examples=examples(60))
def test_the_result_is_that_of_the_rfc_and_what_is_not_named_keeps_its_bytes(
    document: Any, layout: Any, patch: Any, patch_layout: Any
):
    text, source = written(document, layout), written(patch, patch_layout)

    result = patched(text, source)

    assert parse_config(result) == merged(parse_config(text), parse_config(source))
    kept = untouched(text, locate(text), patch)
    assert kept.items() <= untouched(result, locate(result), patch).items()
    assert patched(result, source) == result
    assert patched(text, written(merged({}, document), patch_layout)) == text


@given(DOCUMENTS, LAYOUTS, st.lists(KEYS, min_size=1, max_size=3), VALUES)
@settings(PATIENT, max_examples=examples(40))
def test_what_is_inserted_can_be_read_and_moves_nothing(document: Any, layout: Any, path: list[str], value: Any):
    text, source = written(document, layout), json.dumps(value)
    is_there = find(locate(text), path) is not None

    try:
        result = insert_member(text, path, source)
    except ValueError:  # something else is in the way
        assert not is_there
        return

    node = find(locate(result), path)
    assert node is not None
    assert result == text if is_there else json.loads(result[node.start : node.end]) == value
    without = json.dumps({path[0]: None})
    assert patched(result, without) == patched(text, without)


def test_a_member_is_inserted_into_an_item_of_an_array():
    text = '{\n  "sensors": [\n    {\n      "pin": 1\n    }\n  ]\n}'

    inserted = insert_member(text, ["sensors", 0, "unit"], '"°C"')

    assert inserted == text.replace("1\n", '1,\n      "unit": "°C"\n')


@pytest.mark.parametrize("path", [["sensors", 1, "pin"], ["sensors", "pin"], ["sensors", 0, "pin", "x"], [0]])
def test_nothing_is_inserted_where_no_object_is(path: list[str | int]):
    with pytest.raises(ValueError, match="Nothing can be inserted"):
        insert_member('{"sensors": [{"pin": 1}]}', path, "0")


def test_a_patch_of_a_kilobyte_costs_little():
    text = json.dumps({f"key{number}": {"pin": number, "name": "x" * 20} for number in range(18)}, indent=2)
    patch = Patch('{"key7": {"pin": 99, "more": [1, 2]}, "key3": null, "new": "value"}')
    assert 1000 < len(text) < 1400

    started = time.process_time()
    for _ in range(50):
        merge_patch(text, patch)

    assert (time.process_time() - started) / 50 < 0.001
