"""Files of another user: each is a system check with its path and both users, and whatever can be served is."""

from __future__ import annotations

import getpass
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import django.db
import pytest
from django.conf import LazySettings
from django.core import checks

from iotsupport import access, dotenv
from iotsupport.checks import check_directories, check_dotenv, check_files, check_secret_key
from iotsupport.environment import SQLITE, Environment
from iotsupport.errors import BARRED, explain_database
from notifications.broker import trust

NOBODY = 65534
# Only root can become somebody else; the others keep themselves from their files.
THIS_USER = getpass.getuser()
OTHER_USER = "nobody" if os.geteuid() == 0 else THIS_USER
WHOSE = f": it belongs to {THIS_USER}" if os.geteuid() == 0 else ""


@contextmanager
def another_user() -> Iterator[None]:
    """Be a user who may do nothing with files of mode 0600 that this one made."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


@pytest.fixture
def data_dir(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation's, in a place that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="iotsupport-tests-") as name:
        path = Path(name)
        path.chmod(0o777)
        settings.DATA_DIR = path
        settings.BLOBS_DIR = settings.ESP32_CONFIGS_DIR = settings.ASSETS_DIR = path
        settings.ENVIRONMENT_PROBLEMS = {}
        monkeypatch.setitem(settings.DATABASES, "default", {"ENGINE": SQLITE, "NAME": str(path / "db.sqlite3")})
        yield path


def bar(path: Path, content: str = "content") -> Path:
    """Make a file that the other user may not read."""
    path.write_text(content)
    path.chmod(0o600 if os.geteuid() == 0 else 0)
    return path


def said(messages: list[checks.CheckMessage]) -> list[tuple[str | None, str]]:
    assert all(message.hint for message in messages)
    return [(message.id, message.msg) for message in messages]


@pytest.mark.parametrize("name", ["db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm", "locks/configs-1.lock"])
def test_a_file_that_cannot_be_read_is_named_with_its_user(data_dir: Path, name: str) -> None:
    (data_dir / name).parent.mkdir(exist_ok=True, mode=0o777)
    (data_dir / name).parent.chmod(0o777)
    path = bar(data_dir / name)

    with another_user():
        messages = check_files(None)

    assert said(messages) == [("iotsupport.E033", f"'{path}' cannot be read by the user {OTHER_USER}{WHOSE}.")]


def test_a_file_that_cannot_be_written_is_named_with_its_user(data_dir: Path) -> None:
    path = data_dir / "db.sqlite3"
    path.touch()
    path.chmod(0o444)

    with another_user():
        messages = check_files(None)

    assert said(messages) == [("iotsupport.E033", f"'{path}' cannot be written by the user {OTHER_USER}{WHOSE}.")]


@pytest.mark.parametrize(
    ("variable", "id"),
    [("DATA_DIR", "E010"), ("ESP32_CONFIGS_DIR", "E011"), ("ASSETS_DIR", "E012"), ("BLOBS_DIR", "E033")],
)
def test_a_directory_that_cannot_be_written_is_named_with_its_user(
    data_dir: Path, settings: LazySettings, variable: str, id: str
) -> None:
    path = data_dir / "directory"
    path.mkdir()
    path.chmod(0o555)
    setattr(settings, variable, path)

    with another_user():
        messages = [*check_directories(None), *check_files(None), *check_secret_key(None)]

    name = f"{variable} " if variable != "BLOBS_DIR" else ""
    assert said(messages) == [
        (f"iotsupport.{id}", f"{name}'{path}' cannot be written by the user {OTHER_USER}{WHOSE}.")
    ]


def test_what_lies_in_a_directory_that_cannot_be_entered_is_named(data_dir: Path, settings: LazySettings) -> None:
    closed = data_dir / "closed"
    closed.mkdir()
    closed.chmod(0o700 if os.geteuid() == 0 else 0)
    settings.ESP32_CONFIGS_DIR = closed / "configs"

    with another_user():
        messages = check_directories(None)

    reason = f"'{closed}/configs' cannot be reached by the user {OTHER_USER}: Permission denied."
    assert said(messages) == [("iotsupport.E011", f"ESP32_CONFIGS_DIR {reason}")]
    closed.chmod(0o700)


def test_a_secret_key_that_cannot_be_read_is_named_and_another_serves(data_dir: Path, settings: LazySettings) -> None:
    path, env = bar(data_dir / "secret_key", "k" * 50), Environment()

    with another_user():
        keys = {env.secret("NO_SUCH_VARIABLE", path) for _ in range(2)}
    settings.ENVIRONMENT_PROBLEMS = {"SECRET_KEY": env.problems["NO_SUCH_VARIABLE"]}

    assert all(len(key) > 50 for key in keys)
    assert said(check_secret_key(None)) == [
        (
            "iotsupport.E032",
            f"'{path}' cannot be read by the user {OTHER_USER}: Permission denied."
            " Everybody is signed out whenever the server starts.",
        )
    ]


def test_a_dotenv_file_that_cannot_be_read_is_named(data_dir: Path, settings: LazySettings) -> None:
    path = bar(data_dir / ".env", "MQTT_PASSWORD=hunter2")

    with another_user():
        found = dotenv.read(path)
    settings.DOTENV_TROUBLES = found.troubles

    assert found.values == {}
    assert said(check_dotenv(None)) == [
        ("iotsupport.E030", f"'{path}' cannot be read by the user {OTHER_USER}: Permission denied.")
    ]


def test_an_authority_that_cannot_be_read_is_named(data_dir: Path) -> None:
    path = bar(data_dir / "ca.pem")

    with another_user(), pytest.raises(ValueError) as caught:
        trust(str(path))

    reason = f"cannot be read by the user {OTHER_USER}: Permission denied."
    assert str(caught.value) == f"MQTT_CA_FILE '{path}' {reason}"


def test_nobody_is_told_to_migrate_the_database_of_another_user(data_dir: Path) -> None:
    path = bar(data_dir / "db.sqlite3", "")
    error = django.db.OperationalError("unable to open database file")

    with another_user():
        with pytest.raises(sqlite3.OperationalError) as caught:
            sqlite3.connect(path).execute("SELECT 1 FROM a")
        error.__cause__ = caught.value
        reason = explain_database(error)

    assert reason == BARRED


def test_what_is_missing_is_no_problem(tmp_path: Path) -> None:
    assert access.problem(tmp_path / "missing") is None
