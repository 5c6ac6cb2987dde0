"""What Format does to a text: its tokens stay, one by one."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.formatting import WIDTH, format_text
from devices.parsing import InvalidConfig
from iotsupport.tests.support.properties import PATIENT

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+')

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
BLANKS = st.text(" \t\n\r", max_size=5)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A configuration with any blanks between its tokens."""
    source = json.dumps(draw(st.dictionaries(st.text(), VALUES, max_size=5)), ensure_ascii=draw(st.booleans()))
    return "".join(draw(BLANKS) + token for token in TOKEN.findall(source)) + draw(BLANKS)


def test_each_member_has_a_line():
    assert (
        format_text('{"a":1.0,"b":-0e3 ,"\\u0064" : "é\\n" }')
        == '{\n  "a": 1.0,\n  "b": -0e3,\n  "\\u0064": "é\\n"\n}\n'
    )


def test_what_had_one_line_keeps_it_and_what_had_several_has_several():
    text = '{"pins":[1,2 , 3],"wifi":{"ssid":"x",\n"channel":6},"none":[\n],"nothing":{ }}'

    formatted = '{\n  "pins": [1, 2, 3],\n  "wifi": {\n    "ssid": "x",\n    "channel": 6\n  },\n  "none": [],\n'
    assert format_text(text) == formatted + '  "nothing": {}\n}\n'


@pytest.mark.parametrize(("items", "lines"), [(23, 3), (24, 28)])
def test_what_is_too_long_for_a_line_has_several(items: int, lines: int):
    formatted = format_text(f'{{"a":[{",".join(["10"] * items)}]}}')

    assert formatted.count("\n") == lines
    assert all(len(line) <= WIDTH for line in formatted.split("\n"))


@pytest.mark.parametrize("indentation", ["    ", "\t", " "])
def test_it_is_indented_as_it_was(indentation: str):
    text = f'{{\n{indentation}"a": 1,\n"b": {{\n"c": 2}}}}'

    assert (
        format_text(text)
        == f'{{\n{indentation}"a": 1,\n{indentation}"b": {{\n{indentation * 2}"c": 2\n{indentation}}}\n}}\n'
    )


def test_its_lines_end_as_they_did():
    assert format_text('{\r\n"a": 1}\r\n') == '{\r\n  "a": 1\r\n}\r\n'


def test_what_is_no_configuration_is_refused_with_its_line():
    with pytest.raises(InvalidConfig) as refusal:
        format_text('{\n"a": tru\n}')

    assert (refusal.value.line, refusal.value.column) == (2, 6)


def test_what_would_be_too_large_to_be_saved_stays_as_it_is():
    with pytest.raises(InvalidConfig, match="65536 are allowed"):
        format_text('{"a":[' + "[\n]," * 16000 + "1]}")


@settings(PATIENT, max_examples=60)
@given(texts())
def test_no_token_changes_and_the_second_time_nothing_does(text: str):
    formatted = format_text(text)

    assert TOKEN.findall(formatted) == TOKEN.findall(text)
    assert format_text(formatted) == formatted
