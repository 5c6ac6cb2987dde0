"""What is said of text that is nearly JSON: where, what stands there, and what to write instead."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.mistakes import A_VALUE, find_mistake
from devices.parsing import InvalidConfig, parse_config
from iotsupport.tests.support.properties import PATIENT


def refusal(text: str) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as caught:
        parse_config(text)
    return caught.value


def assert_refused(text: str, place: tuple[int, int], sentence: str) -> None:
    """Of what is no JSON, the same is said on every version of Python."""
    error = refusal(text)

    assert (error.code, error.line, error.column) == ("INVALID_JSON", *place)
    assert str(error).startswith(f"Line {place[0]}, column {place[1]}: {sentence}")


@pytest.mark.parametrize(
    ("text", "place", "sentence"),
    [
        ('{"a": 1\n "b": 2}', (2, 2), "a comma or a closing bracket is missing here."),
        ('{"a" 1}', (1, 6), "a colon is missing here, between the key and its value."),
        ('{"a" = 1}', (1, 6), "= stands here instead of a colon. Write : between the key and its value."),
        ('{"a": }', (1, 7), f"a value is missing here. {A_VALUE}"),
        ('{"a": *}', (1, 7), f"* stands here, where a value is missing. {A_VALUE}"),
        ('{"a": 1; "b": 2}', (1, 8), "; stands here instead of a comma. Write ,"),
        (
            '{"a": ["b": 1]}',
            (1, 11),
            "a colon stands here, but no key before it. Keys stand in {…}, and in double quotes.",
        ),
        (
            '{"a": "a "b" c"}',
            (1, 11),
            r"the text ends before this. Write a quote inside of text as \", or add the comma that is missing.",
        ),
        ("{[]: 1}", (1, 2), 'a key in "double quotes" is missing here.'),
        ('{"a": "b}', (1, 7), "this text is never closed. Add the double quote at its end."),
        ('{"a": "b\\', (1, 7), "this text is never closed. Add the double quote at its end."),
        ('{"a": "\tb"}', (1, 8), r"a tab stands in this text. Write it as \t."),
        (
            '{\n  "a": "b,\n  "c": 1}',
            (2, 11),
            "the line ends here, and the text that begins in column 8 is not closed."
            r" Add the double quote, or write a line break inside of text as \n.",
        ),
        (
            '{"a": "b\x01"}',
            (1, 9),
            r"a control character (U+0001) stands in this text. Remove it, or write \u0001.",
        ),
        (r'{"a": "\x41"}', (1, 8), r"the escape \x is unknown to JSON. Write a backslash itself as \\."),
        (r'{"a": "C:\u12"}', (1, 10), r"four hexadecimal digits must follow \u. Write a backslash itself as \\."),
        ('{"a": 1', (1, 8), "everything ends here, but the { in line 1, column 1, is still open. Add }."),
        ('{"a": [1}', (1, 9), "} closes nothing here: the [ in line 1, column 7, is still open. Add ]."),
        ('{"a": 1}}', (1, 9), "the object has ended before. Remove what follows it."),
    ],
)
def test_wrong_syntax(text: str, place: tuple[int, int], sentence: str):
    assert_refused(text, place, sentence)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ('{"a": 1} // end', 10),
        ("// first\n{}", 1),
        ('{"a": 1, /* one */ "b": 2}', 10),
        ('{"a" # key\n: 1}', 6),
        ('{"a": <!-- one --> 1}', 7),
        ('{"a": "https://x", // one\n}', 20),
    ],
)
def test_a_comment(text: str, column: int):
    assert_refused(text, (1, column), "a comment stands here, and JSON has none. Remove it.")


@pytest.mark.parametrize(
    ("text", "column", "quote"),
    [
        ("{“a”: 1}", 2, "“ (U+201C)"),
        ('{"a": „b“}', 7, "„ (U+201E)"),
        ("{'a': 1}", 2, "'"),
        ("{\"a\": 'b'}", 7, "'"),
        ('{"a": «b»}', 7, "« (U+00AB)"),
        ('{"a": `b`}', 7, "` (U+0060)"),
        ('{"a”: 1}', 2, None),
    ],
)
def test_a_quote_of_another_kind(text: str, column: int, quote: str | None):
    # One at the end alone is part of the text.
    sentence = f'{quote} is no quote in JSON. Write " at both ends of the text.' if quote else "this text is never"
    assert_refused(text, (1, column), sentence)


@pytest.mark.parametrize(
    ("text", "column", "name"),
    [
        ('{"a":\u00a01}', 6, "NO-BREAK SPACE (U+00A0)"),
        ('\u00a0{"a": 1}', 1, "NO-BREAK SPACE (U+00A0)"),
        ('{"a": 1\u200b}', 8, "ZERO WIDTH SPACE (U+200B)"),
        ('{"a": 1}\u2060', 9, "WORD JOINER (U+2060)"),
        ('{"a": 1,\ufeff "b": 2}', 9, "ZERO WIDTH NO-BREAK SPACE (U+FEFF)"),
        ('{\u2028"a": 1}', 2, "LINE SEPARATOR (U+2028)"),
        ('{"a":\x0b1}', 6, "a control character (U+000B)"),
        ("\x00{}", 1, "a control character (U+0000)"),
    ],
)
def test_what_nobody_sees(text: str, column: int, name: str):
    sentence = f"{name} stands here, though nothing is to be seen. Remove it, or write a blank."
    assert_refused(text, (1, column), sentence)


@pytest.mark.parametrize(
    ("text", "column", "sentence"),
    [
        ('{"a"：1}', 5, "FULLWIDTH COLON (U+FF1A) only looks like : here. Write : instead."),
        ('{"a": 1，"b": 2}', 8, "FULLWIDTH COMMA (U+FF0C) only looks like , here. Write , instead."),
        ('｛"a": 1}', 1, "FULLWIDTH LEFT CURLY BRACKET (U+FF5B) only looks like { here. Write { instead."),
        ('{"a": −1}', 7, f"MINUS SIGN (U+2212) stands here, where a value is missing. {A_VALUE}"),
    ],
)
def test_what_only_looks_like_a_sign(text: str, column: int, sentence: str):
    assert_refused(text, (1, column), sentence)


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ('{"a": 1,}', (1, 8), "member"),
        ('{"a": [1, 2, ]}', (1, 12), "value"),
        ('{\n  "a": {"b": 1},\n}', (2, 16), "member"),
    ],
)
def test_a_comma_behind_the_last(text: str, place: tuple[int, int], what: str):
    assert_refused(text, place, f"no comma may stand behind the last {what}. Remove it.")


@pytest.mark.parametrize(("text", "column"), [('{"a": [,1]}', 8), ('{"a": [1,,2]}', 10), ('{,"a": 1}', 2)])
def test_a_comma_behind_nothing(text: str, column: int):
    assert_refused(text, (1, column), "a comma stands here, and nothing before it. Remove it.")


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        ("0x1F", "0x1F is no number in JSON: it has decimal ones only. Write 31."),
        ("-0b101", "-0b101 is no number in JSON: it has decimal ones only. Write -5."),
        ("0o17", "0o17 is no number in JSON: it has decimal ones only. Write 15."),
        ("007", "007 is no number in JSON: none begins with 0 and another digit. Write 7."),
        ("-01.5", "-01.5 is no number in JSON: none begins with 0 and another digit. Write -1.5."),
        (".5", ".5 is no number in JSON: a digit must stand before the point. Write 0.5."),
        ("-.5e3", "-.5e3 is no number in JSON: a digit must stand before the point. Write -0.5e3."),
        ("1.", "1. is no number in JSON: a digit must stand behind the point. Write 1.0."),
        ("1.e5", "1.e5 is no number in JSON: a digit must stand behind the point. Write 1.0e5."),
        ("+1", "+1 is no number in JSON: none begins with +. Write 1."),
        ("1_000", "1_000 is no number in JSON: no _ stands between digits. Write 1000."),
        ("192.168.1.10", "192.168.1.10 is no number. Write one such as 1.5, or text in double quotes."),
        ("2024-01-31", "2024-01-31 is no number. Write one such as 1.5, or text in double quotes."),
        ("1e", "1e is no number. Write one such as 1.5, or text in double quotes."),
        ("5s", "5s is no number. Write one such as 1.5, or text in double quotes."),
        ("00", "00 is no number. Write one such as 1.5, or text in double quotes."),
    ],
)
def test_a_number_of_another_language(number: str, sentence: str):
    assert_refused(f'{{"a": {number}}}', (1, 7), sentence)


def test_the_comma_of_other_countries():
    sentence = "a comma stands between digits. Write the point of a number as ."
    assert_refused('{"a": 1,5, "b": 2}', (1, 8), sentence)


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("True", "true"),
        ("FALSE", "false"),
        ("None", "null"),
        ("nil", "null"),
        ("undefined", "null"),
        ("Yes", "true"),
    ],
)
def test_a_word_of_another_language(word: str, written: str):
    sentence = f'{word} is written {written} in JSON, or "{word}" where it is text.'
    assert_refused(f'{{"a": [{word}]}}', (1, 8), sentence)


@pytest.mark.parametrize("word", ["Lamp", "tru", "NaNs", "größe", "a_b-c"])
def test_a_word_without_quotes(word: str):
    sentence = f'{word} stands here without quotes. Write "{word}", or true, false, null or a number.'
    assert_refused(f'{{"a": {word}}}', (1, 7), sentence)


@pytest.mark.parametrize("key", ["deviceName", "$a", "7", "0x1F", "true"])
def test_a_key_without_quotes(key: str):
    assert_refused(f'{{"a": 1, {key}: 2}}', (1, 10), f'the key {key} stands here without quotes. Write "{key}".')


def test_a_long_word_in_a_short_sentence():
    assert len(str(refusal('{"a": %s}' % ("b" * 10_000)))) < 250


def test_no_sign_that_a_terminal_would_obey_is_repeated():
    error = refusal('{"\x9b31m": 1, "\x9b31m": 2}')

    assert r'the key "\u009b31m" is in this object already' in str(error)


snippets = ["{", "}", "[", "]", '"', "\\", ",", ":", "1", "-", "e9", "NaN", "Infinity", "true", '"a"', '{"a":', "\\u"]
snippets += [
    "//",
    "#",
    "'",
    "“",
    "\u00a0",
    "0",
    ".",
    "+",
    "_",
    "x",
    "True",
    "=",
    ";",
    "\t",
    "\x7f",
    "\\",
    "\\n",
    "：",
    "\r",
]
garbage = st.text(st.characters()) | st.lists(st.sampled_from(snippets)).map("".join)


@PATIENT
@given(garbage)
def test_a_mistake_is_found_where_there_is_one_and_nowhere_else(text: str):
    """Whatever the version of Python says of it, ``json`` and the grammar agree on what is JSON."""
    mistake = find_mistake(text)

    try:
        json.loads(text, parse_int=float)
    except RecursionError:
        return
    except json.JSONDecodeError:
        assert mistake is not None
        assert 0 <= mistake.position <= len(text)
        assert mistake.sentence[-1] in ".,"
        assert mistake.sentence.isprintable()
    else:
        assert mistake is None
