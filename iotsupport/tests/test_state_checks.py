"""System checks of what is around an installation: each has an id, and a hint that says what to do."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from django.core import checks
from django.db import connection
from django.utils import timezone

from iotsupport.checks import INSTALLATION
from iotsupport.state import checks as ours
from iotsupport.state import clock
from iotsupport.state.file_systems import FileSystem, Room

ROOM = Room(10**11, 10**7, is_read_only=False)


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, settings: Any) -> Path:
    settings.DATA_DIR = settings.ESP32_CONFIGS_DIR = settings.ASSETS_DIR = tmp_path
    return tmp_path


def said(found: list[checks.CheckMessage]) -> list[tuple[str | None, str]]:
    assert all(each.hint for each in found)
    return [(each.id, each.msg) for each in found]


def test_they_are_among_those_of_an_installation():
    found = [check for check in checks.registry.registry.get_checks() if set(check.tags) & set(INSTALLATION)]

    assert {ours.check_room, ours.check_file_system, ours.check_clock, ours.check_private} <= set(found)


def test_little_room_is_said_once_for_each_disk(monkeypatch: pytest.MonkeyPatch, data_dir: Path, settings: Any):
    settings.ASSETS_DIR = data_dir / "assets"
    settings.ASSETS_DIR.mkdir()
    monkeypatch.setattr(ours, "file_system_of", lambda path: FileSystem(f"/{path.name}"[:4], "ext4"))
    monkeypatch.setattr(ours, "room_at", lambda path: ROOM._replace(free_bytes=10**8))

    low = said(ours.check_room(None))

    room = "There is room for 95.4\xa0MB and 10,000,000 files"
    assert ("iotsupport.W070", f"{room} on the disk of '{settings.ASSETS_DIR}' (mounted at /ass).") in low
    assert sum(f"'{data_dir}'" in message for _, message in low) == 1
    monkeypatch.setattr(ours, "room_at", lambda path: ROOM)
    assert ours.check_room(None) == []


def test_sqlite_on_the_network(monkeypatch: pytest.MonkeyPatch):
    assert ours.check_file_system(None) == []
    monkeypatch.setattr(ours, "file_system_of", lambda path: FileSystem("/srv", "nfs4"))

    [(id, message)] = said(ours.check_file_system(None))

    assert id == "iotsupport.W071"
    assert message.endswith("which is reached over the network (nfs4).")


def test_a_clock_from_before_this_program(monkeypatch: pytest.MonkeyPatch):
    assert ours.check_clock(None) == []
    later = timezone.now() + timedelta(days=400)
    monkeypatch.setattr(clock, "installed_at", lambda: later)

    [(id, message)] = said(ours.check_clock(None))

    assert id == "iotsupport.W072"
    assert f"was installed on {later:%Y-%m-%d}" in message


def test_a_key_and_a_directory_that_are_open_to_others(data_dir: Path):
    key = data_dir / "secret_key"
    key.write_text("x" * 50)
    key.chmod(0o600)
    assert ours.check_private(None) == []
    key.chmod(0o640)
    data_dir.chmod(0o777)

    assert [id for id, _ in said(ours.check_private(None))] == ["iotsupport.W073", "iotsupport.W074"]


@pytest.mark.django_db
@pytest.mark.both_databases
class TestDatabase:
    def test_one_that_is_migrated(self):
        assert ours.check_database(None) == []

    def test_one_that_is_not(self):
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM django_migrations WHERE app = 'assets'")

        [(id, message)] = said(ours.check_database(None))

        assert id == "iotsupport.W076"
        assert message == (
            "Migrations: 9 of them are not applied: assets 0001_initial, assets 0002_sharedchunk, assets"
            " 0003_asset_folded, …."
        )

    def test_one_that_is_away(self, monkeypatch: pytest.MonkeyPatch):
        def fail() -> None:
            raise cast(Any, connection).Database.OperationalError("no such host")

        monkeypatch.setattr(connection, "cursor", lambda: connection.wrap_database_errors(fail)())

        assert said(ours.check_database(None)) == [
            ("iotsupport.E075", "The database does not answer: no such host"),
        ]


def test_before_the_first_migration_nothing_is_said_and_no_file_is_made(monkeypatch: Any, data_dir: Path):
    monkeypatch.setitem(connection.settings_dict, "NAME", str(data_dir / "db.sqlite3"))

    assert ours.check_database(None) == []
    assert list(data_dir.iterdir()) == []
