"""What does not fit a schema: where it stands, and the rule in words."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import documents
from devices.parsing import parse_config
from devices.schemas import SchemaError, check_schema, errors_of, keywords
from devices.schemas.patterns import UnusablePattern, compile_pattern
from devices.schemas.reading import InvalidSchema
from iotsupport.tests.support.properties import PATIENT, examples


def sentences(rule: str, value: str) -> list[str]:
    """What is said of a member ``a`` with this value; its place is left out."""
    schema = f'{{"properties": {{"a": {rule}}}}}'
    return [f"{error.path} {error.message}" for error in errors_of(schema, f'{{"a": {value}}}')]


B, C = '{"properties": {"b": {}}}', '{"properties": {"c": {}}}'
B_AND_C = '{"b": 1, "c": 2}'


class TestTheSentence:
    """One for every keyword of draft 2020-12 that can refuse something."""

    @pytest.mark.parametrize(
        ("rule", "value", "sentence"),
        [
            ('{"type": "integer"}', "1.5", "a must be a whole number; is 1.5"),
            ('{"type": "number"}', '"1"', 'a must be a number; is "1"'),
            ('{"type": "string"}', "12", "a must be text; is 12"),
            ('{"type": "boolean"}', "0", "a must be true or false; is 0"),
            ('{"type": "null"}', "false", "a must be null; is false"),
            ('{"type": "array"}', "{}", "a must be an array; is an object"),
            ('{"type": ["string", "null", "object"]}', "[]", "a must be text, null or an object; is an array"),
            ('{"enum": [1, 2, 4]}', "3", "a must be one of 1, 2, 4; is 3"),
            ('{"enum": ["on", null, true]}', '"of"', 'a must be one of "on", null, true; is "of"'),
            ('{"const": "on"}', '"off"', 'a must be "on"; is "off"'),
            ('{"const": {"b": 1}}', "1", "a must be a certain object; is 1"),
            ('{"minimum": 1.50}', "1.49", "a must be at least 1.50; is 1.49"),
            ('{"maximum": 3}', "3.01", "a must be at most 3; is 3.01"),
            ('{"exclusiveMinimum": 0}', "0", "a must be more than 0; is 0"),
            ('{"exclusiveMaximum": 10}', "1e1", "a must be less than 10; is 1e1"),
            ('{"multipleOf": 0.1}', "0.35", "a must be a multiple of 0.1; is 0.35"),
            ('{"maximum": 5}', "123456789012345678901", "a must be at most 5; is 123456789012345678901"),
            ('{"minLength": 3}', '"é"', "a must have at least 3 characters; has 1"),
            ('{"maxLength": 1}', '"abc"', "a must have at most 1 character; has 3"),
            ('{"pattern": "^[a-z]+$"}', '"A1"', 'a must match the pattern ^[a-z]+$; is "A1"'),
            ('{"minItems": 2}', "[1]", "a must have at least 2 items; has 1"),
            ('{"maxItems": 2}', "[1, 2, 3]", "a must have at most 2 items; has 3"),
            ('{"uniqueItems": true}', "[1, 2, 1.0]", "a[2] is the same as item [0]; each must be another"),
            ('{"items": {"type": "string"}}', '["x", 5]', "a[1] must be text; is 5"),
            ('{"prefixItems": [{"const": 1}]}', "[2]", "a[0] must be 1; is 2"),
            ('{"prefixItems": [true], "items": false}', "[1, 2]", "a[1] may not be there"),
            (
                '{"prefixItems": [true], "unevaluatedItems": false}',
                "[1, 2]",
                "a[1] is one item more than the type knows",
            ),
            ('{"contains": {"const": 1}}', "[2]", "a must have at least 1 item of a certain kind; has none"),
            ('{"contains": {"const": 1}, "minContains": 2}', "[1]", "a must have at least 2 items of a certain kind"),
            ('{"contains": {"const": 1}, "maxContains": 1}', "[1, 1]", "a must have at most 1 item of a certain kind"),
            ('{"required": ["b"]}', "{}", "a.b is required and missing"),
            ('{"dependentRequired": {"b": ["c"]}}', '{"b": 1}', "a.c is required beside b, and missing"),
            ('{"dependentSchemas": {"b": {"required": ["c"]}}}', '{"b": 1}', "a.c is required and missing"),
            ('{"minProperties": 1}', "{}", "a must have at least 1 member; has 0"),
            ('{"maxProperties": 1}', '{"b": 1, "c": 2}', "a must have at most 1 member; has 2"),
            ('{"additionalProperties": false}', '{"mqtt": 1}', "a.mqtt is no member that the type knows"),
            (
                '{"properties": {"enableOTA": {}}, "additionalProperties": false}',
                '{"enabelOTA": 1}',
                "a.enabelOTA is no member that the type knows; did you mean enableOTA",
            ),
            ('{"additionalProperties": {"type": "null"}}', '{"b c": 1}', 'a["b c"] must be null; is 1'),
            ('{"unevaluatedProperties": false}', '{"b": 1}', "a.b is no member that the type knows"),
            ('{"properties": {"b": false}}', '{"b": 1}', "a.b may not be there"),
            ('{"patternProperties": {"^p": {"type": "null"}}}', '{"pin": 1}', "a.pin must be null; is 1"),
            (
                '{"propertyNames": {"pattern": "^[a-z]+$"}}',
                '{"B": 1}',
                "a.B is no name that a member may have here: it must match the pattern ^[a-z]+$",
            ),
            ('{"allOf": [{"minimum": 3}]}', "2", "a must be at least 3; is 2"),
            (
                '{"anyOf": [{"type": "string"}, {"required": ["b"]}]}',
                "{}",
                "a fits none of the 2 forms that it may have; nearest: b is required and missing",
            ),
            (
                '{"oneOf": [{"type": "string"}, {"maximum": 3}]}',
                "4",
                "a fits none of the 2 forms that it may have; nearest: it must be at most 3; is 4",
            ),
            ('{"oneOf": [{}, {"type": "null"}, {}]}', "1", "a must fit one form of 3; fits the forms 1 and 3"),
            ('{"not": {"type": "string"}}', '"x"', 'a fits what it must not be; is "x"'),
            ('{"if": {"type": "string"}, "then": {"minLength": 1}}', '""', "a must have at least 1 character; has 0"),
            ('{"if": {"type": "string"}, "else": {"const": 1}}', "2", "a must be 1; is 2"),
        ],
    )
    def test_says_the_rule_and_what_is_there(self, rule: str, value: str, sentence: str) -> None:
        assert sentences(rule, value) == [sentence]

    @pytest.mark.parametrize(
        ("rule", "value"),
        [
            ('{"type": "integer"}', "1.0"),
            ('{"type": "integer"}', "1e3"),
            ('{"type": "integer"}', "123456789012345678901234567890"),
            ('{"multipleOf": 0.1}', "0.3"),
            ('{"multipleOf": 0.01}', "1e300"),
            ('{"enum": [1]}', "1.0"),
            ('{"const": 0}', "-0.0"),
            ('{"uniqueItems": true}', "[1, true, [1], [true], {}, []]"),
            ('{"minLength": 2.0, "maxLength": 2}', '"😀é"'),
            ('{"format": "email"}', '"none"'),
            ('{"pattern": "b+"}', '"abbc"'),
            (f'{{"properties": {{"b": {{}}}}, "allOf": [{C}], "unevaluatedProperties": false}}', B_AND_C),
            (f'{{"anyOf": [{B}, {{}}], "unevaluatedProperties": {{"type": "integer"}}}}', B_AND_C),
            (f'{{"if": {B}, "then": {C}, "unevaluatedProperties": false}}', B_AND_C),
            ('{"dependentSchemas": {"b": {"properties": {"b": {}}}}, "unevaluatedProperties": false}', '{"b": 1}'),
            ('{"contains": {"const": 1}, "prefixItems": [{}], "unevaluatedItems": false}', "[0, 1, 1]"),
        ],
    )  # fmt: skip
    def test_takes_what_the_standard_takes(self, rule: str, value: str) -> None:
        assert sentences(rule, value) == []

    def test_names_line_and_column_of_all_that_is_wrong_in_the_order_of_the_text(self) -> None:
        schema = """{"additionalProperties": false, "required": ["name"], "properties": {
            "sensors": {"items": {"properties": {"pin": {"enum": [1, 2]}}}}, "name": {}}}"""
        text = '{\n  "sensors": [{"pin": 1},\n    {"pin": 3}],\n\t"mqtt": 1\n}'

        assert errors_of(schema, text) == [
            SchemaError(1, 1, "name", "is required and missing"),
            SchemaError(3, 13, "sensors[1].pin", "must be one of 1, 2; is 3"),
            SchemaError(4, 2, "mqtt", "is no member that the type knows"),
        ]

    def test_tells_twenty_at_most(self) -> None:
        assert (
            len(errors_of('{"additionalProperties": false}', json.dumps(dict.fromkeys("abcdefghijklmnopqrstuvwxyz"))))
            == 20
        )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def places_of_numbers(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        return [place for name, each in value.items() for place in places_of_numbers(each, (*path, name))]
    if isinstance(value, list):
        return [place for index, each in enumerate(value) for place in places_of_numbers(each, (*path, index))]
    return [path] if isinstance(value, float) else []


@settings(PATIENT, max_examples=examples(40))
@given(st.dictionaries(st.text(max_size=5), values, max_size=5), st.sampled_from([None, 2]))
def test_each_error_stands_where_its_value_stands(value: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "replace").decode()
    parsed = parse_config(text)
    nothing_but_numbers_is_wrong = (
        '{"$ref": "#/$defs/x", "$defs": {"x": {"type": ["object", "array", "string", "boolean", "null"],'
        ' "items": {"$ref": "#/$defs/x"}, "additionalProperties": {"$ref": "#/$defs/x"}}}}'
    )

    errors = errors_of(nothing_but_numbers_is_wrong, text)

    places = documents.locate(text)
    nodes = [documents.find(places, path) for path in places_of_numbers(parsed)]
    starts = {node.start for node in nodes if node}
    lines = text.split("\n")
    found = {sum(len(line) + 1 for line in lines[: error.line - 1]) + error.column - 1 for error in errors}
    assert found <= starts
    assert len(errors) == min(20, len(starts))


class TestASchema:
    @pytest.mark.parametrize(
        ("schema", "sentence"),
        [
            ("[]", "Line 1, column 1: write one JSON object"),
            ('{"type": "objekt"}', "Line 1, column 10: type fits none of the 2 forms that it may have"),
            ('{"minimum": "3"}', 'Line 1, column 13: minimum must be a number; is "3".'),
            ('{"items": [{}]}', "Line 1, column 11: items must be an object or true or false; is an array."),
            ('{\n "$schema": "http://json-schema.org/draft-07/schema#"}', "Line 2, column 13: this is written for"),
            ('{"$ref": "https://example.com/a.json"}', "https://example.com/a.json is outside of this schema."),
            ('{"properties": {"a": {"$ref": "file:///etc/passwd"}}}', "file:///etc/passwd is outside of this schema."),
            ('{"properties": {"a": {"$ref": "other.json#/a"}}}', "other.json#/a is outside of this schema."),
            ('{"x": {"$ref": "//example.com"}, "$ref": "#/x"}', "//example.com is outside of this schema."),
            ('{"x": {"$id": "https://example.com/b"}, "$ref": "#/x"}', "only the whole schema may have a $id."),
            ('{"x": {"$schema": "https://json-schema.org/draft/2020-12/schema"}, "$ref": "#/x"}', "have a $schema."),
            ('{"x": {"required": 5}, "$ref": "#/x"}', "x.required must be an array; is 5."),
            ('{"$ref": "#/$defs/none"}', "#/$defs/none leads nowhere in this schema."),
            ('{"$ref": "#none"}', "#none leads nowhere in this schema."),
            ('{"$dynamicRef": "#a"}', "$dynamicRef is not offered."),
            ('{"$ref": "#"}', "this leads back to itself without an end."),
            ('{"allOf": [{"anyOf": [{"$ref": "#"}]}]}', "this leads back to itself without an end."),
            ('{"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}}', "leads back to itself"),
            ('{"pattern": "(?=a)"}', "the pattern (?=a) looks around by (?=…), which is not offered."),
            ('{"patternProperties": {"(a)\\\\1": {}}}', "refers back by \\1, which is not offered."),
            (f'{{"description": "{"x" * 66000}"}}', "65536 are allowed"),
        ],
    )  # fmt: skip
    def test_is_refused_with_a_sentence(self, schema: str, sentence: str) -> None:
        with pytest.raises(Exception) as refusal:  # noqa: PT011, B017
            check_schema(schema)

        assert sentence in " ".join(refusal.value.messages)  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        "schema",
        [
            '{"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/gate"}',
            '{"properties": {"$ref": {"type": "string"}, "$schema": {}, "$id": {}, "pattern": {}}}',
            '{"const": {"$ref": "https://example.com"}, "default": {"pattern": "(?=a)"}}',
            '{"properties": {"next": {"$ref": "#"}}, "items": {"$ref": "#a"}, "$defs": {"a": {"$anchor": "a"}}}',
            '{"minimum": 1.5, "multipleOf": 0.1, "minLength": 2.0}',
            '{"unknown": {"anything": "(?=a)"}}',
        ],
    )
    def test_may_be(self, schema: str) -> None:
        check_schema(schema)

    def test_refers_to_its_own_parts(self) -> None:
        schema = (
            '{"properties": {"a": {"$ref": "#/$defs/pin"}, "b": {"$ref": "#pin"}},'
            ' "$defs": {"pin": {"$anchor": "pin", "type": "integer"}}}'
        )

        assert [error.path for error in errors_of(schema, '{"a": "x", "b": "y"}')] == ["a", "b"]


def deep_product(keyword: str) -> str:
    parts: dict[str, Any] = {"d0": {"type": "integer"}}
    for depth in range(1, 25):
        parts[f"d{depth}"] = {keyword: [{"$ref": f"#/$defs/d{depth - 1}"}] * 3}
    return json.dumps({"additionalProperties": {"$ref": "#/$defs/d24"}, "$defs": parts})


SECONDS = 0.2
TOO_LONG = "takes longer than a second to be checked"
NESTED = '{"a":' * 90 + "1" + "}" * 90


class TestAHostileSchema:
    """Whatever it is, a check ends by itself, and other threads go on meanwhile."""

    @pytest.fixture(autouse=True)
    def shorter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keywords, "MOST_SECONDS", SECONDS)

    @pytest.mark.parametrize(
        ("schema", "text"),
        [
            (deep_product("anyOf"), '{"a": "x"}'),
            (deep_product("allOf"), '{"a": 1}'),
            (deep_product("oneOf"), '{"a": "x"}'),
            ('{"additionalProperties": {"$ref": "#"}, "anyOf": [{"additionalProperties": {"$ref": "#"}}, {}]}', NESTED),
            ('{"additionalProperties": {"multipleOf": 1e-999999999}}', '{"a": 1e300}'),
            ('{"additionalProperties": {"pattern": "^([a-z]{0,9}[0-9]{0,9}){90}$"}}', json.dumps({"a": "a1" * 30000})),
            ('{"unevaluatedProperties": false, "anyOf": [{"additionalProperties": {"$ref": "#"}}]}', NESTED),
        ],
    )
    def test_is_not_checked_for_longer(self, schema: str, text: str) -> None:
        start = time.thread_time()

        errors = errors_of(schema, text)

        assert TOO_LONG in errors[0].message
        assert errors[0].is_too_much_work
        assert time.thread_time() - start < SECONDS + 1

    @pytest.mark.parametrize(
        ("schema", "text"),
        [
            ('{"additionalProperties": {"pattern": "^(a+)+$"}}', json.dumps({"a": "a" * 60000 + "!"})),
            ('{"additionalProperties": {"uniqueItems": true}}', json.dumps({"a": [{"x": i} for i in range(6000)]})),
            ('{"additionalProperties": {"multipleOf": 0.1}}', f'{{"a": {"7" * 60000}}}'),
            ('{"additionalProperties": {"maximum": 1}}', f'{{"a": {"7" * 300}}}'),
            ('{"additionalProperties": {"$ref": "#"}}', NESTED),
        ],
    )
    def test_or_is_checked_quickly(self, schema: str, text: str) -> None:
        start = time.thread_time()

        errors = errors_of(schema, text)

        assert not any(error.is_too_much_work for error in errors)
        assert time.thread_time() - start < 1


class TestAPattern:
    @pytest.mark.parametrize(
        ("pattern", "text", "is_found"),
        [
            ("^a$", "a\n", False),
            ("b", "abc", True),
            (r"^\d+$", "١", False),
            (r"^\w$", "é", False),
            (r"^\s$", "\u00a0", True),
            (r"^\S$", "\ufeff", False),
            (r"^\u00e9\x41\cA\t$", "éA\x01\t", True),
            (r"^\ud83d\ude00\u{1F600}$", "😀😀", True),
            ("^.$", "\u2028", False),
            ("^.$", "😀", True),
            ("[a-z&&b]", "&", True),
            ("[[a]", "[", True),
            (r"^[\d-x]$", "-", True),
            (r"^[a\-z]$", "-", True),
            (r"^[^\]]$", "]", False),
            ("^[^]$", "\n", True),
            ("[]", "", False),
            ("^a{,5}$", "a{,5}", True),
            ("^a{2}$", "aa", True),
            ("^(?<name>a|b)+?$", "ab", True),
            (r"^\p{Lu}$", "É", True),
            (r"\bon\b", "turn on now", True),
            ("a]b}", "a]b}", True),
            (r"^\/\.\$$", "/.$", True),
        ],
    )
    def test_means_what_ecma_262_says(self, pattern: str, text: str, is_found: bool) -> None:
        assert compile_pattern(pattern).is_in(text) is is_found

    @pytest.mark.parametrize(
        ("pattern", "reason"),
        [
            ("a**", "has * behind nothing"),
            ("(", "is never closed"),
            (")", "closes nothing"),
            ("[a", "is never closed"),
            ("[z-a]", "wrong way round"),
            ("a{3,1}", "wrong way round"),
            (r"\y", "is unknown"),
            (r"\ud800", "no character"),
            (r"\B", "is unknown"),
            ("(?<=a)b", "looks around"),
            (r"(?<a>b)\k<a>", "refers back"),
            ("a{1000}{1000}", "behind nothing"),
            ("((a{100}){100}){100}", "repeats too much"),
            (r"\p{Nonsense}", "cannot be read"),
            ("a" * 1001, "1000 are allowed"),
        ],
    )
    def test_is_refused_with_a_reason(self, pattern: str, reason: str) -> None:
        with pytest.raises(UnusablePattern, match=re.escape(reason)):
            compile_pattern(pattern)


def test_a_schema_that_cannot_be_is_no_schema_to_check_by() -> None:
    with pytest.raises(InvalidSchema):
        errors_of('{"type": 5}', "{}")
