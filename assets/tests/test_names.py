"""What an asset may be called, and that whatever it may be called works everywhere."""

from __future__ import annotations

import unicodedata
from contextlib import nullcontext
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.models import Asset
from assets.names import FILENAME_MAX_BYTES, filename_problem, is_unseen, normalise_filename, validate_filename
from iotsupport.mirror.files import mirror_storage
from iotsupport.tests.support.api_client import (
    make_administrator,
    nothing_changed,
    read,
    refusal,
    session_client,
    token_client,
)
from iotsupport.tests.support.multipart import upload
from iotsupport.tests.support.properties import PATIENT, PATIENT_WITH_FIXTURES, examples

NAMES = st.one_of(
    st.text(min_size=1, max_size=30),
    # What breaks names is rare among all characters.
    st.text(
        alphabet=" .-_%?#&;=+\"'\\/:*<>|~$a1e\u0301é\u00a0\u200f\u2028\u3000\ud800\ufeff😀\0\t\n",
        min_size=1,
        max_size=12,
    ),
    st.text(alphabet="aé€😀", min_size=60, max_size=220),
)


@pytest.mark.parametrize(
    "filename",
    [
        "firmware.bin",
        "firmware",
        "a b.bin",
        "größe-µ.bin",
        "ファームウェア.bin",
        "क्षेत्र.bin",
        "مرحبا.bin",
        "😀.bin",
        "100%.bin",
        "a?b#c&d;e=f+g.bin",
        "'\".bin",
        "a:b*c|d<e>f~$.bin",
        "-rf",
        "CON",
        "a.",
        "x" * FILENAME_MAX_BYTES,
        "é" * (FILENAME_MAX_BYTES // 2),
    ],
)
def test_a_usable_name_is_taken(filename):
    validate_filename(filename)


@pytest.mark.parametrize(
    ("filename", "problem"),
    [
        ("", "is empty"),
        (".", "starts with a dot"),
        ("..", "starts with a dot"),
        (".new-0123", "starts with a dot"),
        ("a/b", "holds a slash or a backslash"),
        ("a\\b", "holds a slash or a backslash"),
        ("/", "holds a slash or a backslash"),
        ("a..bin", "holds two dots in a row"),
        ("a..", "holds two dots in a row"),
        ("a\0", "holds a control character"),
        ("a\n", "holds a control character"),
        ("\x7f", "holds a control character"),
        ("\x85", "holds a control character"),
        ("a\u2028b", "holds a control character"),
        ("\ud800", "holds a control character"),
        (" ", "begins or ends with a blank"),
        ("fw.bin ", "begins or ends with a blank"),
        ("\u00a0fw.bin", "begins or ends with a blank"),
        ("fw.bin\u3000", "begins or ends with a blank"),
        ("x" * 201, "is longer than 200 bytes"),
        ("é" * 100 + "x", "is longer than 200 bytes"),
        ("😀" * 51, "is longer than 200 bytes"),
    ],
)
def test_an_unusable_name_is_refused_with_the_reason(filename, problem):
    with pytest.raises(ValidationError) as caught:
        validate_filename(filename)

    assert caught.value.messages == [f"The file name {problem}. Rename the file, then try again."]
    assert caught.value.code == "INVALID_FILENAME"


UNSEEN = [
    ("\u202e", "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
    ("\u200f", "U+200F (RIGHT-TO-LEFT MARK)"),
    ("\u2066", "U+2066 (LEFT-TO-RIGHT ISOLATE)"),
    ("\u061c", "U+061C (ARABIC LETTER MARK)"),
    ("\u200b", "U+200B (ZERO WIDTH SPACE)"),
    ("\u200d", "U+200D (ZERO WIDTH JOINER)"),
    ("\ufeff", "U+FEFF (ZERO WIDTH NO-BREAK SPACE)"),
    ("\u00ad", "U+00AD (SOFT HYPHEN)"),
    ("\u2060", "U+2060 (WORD JOINER)"),
    ("\ufff9", "U+FFF9 (INTERLINEAR ANNOTATION ANCHOR)"),
    ("\U000e0061", "U+E0061 (TAG LATIN SMALL LETTER A)"),
    ("\U000e0080", "U+E0080"),
    ("\ufe0f", "U+FE0F (VARIATION SELECTOR-16)"),
    ("\u034f", "U+034F (COMBINING GRAPHEME JOINER)"),
    ("\u3164", "U+3164 (HANGUL FILLER)"),
    ("\u2800", "U+2800 (BRAILLE PATTERN BLANK)"),
]


@pytest.mark.parametrize(("character", "called"), UNSEEN)
def test_what_nobody_sees_comes_in_by_no_way(script, tmp_path, character, called):
    signed_in = session_client(User.objects.get())
    filename = f"invoice{character}nib.exe"
    (tmp_path / filename).write_bytes(b"x")
    sentence = f"The file name holds a character that nobody sees, {called}. Rename the file, then try again."

    # Django's parser of forms leaves out what is not printable.
    is_sent = character.isprintable()

    with nothing_changed() if is_sent else nullcontext():
        answer = upload(script, b"x", filename)
        page = signed_in.post("/admin/assets/asset/add/", {"file": SimpleUploadedFile(filename, b"x")}).text
    with nothing_changed(), pytest.raises(ValidationError) as imported:
        Asset.objects.import_file(tmp_path / filename, dry_run=False)
    with nothing_changed(), pytest.raises(ValidationError):
        Asset.objects.upload(filename, [b"x"])

    assert imported.value.messages == [sentence]
    if is_sent:
        assert refusal(answer) == (400, "INVALID_FILENAME")
        assert answer.json()["error"] == sentence
        assert sentence in page
    assert set(mirror_storage("assets").names()) <= {"invoicenib.exe"}


@pytest.mark.both_databases
def test_one_that_is_there_from_before_is_served_and_can_be_deleted(script, monkeypatch):
    filename = "invoice\u202enib.exe"
    with monkeypatch.context() as before:
        before.setattr("assets.names.validate_filename", lambda filename: None)
        Asset.objects.upload(filename, [b"x"])
    url = f"/assets/{quote(filename)}"

    assert read(Client().get(url)).body == b"x"
    assert read(Client().get(url, headers={"Range": "bytes=0-0"})).response.status_code == 206
    assert [asset["filename"] for asset in script.get("/assets").json()] == [filename]
    assert script.delete(url).status_code == 204
    assert Client().get(url).status_code == 400  # as of any name that no file can have


@PATIENT
@given(NAMES)
def test_what_is_taken_has_nothing_of_what_is_not(filename):
    taken = filename_problem(filename) is None

    # Lone surrogates have no bytes: they count as three here, and are refused in any case.
    size = len(filename.encode(errors="surrogatepass"))
    has_controls = any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in filename)
    is_odd = any(is_unseen(character) for character in filename)
    is_path = any(text in filename for text in ["/", "\\", ".."]) or filename.startswith(".")
    has_blanks = filename[:1].isspace() or filename[-1:].isspace()
    is_usable = 0 < size <= FILENAME_MAX_BYTES and not has_controls and not is_path
    assert taken == (is_usable and not has_blanks and not is_odd)


@pytest.fixture
def script(transactional_db) -> Client:
    return token_client(make_administrator())


@pytest.mark.both_databases
@settings(PATIENT_WITH_FIXTURES, max_examples=examples(60))
@given(NAMES)
def test_a_name_works_everywhere_or_is_refused_everywhere(script, filename):
    """In the command's way in, as a URL, in the list, on the disk; so it can be downloaded and deleted, too."""
    url = f"/assets/{quote(filename, safe='', errors='surrogatepass')}"
    name = normalise_filename(filename)
    if filename_problem(name) is not None:
        with nothing_changed():
            with pytest.raises(ValidationError):
                Asset.objects.upload(filename, [b"bytes"])
            # An empty name and one that begins with slashes are no names but other addresses.
            assert script.delete(url).status_code in {400, 404, 405}
        return

    Asset.objects.upload(filename, [b"bytes"])

    assert [asset["filename"] for asset in script.get("/assets").json()] == [name]
    assert mirror_storage("assets").names() == [name]
    assert read(Client().get(url)).body == b"bytes"
    assert script.delete(url).status_code == 204
    assert script.get("/assets").json() == []
    assert mirror_storage("assets").names() == []


@pytest.mark.both_databases
@settings(PATIENT_WITH_FIXTURES, max_examples=examples(60))
@given(NAMES)
def test_an_uploaded_name_comes_back_as_it_is_answered_or_is_refused(script, filename):
    """The parser of multipart bodies reduces a name first; what is left is answered, and works."""
    before = mirror_storage("assets").names()
    response = upload(script, b"bytes", filename)

    if response.status_code != 200:
        status, code = refusal(response)
        assert status == 400
        assert code in {"INVALID_FILENAME", "NO_FILE"}
        assert mirror_storage("assets").names() == before
        return
    name = response.json()["filename"]
    url = f"/assets/{quote(name, safe='')}"
    assert filename_problem(name) is None
    assert read(Client().get(url)).body == b"bytes"
    assert script.delete(url).status_code == 204
