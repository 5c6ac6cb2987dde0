"""What is different between two texts, as rows and as a page shows them."""

from __future__ import annotations

import time

import pytest
from django.template.loader import render_to_string
from hypothesis import given
from hypothesis import strategies as st

from iotsupport.editing.differences import MOST_ROWS, Kind, Piece, Row, difference

BEFORE = """{
  "deviceName": "Kitchen",
  "room": 4,
  "enableOTA": true,
  "reportSeconds": 60,
  "sensors": [
    {"pin": 4}
  ]
}
"""
AFTER = BEFORE.replace("60", "30").replace("[\n", '[\n    {"pin": 5},\n')


def test_shows_what_is_around_a_change_and_folds_the_rest():
    rows = difference(BEFORE, AFTER, context=1)

    assert [(row.kind, row.old_number, row.new_number, row.count) for row in rows] == [
        (Kind.FOLDED, None, None, 3),
        (Kind.EQUAL, 4, 4, 0),
        (Kind.CHANGED, 5, 5, 0),
        (Kind.EQUAL, 6, 6, 0),
        (Kind.ADDED, None, 7, 0),
        (Kind.EQUAL, 7, 8, 0),
        (Kind.FOLDED, None, None, 2),
    ]


def test_marks_the_words_that_are_different():
    changed = next(row for row in difference(BEFORE, AFTER) if row.kind == Kind.CHANGED)

    assert changed.old == [Piece('  "reportSeconds": '), Piece("60", True), Piece(",")]
    assert changed.new == [Piece('  "reportSeconds": '), Piece("30", True), Piece(",")]


def test_one_line_alone_is_not_folded():
    assert [row.kind for row in difference("a\nb\n", "a\nc\n", context=0)] == [Kind.EQUAL, Kind.CHANGED]


def test_nothing_is_different_where_all_bytes_are_the_same():
    assert difference(BEFORE, BEFORE) == []


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("{}\r\n", "{}\n", ("ends with CRLF", "ends with LF")),
        ("{}\r", "{}\n", ("ends with CR", "ends with LF")),
        ("{}", "{}\n", ("no line break at the end", "ends with LF")),
    ],
)
def test_tells_how_lines_end_where_that_is_all_that_is_different(old, new, told):
    [row] = difference(old, new)

    assert row.kind == Kind.CHANGED
    assert (row.old, row.new) == ([Piece("{}")], [Piece("{}")])
    assert (row.old_note, row.new_note) == told


@pytest.mark.parametrize(
    "old, new, shown",
    [
        ("{\t}", "{  }", ("⇥", "··")),
        ("{ }", "{\u00a0}", ("·", "⟨U+00A0⟩")),
        ("caf\u00e9", "cafe\u0301", ("caf\u00e9", "cafe⟨U+0301⟩")),
    ],
)
def test_tells_what_looks_the_same(old, new, shown):
    [row] = difference(old, new)

    assert (
        [piece.text for piece in row.old if piece.is_marked],
        [piece.text for piece in row.new if piece.is_marked],
    ) == (
        [shown[0]],
        [shown[1]],
    )


def test_what_would_turn_a_line_around_is_told_wherever_it_stands():
    equal, changed = difference("\u202eabc\n1", "\u202eabc\n2")

    assert equal.old == [Piece("⟨U+202E⟩abc")]


def test_only_a_line_that_ends_unlike_all_others_says_how():
    removed = difference("a\nb\nc", "a\n")[-1]

    assert (removed.kind, removed.old_note) == (Kind.REMOVED, "no line break at the end")
    assert all(row.old_note == row.new_note == "" for row in difference("a\r\nb\r\n", "a\r\nb\r\nc\r\n"))


@given(st.text("ab\r\n", max_size=30), st.text("ab\r\n", max_size=30))
def test_every_line_of_both_is_told_once_and_in_order(old, new):
    rows = difference(old, new, context=100)

    assert rows or old == new
    for numbers in [[row.old_number for row in rows], [row.new_number for row in rows]]:
        found = [number for number in numbers if number]
        assert found == list(range(1, len(found) + 1))
    if rows:
        assert "".join(piece.text for row in rows for piece in row.old) == old.replace("\r", "").replace("\n", "")
        assert "".join(piece.text for row in rows for piece in row.new) == new.replace("\r", "").replace("\n", "")


HOSTILE = {
    "20,000 lines that are all the same": ("1,\n" * 20_000, "0\n" + "1,\n" * 10_000 + "2\n" + "1,\n" * 10_000),
    "20,000 lines of few": (
        "".join(f"{i * i % 53}\n" for i in range(20_000)),
        "".join(f"{i * i % 59}\n" for i in range(20_000)),
    ),
    "every second line": (
        "".join(f"{i}\n" for i in range(12_000)),
        "".join(f"{i}\n" if i % 2 else f"x{i}\n" for i in range(12_000)),
    ),
    "one line of 64 KB": (
        ",".join(str(i * i % 97) for i in range(22_000)),
        ",".join(str(i * i % 89) for i in range(22_000)),
    ),
    "one line of commas": ("," * 65_000, ";" + "," * 64_000 + ";"),
}


@pytest.mark.parametrize("old, new", HOSTILE.values(), ids=HOSTILE.keys())
def test_takes_no_longer_than_a_second_whatever_the_texts_are(old, new):
    start = time.process_time()
    rows = difference(old, new)

    assert rows
    assert len(rows) <= MOST_ROWS + 1
    assert time.process_time() - start < 1


def test_says_how_much_is_not_shown():
    rows = difference("a\n" * 3000, "b\n" * 3000)

    assert rows[-1] == Row(Kind.CUT, count=1000)
    assert "1000 more rows: too many to be shown" in render_to_string("admin/includes/difference.html", {"rows": rows})


def test_texts_are_escaped():
    page = render_to_string("admin/includes/difference.html", {"rows": difference("<script>", "<b>&amp;")})

    assert "<script>" not in page
    assert "&lt;<mark>b</mark>&gt;<mark>&amp;amp;</mark>" in page


def test_says_that_nothing_is_different():
    assert "Both are the same, byte for byte." in render_to_string("admin/includes/difference.html", {"rows": []})
