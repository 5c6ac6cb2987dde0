"""Each value is found where it stands in the text."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from devices.documents import Node, find, locate, walk

TEXT = '{ "a" : 1.0,\r\n\t"b":{"c\\"":[ true ,[],{} , "}]," ]} , "\\u0064":-1e3}\n'

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def read(text: str, node: Node) -> Any:
    """What it says, put together from the places alone."""
    if node.members is not None:
        return {key: read(text, member.value) for key, member in node.members.items()}
    if node.items is not None:
        return [read(text, item) for item in node.items]
    return json.loads(text[node.start : node.end])


def test_each_value_is_its_source():
    document = locate(TEXT)

    assert document.members is not None
    assert [TEXT[member.start : member.end] for member in document.members.values()] == ['"a"', '"b"', '"\\u0064"']
    sources = [TEXT[node.start : node.end] for node in walk(document)]
    array = '[ true ,[],{} , "}]," ]'
    assert sources == [TEXT.strip(), "1.0", f'{{"c\\"":{array}}}', array, "true", "[]", "{}", '"}],"', "-1e3"]


def test_a_path_leads_to_a_value():
    document = locate(TEXT)

    last = find(document, ["b", 'c"', 3])
    assert last is not None
    assert TEXT[last.start : last.end] == '"}],"'
    assert find(document, ["d"]) is not None
    nowhere: list[list[str | int]] = [["c"], ["b", 0], ["b", 'c"', 4], ["b", 'c"', -1], ["a", "b"]]
    assert [find(document, path) for path in nowhere] == [None] * 5


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_what_is_found_says_what_the_text_says(document: Any, indent: Any, ascii_only: bool):
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)

    assert read(text, locate(text)) == document
