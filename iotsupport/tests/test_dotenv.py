"""``.env`` and the environment: a value is what was given, every line that is not taken is named, and none is shown."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.test import override_settings

from iotsupport import dotenv
from iotsupport.checks import check_dotenv
from iotsupport.environment import Environment
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support import warm
from iotsupport.tests.support.server import clean_environ
from iotsupport.tests.support.waiting import LIMIT

# A line and the value that it gives.
TAKEN = [
    (r"PASSWORD=$right9", "$right9"),
    (r"PASSWORD='$right9'", "$right9"),
    (r'PASSWORD="$right9"', "$right9"),
    (r'PASSWORD="\$right9"', "$right9"),
    (r"PASSWORD=$OTHER", "$OTHER"),
    (r"PASSWORD=${OTHER}", "${OTHER}"),
    (r"PASSWORD=$$", "$$"),
    (r"PASSWORD=a\$b", r"a\$b"),
    (r"PASSWORD='a\$b'", r"a\$b"),
    (r'PASSWORD="a\b\n\\c\"d"', r"a\b\n\c" + '"d'),
    (r"PASSWORD=a#b", "a#b"),
    (r"PASSWORD=#b", "#b"),
    (r"PASSWORD=a=b==", "a=b=="),
    (r"PASSWORD=it's", "it's"),
    (r"PASSWORD='it's'", "it's"),
    (r"PASSWORD=' a '", " a "),
    (r"PASSWORD='a' # of the broker", "a"),
    (r"PASSWORD='a #1'", "a #1"),
    (r"PASSWORD=", ""),
    (r"PASSWORD=''", ""),
    ("PASSWORD=a \t", "a"),
    ("  PASSWORD=a", "a"),
    ("export PASSWORD=a", "a"),
    ("PASSWORD=Küche\u2028\x0b\x85ж", "Küche\u2028\x0b\x85ж"),
    ("PASSWORD=\xa0a\xa0", "\xa0a\xa0"),
]

# A line that is not taken, and why.
NOT_TAKEN = [
    (b"hunter2", "is not NAME=value"),
    (b"PASS-WORD=hunter2", "is not NAME=value"),
    (b"PASSWORD: hunter2", "is not NAME=value"),
    (b"set PASSWORD=hunter2", "is not NAME=value"),
    (b"\xc2\xa0PASSWORD=hunter2", "is not NAME=value"),
    (b"=hunter2", "is not NAME=value"),
    (b"PASSWORD='hunter2", "begins with a quotation mark that is not closed"),
    (b"PASSWORD=\"hunter2'", "begins with a quotation mark that is not closed"),
    (b"PASSWORD='", "begins with a quotation mark that is not closed"),
    (b"PASSWORD=hunter2\xff", "is not text in UTF-8"),
    (b"PASSWORD=hunter2\0", "holds a null character"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".env"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """One that knows of no variable yet."""
    monkeypatch.setattr(Environment, "ENVIRON", {})
    return Environment()


def said_of(env: Environment) -> list[tuple[str | None, str]]:
    """Ids and sentences of the system checks."""
    with override_settings(DOTENV_TROUBLES=env.dotenv_troubles):
        messages = check_dotenv(None)
    assert all(message.hint for message in messages)
    return [(message.id, message.msg) for message in messages]


@pytest.mark.parametrize(("line", "value"), TAKEN)
def test_a_value_is_what_stands_there(path: Path, env: Environment, line: str, value: str) -> None:
    path.write_text(f"OTHER=another\n{line}\n", encoding="utf-8")

    env.read_env(path)

    assert env.str("PASSWORD", default="unset") == value
    assert said_of(env) == []


@pytest.mark.parametrize("value", ["$right9", "$OTHER", "$$", r"\$right9", "${OTHER}", "$"])
def test_a_value_of_the_environment_is_what_was_given(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(Environment, "ENVIRON", {"OTHER": "another", "right9": "another", "PASSWORD": value})
    env = Environment()

    assert env.str("PASSWORD", default="") == value
    assert env.secret("PASSWORD", Path("/nowhere")) == value
    assert env.folder("OTHER", Path("/")).name == "another"


@pytest.mark.parametrize(("line", "reason"), NOT_TAKEN)
def test_a_line_that_is_not_taken_is_a_check_with_its_number(
    path: Path, env: Environment, caplog: pytest.LogCaptureFixture, line: bytes, reason: str
) -> None:
    path.write_bytes(b"# a comment\n\n" + line + b"\r\nOTHER=another")
    caplog.set_level(logging.DEBUG)

    env.read_env(path)

    assert said_of(env) == [("iotsupport.E030", f"Line 3 of '{path}' is not taken: it {reason}.")]
    assert env.ENVIRON == {"OTHER": "another"}
    assert "hunter2" not in caplog.text + repr(env.dotenv_troubles)


@pytest.mark.parametrize(
    "line", ["PASSWORD = hunter2", "PASSWORD= hunter2", "PASSWORD =hunter2", "PASSWORD\t=\thunter2"]
)
def test_blanks_beside_the_equals_sign_are_no_part_of_a_value_and_said(path: Path, env: Environment, line: str) -> None:
    path.write_text(line)

    env.read_env(path)

    [(id, sentence)] = said_of(env)
    assert env.ENVIRON == {"PASSWORD": "hunter2"}
    assert id == "iotsupport.W031"
    assert sentence.startswith(f"Line 1 of '{path}' has a blank beside its '='. It is taken without")


def test_what_looks_like_a_comment_is_part_of_the_value_and_said(path: Path, env: Environment) -> None:
    path.write_text("PASSWORD=hunter2 # of the broker")

    env.read_env(path)

    assert env.ENVIRON == {"PASSWORD": "hunter2 # of the broker"}
    assert said_of(env) == [
        ("iotsupport.W031", f"Line 1 of '{path}' holds ' #', and what follows is taken as part of the value.")
    ]


def test_the_earlier_of_two_lines_is_named(path: Path, env: Environment) -> None:
    path.write_text("PASSWORD=first\nOTHER=another\nPASSWORD=second\n")

    env.read_env(path)

    assert env.ENVIRON == {"PASSWORD": "second", "OTHER": "another"}
    assert said_of(env) == [
        ("iotsupport.W031", f"Line 1 of '{path}' is not taken: its variable stands again in line 3.")
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_and_other_ends_of_lines_change_nothing(
    path: Path, env: Environment, encoding: str, end: bytes
) -> None:
    path.write_bytes("PASSWORD=Küche\nOTHER=another\n".encode(encoding).replace(b"\n", end))

    env.read_env(path)

    assert env.ENVIRON == {"PASSWORD": "Küche", "OTHER": "another"}
    assert said_of(env) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_read_and_said(path: Path, env: Environment, encoding: str) -> None:
    path.write_bytes("PASSWORD=Küche\r\nOTHER=another\r\n".encode(encoding))

    env.read_env(path)

    assert env.ENVIRON == {"PASSWORD": "Küche", "OTHER": "another"}
    assert said_of(env) == [
        ("iotsupport.W031", f"'{path}' is text in UTF-16. It is read, but most other programs cannot.")
    ]


def test_broken_utf_16_gives_a_check_for_each_line(path: Path, env: Environment) -> None:
    path.write_bytes("PASSWORD=hunter2\nOTHER=another\n".encode("utf-16-le") + b"\0")

    env.read_env(path)

    assert {id for id, _ in said_of(env)} == {"iotsupport.E030"}
    assert env.ENVIRON == {}


def test_the_other_lines_of_a_file_in_another_encoding_are_taken(path: Path, env: Environment) -> None:
    path.write_bytes(b"FIRST=1\nPASSWORD=K\xfcche\nLAST=2\n")

    env.read_env(path)

    assert env.ENVIRON == {"FIRST": "1", "LAST": "2"}
    assert len(said_of(env)) == 1


def test_what_the_locale_cannot_hold_is_said(path: Path, env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(dict[str, str]):
        def setdefault(self, name: str, value: str = "") -> str:
            return super().setdefault(name, value.encode("ascii").decode())

    monkeypatch.setattr(Environment, "ENVIRON", Narrow())
    path.write_text("PASSWORD=hunter2ж\nOTHER=another", encoding="utf-8")

    env.read_env(path)

    assert env.ENVIRON == {"OTHER": "another"}
    [(id, sentence)] = said_of(env)
    assert id == "iotsupport.E030"
    assert "hunter2" not in sentence


def test_no_file_is_no_trouble(path: Path) -> None:
    assert dotenv.read(path) == dotenv.Dotenv({}, [])


def test_a_directory_in_its_place_is_said(path: Path, env: Environment) -> None:
    path.mkdir()

    env.read_env(path)

    assert said_of(env) == [("iotsupport.E030", f"'{path}' cannot be read: Is a directory.")]


# --- In processes of their own -----------------------------------------------------------------------------------

DOTENV = """\
# Of a broker
MQTT_URL=mqtt://127.0.0.1:9
MQTT_USERNAME=$server
MQTT_PASSWORD = hunter2
hunter2
SECRET_KEY='$hunter2-hunter2-hunter2-hunter2-hunter2'
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of the product with a ``.env`` of its own."""
    root = tmp_path / "checkout"
    leave_out = shutil.ignore_patterns("tests", "static")
    for name in ["assets", "devices", "iotsupport", "notifications", "templates"]:
        shutil.copytree(BASE_DIR / name, root / name, ignore=leave_out)
    for name in ["manage.py", "gunicorn.conf.py"]:
        shutil.copy(BASE_DIR / name, root)
    return root


@pytest.mark.processes
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_command_reads_it_and_shows_no_value(checkout: Path, tmp_path: Path, encoding: str) -> None:
    (checkout / ".env").write_text(DOTENV, encoding=encoding)
    unset = {"SECRET_KEY", "MQTT_URL", "MQTT_USERNAME", "MQTT_PASSWORD"}
    environ = {name: value for name, value in clean_environ({}).items() if name not in unset}
    environ |= {"DATA_DIR": str(tmp_path / "data"), "right9": "another", "server": "another"}
    show = "from iotsupport import settings as s; print(ascii([s.MQTT_USERNAME, s.MQTT_PASSWORD, s.SECRET_KEY]))"

    shown = subprocess.run(
        [sys.executable, "-c", show], cwd=checkout, env=environ, capture_output=True, text=True, timeout=LIMIT
    )
    checked = warm.run([str(checkout / "manage.py"), "check"], environ, LIMIT)

    assert shown.stdout == "['$server', 'hunter2', '$hunter2-hunter2-hunter2-hunter2-hunter2']\n"
    assert shown.stderr == ""
    report = checked.stdout + checked.stderr
    assert checked.returncode == 1
    assert f"(iotsupport.E030) Line 5 of '{checkout / '.env'}' is not taken: it is not NAME=value." in report
    assert f"(iotsupport.W031) Line 4 of '{checkout / '.env'}' has a blank" in report
    assert ("UTF-16" in report) == (encoding == "utf-16")
    assert "hunter2" not in report
    assert "Traceback" not in report
    assert os.listdir(tmp_path / "data")
