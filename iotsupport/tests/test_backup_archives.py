"""Archives that are damaged, foreign, newer, or made to do harm are refused, and nothing is changed."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from django.core.management import CommandError, call_command
from django.db import DEFAULT_DB_ALIAS, connection, models
from django.test.utils import isolate_apps

from assets.models import PendingUpload, SharedChunk
from devices.models import DeviceConfig, DeviceType
from iotsupport.backup import tables
from iotsupport.backup.archive import COMMENT, COMMENT_BYTES
from iotsupport.backup.checking import check
from iotsupport.backup.errors import BackupError
from iotsupport.backup.reading import open_backup
from iotsupport.backup.tables import Table
from iotsupport.tests.support.api_client import empty_tables, everything, make_administrator
from iotsupport.tests.support.backups import MAC, MOMENT, back_up, fill, forge, open_up, restore, seal, told
from iotsupport.tests.support.migrating import go_to, go_to_today

NOTHING_TAKEN = "Nothing is taken of it: use another backup"
FORGED = "was not made by IoT Support, or was changed since"

Parts = tuple[dict[str, bytes], dict[str, Any]]

in_a_database = pytest.mark.usefixtures("own_database", "data_dir")


@pytest.fixture
def data_dir(tmp_path: Path, settings: Any) -> Path:
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    return Path(settings.DATA_DIR)


@pytest.fixture
def archive(request: pytest.FixtureRequest, made_once: Callable[..., Any]) -> Path:
    """A backup of :func:`fill`, made once for the run."""

    def make(directory: Path) -> str:
        request.getfixturevalue("own_database")
        directory.mkdir()
        fill()
        path = back_up(directory / "backup.zip")
        empty_tables()  # for the test that is the first to ask
        call_command("sync_mirror", stdout=io.StringIO())
        return str(path)

    return Path(made_once("backup", make))


@pytest.fixture
def parts(archive: Path) -> Parts:
    """Its members, and its manifest."""
    return open_up(archive)


def refuse(path: Path, reason: str) -> None:
    with pytest.raises(BackupError, match=reason):
        verify(path)


def verify(path: Path) -> None:
    """As both commands do first."""
    with open_backup(path, show_nothing) as archive:
        check(archive, lambda total: show_nothing)


def show_nothing(done: int) -> None:
    """Nobody looks how far it is."""


def is_refused(path: Path) -> bool:
    try:
        with open_backup(path, show_nothing):
            return False
    except BackupError as error:
        return NOTHING_TAKEN in str(error)


# --- Damaged ---


def test_no_byte_can_be_another(archive: Path, tmp_path: Path) -> None:
    data, path = archive.read_bytes(), tmp_path / "damaged.zip"
    for position in [*range(0, len(data), 5), *range(len(data) - 200, len(data))]:
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        assert is_refused(path), position
    refuse(path, "is no backup of IoT Support|its bytes are not those that were written")


@in_a_database
def test_the_commands_refuse_it_and_change_nothing(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.zip"
    path.write_bytes(archive.read_bytes().replace(b"secret_key", b"secret_kez", 1))
    DeviceConfig.objects.put(MAC, "{}")
    before = everything(), told()

    for command, options in [("verify_backup", {}), ("restore", {"replace": True})]:
        with pytest.raises(CommandError, match="its bytes are not those that were written. Nothing is taken of it"):
            call_command(command, str(path), stdout=io.StringIO(), **options)

    assert (everything(), told()) == before


def test_nothing_can_be_missing_or_more(archive: Path, tmp_path: Path) -> None:
    data, path = archive.read_bytes(), tmp_path / "damaged.zip"
    for length in [*range(0, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:length])
        assert is_refused(path), length
    for changed in [data + b"\n", data + data, b"#!/bin/sh\n" + data, data[:500] + data[700:]]:
        path.write_bytes(changed)
        assert is_refused(path)
    refuse(path, "its bytes are not those that were written")


def test_what_is_no_backup(tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    refuse(path, "cannot be read: No such file or directory")
    refuse(tmp_path, "cannot be read: Is a directory")
    path.write_text("x" * 1000)
    refuse(path, "is no backup of IoT Support, or not all of it")
    with ZipFile(path, "w") as file:
        file.writestr("manifest.json", "{}" * 100)
    refuse(path, "is no backup of IoT Support, or not all of it")
    refuse(seal(path, b"no zip"), FORGED)


# --- Made to do harm ---


@in_a_database
def test_what_somebody_puts_together_rightly_is_taken(parts: Parts, tmp_path: Path) -> None:
    """So what is refused below is refused for what is said there."""
    restore(forge(tmp_path / "forged.zip", *parts))
    assert DeviceConfig.objects.count() == 2


@pytest.mark.parametrize("name", ["../evil.json", "/etc/passwd", "rows/../x.jsonl", "blobs/abc", "rows/A.jsonl\n"])
def test_members_that_no_backup_has(parts: Parts, tmp_path: Path, name: str) -> None:
    members, manifest = parts
    refuse(forge(tmp_path / "forged.zip", {**members, name: b"evil"}, manifest), "which no backup has")


def test_a_member_that_is_not_described(parts: Parts, tmp_path: Path) -> None:
    members, manifest = parts
    forged = forge(tmp_path / "forged.zip", {**members, "../evil": b""}, manifest, describe=False)
    refuse(forged, FORGED)


def test_a_member_that_is_not_what_is_said(parts: Parts, tmp_path: Path) -> None:
    members, manifest = parts
    changed = {**members, "secret_key": members["secret_key"][::-1]}
    refuse(forge(tmp_path / "forged.zip", changed, manifest, describe=False), "is not what its manifest says")


def test_two_members_of_one_name(parts: Parts, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        forged = forge(tmp_path / "forged.zip", *parts, twice="secret_key")
    refuse(forged, "has two members of one name")


def test_places_that_members_say_they_have(parts: Parts, tmp_path: Path) -> None:
    """Of a zip that is made to fill a disk, many members have the same bytes."""
    forged = forge(tmp_path / "forged.zip", *parts)
    data = bytearray(forged.read_bytes()[:-COMMENT_BYTES])
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    struct.pack_into("<L", data, second + 42, 0)
    refuse(seal(forged, bytes(data)), FORGED)


def test_a_directory_without_end(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iotsupport.backup.reading.MOST_DIRECTORY_BYTES", 1000)
    refuse(forge(tmp_path / "forged.zip", *parts), FORGED)


def test_a_row_without_end(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iotsupport.backup.reading.MOST_LINE_BYTES", 2000)
    members, manifest = parts
    rows = {**members, "rows/auth.group.jsonl": b" " * 3000}
    refuse(forge(tmp_path / "forged.zip", rows, manifest), "A row of auth.group is longer than any row can be")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda manifest: manifest.update(format=2), "made by IoT Support '0.1.0', which is newer"),
        (lambda manifest: manifest["migrations"]["devices"].append("0999_later"), "which is newer than this version"),
        (lambda manifest: manifest["migrations"].update(other=["0001_initial"]), "which is newer than this version"),
        (lambda manifest: manifest.update(made_at="soon"), "The manifest of the backup cannot be read"),
        (lambda manifest: manifest.update(more=1) or manifest.pop("lost"), "The manifest of the backup cannot be read"),
        (lambda manifest: manifest.update(tables=[{"label": "x"}]), "The manifest of the backup cannot be read"),
        (lambda manifest: manifest["tables"][0].update(count=-1), "The manifest of the backup cannot be read"),
        (lambda manifest: manifest["tables"][5].update(count=7), "but 7 are said to be"),
        (lambda manifest: manifest["tables"][0]["columns"].reverse(), "are not those of IoT Support"),
        (lambda manifest: manifest["tables"].pop(), FORGED),
        (lambda manifest: manifest["lost"].append("a" * 64), "has bytes that no row names"),
    ],
)
def test_manifests(parts: Parts, tmp_path: Path, change: Callable[[Any], Any], reason: str) -> None:
    members, manifest = parts
    change(manifest)
    refuse(forge(tmp_path / "forged.zip", members, manifest), reason)


def test_bytes_that_are_not_there(parts: Parts, tmp_path: Path) -> None:
    members, manifest = parts
    first = next(name for name in members if name.startswith("blobs/"))
    others = {name: content for name, content in members.items() if name != first}
    refuse(forge(tmp_path / "forged.zip", others, manifest), "misses the bytes")
    refuse(forge(tmp_path / "forged.zip", {**members, first: b"others"}, manifest), "is not what it is called")


@pytest.mark.parametrize(
    ("table", "column", "value", "reason"),
    [
        ("assets.asset", "filename", "../evil", "which no file has"),
        ("assets.asset", "filename", ".hidden", "which no file has"),
        ("devices.deviceconfig", "mac_address", "/etc/passwd", "which no file has"),
        ("assets.asset", "sha256", "../../evil", "names no bytes"),
        ("assets.asset", "size", "10", "cannot be read: no integer"),
        ("assets.asset", "size", True, "cannot be read: no integer"),
        ("assets.asset", "size", 2**63, "cannot be read: no integer"),
        ("assets.asset", "filename", 1, "cannot be read: no text"),
        ("auth.user", "is_staff", 1, "cannot be read: neither true nor false"),
        ("auth.user", "date_joined", "2024-01-01T00:00:00", "a time without its zone"),
        ("auth.user", "date_joined", "yesterday", "cannot be read"),
        ("auth.user", "username", "\ud800", "cannot be read"),
        ("assets.asset", "warnings", float("inf"), "Infinity is no JSON"),
    ],
)
def test_values(parts: Parts, tmp_path: Path, table: str, column: str, value: Any, reason: str) -> None:
    members, manifest = parts
    name = f"rows/{table}.jsonl"
    first, *rest = members[name].splitlines(keepends=True)
    changed = json.dumps({**json.loads(first), column: value}).encode() + b"\n"
    refuse(forge(tmp_path / "forged.zip", {**members, name: b"".join([changed, *rest])}, manifest), reason)


@pytest.mark.parametrize("line", [b"[]", b"{", b"[" * 100_000, b'{"id": 1}', b"\xff", b""])
def test_lines(parts: Parts, tmp_path: Path, line: bytes) -> None:
    members, manifest = parts
    rows = {**members, "rows/auth.group.jsonl": line + b"\n"}
    refuse(forge(tmp_path / "forged.zip", rows, manifest), "Row 1 of auth.group in the backup cannot be read")


@in_a_database
def test_rows_that_refer_to_nothing(parts: Parts, tmp_path: Path) -> None:
    """They are found in the transaction, which is taken back."""
    members, manifest = parts
    number = next(n for n, table in enumerate(manifest["tables"]) if table["label"] == "auth.user")
    manifest["tables"][number]["count"] = 0
    forged = forge(tmp_path / "forged.zip", {**members, "rows/auth.user.jsonl": b""}, manifest)
    make_administrator()
    before = everything(), told()

    with pytest.raises(CommandError, match="contradict each other. Nothing was changed"):
        restore(forged)

    assert (everything(), told()) == before


# --- Values ---


@in_a_database
@pytest.mark.both_databases
def test_every_kind_of_value_comes_back() -> None:
    user = make_administrator()
    PendingUpload.objects.create(filename="e\u0301", md5="", sha256="", size=2**60, user=user, created_at=MOMENT)
    SharedChunk.objects.create(sha256="a", number=0, content=bytes(range(256)))
    for model in [PendingUpload, SharedChunk]:
        table = Table(model)
        rows = list(table.select(DEFAULT_DB_ALIAS))
        lines = [table.encode(row) for row in rows]
        model._base_manager.all().delete()

        assert table.insert(DEFAULT_DB_ALIAS, map(table.decode, lines)) == 1

        assert [table.encode(row) for row in table.select(DEFAULT_DB_ALIAS)] == lines
    assert bytes(SharedChunk.objects.get().content) == bytes(range(256))
    assert PendingUpload.objects.get().created_at == MOMENT


@isolate_apps("iotsupport")
def test_kinds_of_values_that_only_a_library_has() -> None:
    class Kinds(models.Model):  # noqa: DJ008
        day = models.DateField()
        price = models.DecimalField(max_digits=30, decimal_places=10)
        lasts = models.DurationField()
        at = models.TimeField()

        class Meta:
            app_label = "iotsupport"

    table = Table(Kinds)
    row = [
        1,
        date(2024, 2, 29),
        Decimal("1234567890.0123456789"),
        timedelta(days=-3, microseconds=5),
        time(1),
    ]

    assert table.decode(table.encode(row)) == row
    with pytest.raises(ValueError, match="invalid date format"):
        table.decode(table.encode([1, "tomorrow", *row[2:]]))


@in_a_database
@pytest.mark.postgresql
def test_postgresql_gets_what_it_can_hold() -> None:
    """SQLite keeps null characters that a configuration says as an escape."""
    table = Table(DeviceConfig)
    DeviceConfig.objects.put(MAC, '{"deviceName": "a"}')
    [row] = table.select(DEFAULT_DB_ALIAS)
    row[table.columns.index("device_name")] = "a\0b"
    DeviceConfig._base_manager.all()._raw_delete(DEFAULT_DB_ALIAS)

    table.insert(DEFAULT_DB_ALIAS, [table.decode(table.encode(row))])

    assert DeviceConfig.objects.get().device_name == "a\N{REPLACEMENT CHARACTER}b"


@in_a_database
def test_a_row_that_is_too_long_is_told_when_the_backup_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DeviceConfig.objects.put(MAC, json.dumps({"a": "x" * 2000}))
    monkeypatch.setattr(tables, "MOST_LINE_BYTES", 2000)

    with pytest.raises(CommandError, match="A row of devices.deviceconfig has .* bytes; 2000 are allowed"):
        back_up(tmp_path / "backup.zip")

    assert not (tmp_path / "backup.zip").exists()
    assert not list(tmp_path.glob(".new-*"))


# --- Other versions ---

# Before changes of many, and before the table of backups.
EARLIER = [("devices", "0009_versions"), ("iotsupport", "0006_tokens_in_words")]


@in_a_database
@pytest.mark.both_databases
def test_a_backup_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path, data_dir: Path) -> None:
    for number in range(3):
        DeviceConfig.objects.put(MAC, f'{{"number": {number}}}')
    DeviceType.objects.create(name="Lamp", schema="{}")
    make_administrator()
    go_to(*EARLIER)
    archive = back_up(tmp_path / "earlier.zip")  # as whoever updates does, before the migrations
    go_to_today()
    rows = told()
    empty_tables()

    said = io.StringIO()
    call_command("verify_backup", str(archive), stdout=said)
    restore(archive)

    assert "It is of an earlier version; restoring brings it up to date" in said.getvalue()
    assert told() == rows
    assert DeviceConfig.objects.get().content == '{"number": 2}'
    assert not [path for path in data_dir.iterdir() if path.name.startswith(".upgrading-")]
    with connection.cursor() as cursor:  # a table that the earlier version did not have
        cursor.execute("SELECT count(*) FROM devices_changeitem")


@in_a_database
def test_a_database_that_a_newer_version_migrated(tmp_path: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('devices', '0999_later', '2030-01-01')"
        )

    with pytest.raises(
        CommandError, match="was migrated by a newer version of IoT Support, which has devices.0999_later"
    ):
        back_up(tmp_path / "backup.zip")


@in_a_database
def test_a_database_that_is_not_migrated(archive: Path) -> None:
    go_to(*EARLIER)

    with pytest.raises(CommandError, match="The database is not migrated. Run 'manage.py migrate'"):
        restore(archive)


def test_an_archive_says_what_it_is_to_whoever_opens_it(archive: Path) -> None:
    with ZipFile(archive) as file:
        assert file.testzip() is None
        assert file.comment.startswith(COMMENT)
        assert json.loads(file.read("manifest.json"))["version"] == "0.1.0"
        assert [json.loads(line)["username"] for line in file.read("rows/auth.user.jsonl").splitlines()][0] == "admin"
