"""The parser for configuration text: what it takes, what it refuses, and with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devices.parsing import InvalidConfig, Member, decode_config, parse_config, parse_members
from iotsupport.tests.support.properties import PATIENT


def refusal(text: str) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as caught:
        parse_config(text)
    return caught.value


def nested(levels: int) -> str:
    return '{"a":' * levels + "0" + "}" * levels


class TestWhatIsTaken:
    def test_the_strings_and_booleans_of_an_object(self):
        config = parse_config('{"deviceName": "Lamp", "enableOTA": true, "pins": [], "note": null}')

        assert config == {"deviceName": "Lamp", "enableOTA": True, "pins": [], "note": None}

    def test_an_empty_object(self):
        assert parse_config(" \r\n\t{}\n") == {}

    def test_numbers_in_any_spelling_and_never_as_text(self):
        config = parse_config('{"a": 1.0, "b": 1e3, "c": -0, "d": 12345678901234567890, "e": 1e-999}')

        assert config == {"a": 1.0, "b": 1000.0, "c": 0.0, "d": 12345678901234567890.0, "e": 0.0}

    def test_a_number_of_more_digits_than_python_reads_as_an_integer(self):
        assert parse_config('{"a": 0.' + "1" * 5000 + "}")["a"] == pytest.approx(1 / 9)

    def test_a_character_written_as_a_pair_of_surrogate_escapes(self):
        assert parse_config(r'{"a": "\ud83d\ude00"}') == {"a": "😀"}

    def test_a_backslash_in_front_of_what_only_looks_like_a_surrogate(self):
        assert parse_config(r'{"a": "\\ud800"}') == {"a": r"\ud800"}

    def test_one_key_in_two_objects(self):
        assert parse_config('{"a": {"b": {"a": 1}}, "c": [{"a": 2}, {"a": 3}]}')

    def test_nan_and_brackets_inside_of_text(self):
        assert parse_config('{"a": "NaN [[[ }}} 1e999", "NaN": "\\"a\\":"}')

    def test_one_hundred_levels(self):
        assert parse_config(nested(100))

    def test_as_many_bytes_as_are_allowed(self, settings):
        settings.CONFIG_MAX_BYTES = 12

        assert parse_config('{"a":"€"} ') == {"a": "€"}


class TestWhatIsRefused:
    def test_nothing(self):
        error = refusal(" \n ")

        assert (error.code, error.line, error.column) == ("EMPTY", 2, 2)
        assert str(error) == "Line 2, column 2: nothing is here. Write one JSON object; the smallest is {}."

    @pytest.mark.parametrize("text", ["[1]", '"a"', "5", "null", "NaN", "deviceName: Lamp", "\ufdd0", "'{}'"])
    def test_anything_but_an_object(self, text: str):
        error = refusal(f"\n {text}")

        assert (error.code, error.line, error.column) == ("NOT_AN_OBJECT", 2, 2)
        assert str(error) == "Line 2, column 2: write one JSON object, which begins with { and ends with }."

    def test_a_second_object(self):
        error = refusal('{"a": 1}\n{"b": 2}')

        assert (error.code, error.line, error.column) == ("INVALID_JSON", 2, 1)
        assert str(error) == "Line 2, column 1: the object has ended before. Remove what follows it."

    def test_a_key_twice(self):
        error = refusal('{"a": 1,\n "b": 2,\n  "a": 1}')

        assert (error.code, error.line, error.column) == ("DUPLICATE_KEY", 3, 3)
        assert str(error) == (
            'Line 3, column 3: the key "a" is in this object already. Remove or rename one of the two.'
        )

    def test_a_key_twice_deep_inside(self):
        error = refusal('{"a": [{}, {"b": {"c": [1], "c": 2}}]}')

        assert (error.code, error.line, error.column) == ("DUPLICATE_KEY", 1, 29)

    def test_a_key_twice_in_two_spellings(self):
        error = refusal(r'{"a": 1, "\u0061": 2}')

        assert (error.code, error.line, error.column) == ("DUPLICATE_KEY", 1, 10)
        assert r'the key "\u0061" is in this object already' in str(error)

    def test_a_long_key_twice_in_a_short_sentence(self):
        key = "a" * 1000

        error = refusal(f'{{"{key}": 1, "{key}": 2}}')

        assert len(str(error)) < 150

    @pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
    def test_what_is_no_number(self, word: str):
        error = refusal(f'{{"a": [1, {word}]}}')

        assert (error.code, error.line, error.column) == ("NOT_A_NUMBER", 1, 11)
        assert str(error) == (
            f"Line 1, column 11: {word} is no number in JSON. Write a number, null, or text in double quotes."
        )

    @pytest.mark.parametrize("number", ["1e999", "-1E+999", "1.8e308"])
    def test_a_number_that_overflows(self, number: str):
        error = refusal(f'{{"a": {number}}}')

        assert (error.code, error.line, error.column) == ("NUMBER_OVERFLOW", 1, 7)
        assert str(error) == (
            f"Line 1, column 7: the number {number} is too large: it overflows to infinity. Write a smaller one."
        )

    @pytest.mark.parametrize("digits", [400, 5000])
    def test_an_integer_that_overflows(self, digits: int):
        error = refusal('{"a": %s}' % ("9" * digits))

        assert (error.code, error.line, error.column) == ("NUMBER_OVERFLOW", 1, 7)
        assert len(str(error)) < 150

    @pytest.mark.parametrize(
        ("text", "column", "half"),
        [
            (r'{"a": "b\ud800"}', 9, r"\ud800"),
            (r'{"a": "\uDE00\uD83D"}', 8, r"\uDE00"),
            (r'{"a": "\ud83d\ude00\ud83d"}', 20, r"\ud83d"),
            (r'{"a": "\\\ud83dx"}', 10, r"\ud83d"),
            (r'{"\udc00": 1}', 3, r"\udc00"),
        ],
    )
    def test_half_a_character_as_an_escape(self, text: str, column: int, half: str):
        error = refusal(text)

        assert (error.code, error.line, error.column) == ("LONE_SURROGATE", 1, column)
        assert str(error) == (
            f"Line 1, column {column}: {half} is half a character. Write both of its halves, or the character itself."
        )

    def test_half_a_character_as_such(self):
        error = refusal('{"a":\n"\ud800"}')

        assert (error.code, error.line, error.column) == ("LONE_SURROGATE", 2, 2)
        assert str(error) == (
            "Line 2, column 2: half a character (U+D800) stands here. Remove it, or write the whole character."
        )

    def test_one_hundred_and_one_levels(self):
        error = refusal(nested(101))

        assert (error.code, error.line, error.column) == ("TOO_DEEP", 1, 501)
        assert str(error) == ("Line 1, column 501: brackets are nested more than 100 deep. Make the object flatter.")

    @pytest.mark.parametrize("bracket", ["[", '{"a":', '[{"a":'])
    def test_a_million_brackets(self, settings, bracket: str):
        settings.CONFIG_MAX_BYTES = 10_000_000

        assert refusal('{"a":' + bracket * 1_000_000).code == "TOO_DEEP"

    def test_one_byte_too_many(self, settings):
        settings.CONFIG_MAX_BYTES = 10

        error = refusal('{"a":"€"} ')

        assert (error.code, error.line, error.column) == ("TOO_LARGE", None, None)
        assert str(error) == (
            "The configuration has 12 bytes; 10 are allowed. Shorten it, or raise CONFIG_MAX_BYTES on the server."
        )

    def test_a_byte_order_mark_in_the_text(self):
        error = refusal("\ufeff{}")

        assert (error.code, error.line, error.column) == ("BYTE_ORDER_MARK", 1, 1)

    def test_with_a_percent_sign_in_the_message(self):
        error = refusal('{"%s": 1, "%s": 2}')

        assert error.messages == [str(error)]


class TestBytes:
    def test_are_taken_as_utf_8(self):
        assert decode_config('{"a": "€😀"}'.encode()) == '{"a": "€😀"}'

    @pytest.mark.parametrize("wrong", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xe2\x82"])
    def test_are_refused_where_they_are_not_utf_8(self, wrong: bytes):
        with pytest.raises(InvalidConfig) as caught:
            decode_config('{"€":\n "ä'.encode() + wrong + b'"}')

        error = caught.value
        assert (error.code, error.line, error.column) == ("NOT_UTF8", 2, 4)
        assert str(error) == (
            f"Line 2, column 4: the byte 0x{wrong[0]:02x} is not UTF-8. Save the file with the encoding UTF-8."
        )

    def test_are_refused_with_a_byte_order_mark(self):
        with pytest.raises(InvalidConfig) as caught:
            decode_config(b"\xef\xbb\xbf{}")

        error = caught.value
        assert (error.code, error.line, error.column) == ("BYTE_ORDER_MARK", 1, 1)
        assert str(error) == ("Line 1, column 1: the text begins with a byte order mark. Save it as UTF-8 without one.")


class TestMembers:
    def test_are_what_stands_in_the_text(self):
        content = '{ "z": 1.0,\r\n\t"a": [1e3, "\\u0061"] ,"n":12345678901234567890}'

        members = parse_members(f' {{"content" :\n{content}\n, "allow_overwrite":true, "\\u0063":  null }} ')

        assert members == {
            "content": Member(content, parse_config(content)),
            "allow_overwrite": Member("true", True),
            "c": Member("null", None),
        }

    def test_of_an_empty_object(self):
        assert parse_members(" { } ") == {}

    def test_may_be_one_hundred_levels_each(self):
        members = parse_members(f'{{"content": {nested(100)}}}')

        assert parse_config(members["content"].source)

    def test_are_refused_with_one_hundred_and_one_levels(self):
        with pytest.raises(InvalidConfig) as caught:
            parse_members(f'{{"content": {nested(101)}}}')

        assert caught.value.code == "TOO_DEEP"

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("", "EMPTY"),
            ("[]", "NOT_AN_OBJECT"),
            ('{"content": {}', "INVALID_JSON"),
            ('{"content": {}, "content": {}}', "DUPLICATE_KEY"),
            ('{"content": {"a": 1, "a": 2}}', "DUPLICATE_KEY"),
            ('{"content": {}, "x": NaN}', "NOT_A_NUMBER"),
        ],
    )
    def test_are_refused_in_what_is_no_configuration_either(self, text: str, code: str):
        with pytest.raises(InvalidConfig) as caught:
            parse_members(text)

        assert caught.value.code == code


characters = st.characters(exclude_categories=["Cs"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**300), 10**300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(characters),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(characters), children, max_size=5),
    max_leaves=30,
)
objects = st.dictionaries(st.text(characters), values, max_size=5)
layouts = st.fixed_dictionaries(
    {"indent": st.none() | st.integers(0, 4) | st.just("\t"), "ensure_ascii": st.booleans(), "sort_keys": st.booleans()}
)

# Text that is nearly JSON finds more than text that is not.
snippets = ["{", "}", "[", "]", '"', "\\", ",", ":", "1", "-", "e9", "999", "NaN", "Infinity", "true", '"a"', '{"a":']
snippets += ["\\u", "\\ud800", "\\udc00", "\ud800", "\ufeff", "\n", " ", "\x00", "€"]
garbage = st.text(st.characters()) | st.lists(st.sampled_from(snippets)).map("".join)


def as_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_floats(member) for key, member in value.items()}
    if isinstance(value, list):
        return [as_floats(element) for element in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@PATIENT
@given(objects, layouts)
def test_any_object_that_json_writes_is_read_back(config: dict[str, Any], layout: dict[str, Any]):
    text = json.dumps(config, **layout)

    assert parse_config(text) == as_floats(config)
    assert decode_config(text.encode()) == text


@PATIENT
@given(objects, objects, layouts)
def test_any_member_comes_out_as_it_went_in(content: dict[str, Any], other: dict[str, Any], layout: dict[str, Any]):
    source = json.dumps(content, **layout)

    members = parse_members(f'{{"other": {json.dumps(other)} ,"content":{source}}}')

    assert members == {
        "other": Member(json.dumps(other), as_floats(other)),
        "content": Member(source, parse_config(source)),
    }


@PATIENT
@given(garbage)
def test_any_text_is_an_object_or_refused(text: str):
    try:
        config = parse_config(text)
    except InvalidConfig as error:
        assert error.line is not None and 1 <= error.line <= text.count("\n") + 1
        assert error.column is not None and 1 <= error.column <= len(text) + 1
    else:
        assert isinstance(config, dict)
        json.dumps(config, allow_nan=False, ensure_ascii=False).encode()


@PATIENT
@given(st.binary() | garbage.map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"PK\x03\x04")
def test_any_bytes_are_text_or_refused(data: bytes):
    try:
        text = decode_config(data)
    except InvalidConfig as error:
        assert error.code in {"NOT_UTF8", "BYTE_ORDER_MARK", "COMPRESSED"}
    else:
        assert text.encode() == data


@PATIENT
@given(garbage)
def test_any_text_has_members_or_is_refused(text: str):
    try:
        members = parse_members(text)
    except InvalidConfig:
        return
    assert {name: member.value for name, member in members.items()} == json.loads(text, parse_int=float)
    assert {name: json.loads(member.source, parse_int=float) for name, member in members.items()} == json.loads(
        text, parse_int=float
    )
