"""``manage.py backup`` and ``restore``: everything comes back as it was, and nothing is done by itself."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from assets.models import Asset, PendingUpload
from devices.changes.models import Change, State
from devices.models import DeviceConfig
from iotsupport.accounts.sessions import SessionStore
from iotsupport.backup import restoring, writing
from iotsupport.backup.models import last_backup
from iotsupport.database.snapshots import snapshot
from iotsupport.mirror.files import mirror_storage
from iotsupport.mirror.locks import try_lock
from iotsupport.serving import only_one
from iotsupport.tests.support.api_client import everything, make_administrator, make_user, use_directories
from iotsupport.tests.support.backups import CONTENT, FIRMWARE, MAC, back_up, fill, restore, stored, told
from iotsupport.tests.support.databases import Database
from iotsupport.tests.support.disk import Disk, may_mount
from iotsupport.tests.support.installations import leave_database, use
from iotsupport.tests.support.waiting import LIMIT
from notifications.models import Announcement
from notifications.publisher import publisher

pytestmark = pytest.mark.usefixtures("own_database", "data_dir")

# Struck or stopped, and noted, by a restoration.
CHANGED_BY_RESTORING = {"devices.change", "notifications.announcement"}


@pytest.fixture
def data_dir(tmp_path: Path, settings: Any) -> Path:
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    (settings.DATA_DIR / "secret_key").write_text(settings.SECRET_KEY)
    return Path(settings.DATA_DIR)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A backup of :func:`fill`."""
    fill()
    return back_up(tmp_path / "backup.zip")


@pytest.fixture
def move(
    migrated: Callable[[Path], Database],
    tmp_path_factory: pytest.TempPathFactory,
    own_database: Database,
    settings: Any,
) -> Iterator[Callable[[], Path]]:
    """Go to another installation, which is new; return its data directory."""
    others: list[Database] = []

    def move() -> Path:
        directory = tmp_path_factory.mktemp("other")
        others.append(migrated(directory))
        use(others[-1])
        use_directories(settings, directory)
        settings.DATA_DIR = directory
        (directory / "secret_key").write_text("another")
        settings.SECRET_KEY = "another"
        return directory

    yield move
    leave_database()
    for other in others:
        other.drop()
    use(own_database)


def files(alias: str) -> dict[str, bytes]:
    storage = mirror_storage(alias)
    return {name: Path(storage.path(name)).read_bytes() for name in storage.names()}


def but(rows: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: found for name, found in rows.items() if name not in names}


# --- What comes back ---


@pytest.mark.both_databases
def test_everything_comes_back_as_it_was(archive: Path, move: Callable[[], Path]) -> None:
    rows, values = stored(), told()
    bytes_before = {alias: files(alias) for alias in ["configs", "assets", "blobs"]}
    key = (Path(restoring.settings.DATA_DIR) / "secret_key").read_text()
    data_dir = move()

    said = restore(archive)

    assert but(stored(), CHANGED_BY_RESTORING) == but(rows, CHANGED_BY_RESTORING)
    assert but(told(), CHANGED_BY_RESTORING) == but(values, CHANGED_BY_RESTORING)
    assert {alias: files(alias) for alias in ["configs", "assets", "blobs"]} == bytes_before
    assert DeviceConfig.objects.get(mac_address=MAC).content == CONTENT.replace("1,", "2,", 1)
    assert (data_dir / "secret_key").read_text() == key
    assert stat.S_IMODE((data_dir / "secret_key").stat().st_mode) == 0o600
    assert "devices.historicaldeviceconfig: 6" in said
    call_command("sync_mirror", check=True, stdout=io.StringIO())


@pytest.mark.both_databases
def test_new_rows_come_after_those_that_are_restored(archive: Path, move: Callable[[], Path]) -> None:
    newest = DeviceConfig.history.latest().history_id, User.objects.latest("pk").pk
    move()
    restore(archive)

    saved = DeviceConfig.objects.put("00-00-00-00-00-03", "{}")

    assert saved.history.get().history_id > newest[0]
    assert make_user(username="new").pk > newest[1]


def test_nothing_is_announced_and_nothing_goes_on(archive: Path, move: Callable[[], Path]) -> None:
    move()

    said = restore(archive)

    announcement = Announcement.objects.get()
    assert (announcement.owed_since, announcement.claimed_by) == (None, "")
    assert not Change.objects.exclude(state=State.STOPPED).exists()
    assert all(change.worked_until is None and change.remark for change in Change.objects.all())
    assert "1 file was still to be announced" in said
    assert "2 changes of many were under way" in said


def test_sessions_and_half_uploads_end_with_the_server_that_has_them(archive: Path, move: Callable[[], Path]) -> None:
    move()
    SessionStore().save(must_create=True)
    user = make_administrator()
    PendingUpload.objects.create(filename="a", md5="", sha256="", size=0, user=user)

    restore(archive)

    assert not PendingUpload.objects.exists()
    assert User.objects.count() == 2
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM django_session")
        assert cursor.fetchone() == (0,)


# --- Into what ---


def test_only_an_empty_installation_is_replaced_unasked(archive: Path, move: Callable[[], Path]) -> None:
    move()
    DeviceConfig.objects.put(MAC, "{}")
    before = everything()

    with pytest.raises(CommandError, match="is not empty: it has 1 historical device configuration, 1 device conf"):
        restore(archive)

    assert everything() == before


def test_a_second_user_is_somebody(archive: Path, move: Callable[[], Path]) -> None:
    move()
    make_administrator()
    make_user(username="second")

    with pytest.raises(CommandError, match="it has 2 users"):
        restore(archive)


@pytest.mark.both_databases
def test_replacing_leaves_nothing_of_what_was_there(archive: Path, move: Callable[[], Path]) -> None:
    rows = stored()
    bytes_before = {alias: files(alias) for alias in ["configs", "assets", "blobs"]}
    move()
    DeviceConfig.objects.put("00-00-00-00-00-99", "{}")
    DeviceConfig.objects.put(MAC, '{"other": 1}')
    Asset.objects.upload("other.bin", [b"other"])
    Asset.objects.upload("firmware.bin", [b"other"])

    restore(archive, replace=True)

    assert but(stored(), CHANGED_BY_RESTORING) == but(rows, CHANGED_BY_RESTORING)
    assert {alias: files(alias) for alias in ["configs", "assets", "blobs"]} == bytes_before
    assert not Announcement.objects.owed().exists()


def test_bytes_that_are_damaged_here_are_replaced(archive: Path, move: Callable[[], Path]) -> None:
    directory = move()
    [name] = [
        name for name in os.listdir(archive.parent / "blobs") if (archive.parent / "blobs" / name).stat().st_size > 100
    ]
    (directory / "blobs" / name).write_bytes(b"damaged")

    restore(archive)

    assert files("blobs")[name] == FIRMWARE


def test_a_server_that_runs_is_not_replaced(
    archive: Path, move: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = move()
    monkeypatch.setattr(only_one, "PATIENCE_SECONDS", 0)
    monkeypatch.setattr(only_one, "ENDING_SECONDS", 0)
    said = [{"pid": os.getpid(), "address": "http://127.0.0.1:8000", "started": "2026-11-27T12:00:00+00:00"}]
    with (directory / "server.lock").open("w+b") as lock:  # as iotsupport.serving.only_one holds it
        lock.write(json.dumps(said).encode())
        lock.flush()
        assert try_lock(lock)
        with pytest.raises(CommandError, match="Another server serves DATA_DIR .* at http://127.0.0.1:8000"):
            restore(archive)
    restore(archive)


def test_no_server_starts_meanwhile(archive: Path, move: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    directory, refused = move(), []

    def look() -> None:
        with pytest.raises(only_one.TakenError) as refusal:
            only_one.take(directory)
        refused.append(str(refusal.value))

    monkeypatch.setattr("iotsupport.backup.beginning.require_empty", look)
    monkeypatch.setattr(only_one, "PATIENCE_SECONDS", 0)

    restore(archive)

    assert f"A command has DATA_DIR '{directory}' to itself: process {os.getpid()}, started" in refused[0]
    assert only_one.running_server(directory) is None


def test_a_key_that_the_environment_sets_stays(archive: Path, move: Callable[[], Path]) -> None:
    directory = move()
    (directory / "secret_key").write_text("not the one that is used")

    said = restore(archive)

    assert "SECRET_KEY is set in the environment, and stays" in said
    assert (directory / "secret_key").read_text() == "not the one that is used"


# --- While others work ---


@pytest.mark.both_databases
def test_what_is_saved_meanwhile_waits_for_nothing_and_is_not_in_it(own_database: Database) -> None:
    DeviceConfig.objects.put(MAC, "{}")
    with snapshot(connection):
        assert DeviceConfig.objects.count() == 1
        own_database.change("UPDATE devices_deviceconfig SET content = '[]'")
        assert DeviceConfig.objects.get().content == "{}"
    assert DeviceConfig.objects.get().content == "[]"


@pytest.mark.both_databases
def test_bytes_that_are_forgotten_meanwhile_are_in_it(
    tmp_path: Path, move: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    Asset.objects.upload("firmware.bin", [FIRMWARE])
    rows = told()
    write_rows = writing._write_rows

    def write_rows_and_forget(*arguments: Any) -> Any:
        found = write_rows(*arguments)
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(forget_assets).result(LIMIT) == []
        return found

    monkeypatch.setattr(writing, "_write_rows", write_rows_and_forget)
    archive = back_up(tmp_path / "backup.zip")
    assert len(Asset.collect_garbage()) == 1
    move()

    restore(archive)

    assert but(told(), CHANGED_BY_RESTORING) == but(rows, CHANGED_BY_RESTORING)
    assert list(files("blobs").values()) == [FIRMWARE]


def forget_assets() -> list[str]:
    """As housekeeping does, in the end; return what was removed of the bytes."""
    try:
        Asset.objects.all().delete()
        Asset.history.all().delete()
        return Asset.collect_garbage()
    finally:
        connection.close()


def test_bytes_that_are_lost_already_are_said_and_the_rest_is_there(
    archive: Path, tmp_path: Path, move: Callable[[], Path]
) -> None:
    lost, damaged, *_ = sorted(files("blobs"))
    os.unlink(tmp_path / "blobs" / lost)
    (tmp_path / "blobs" / damaged).write_bytes(b"damaged")
    said = io.StringIO()

    call_command("backup", str(tmp_path / "second.zip"), stdout=io.StringIO(), stderr=said)

    for sha256 in [lost, damaged]:
        assert f"The bytes {sha256} were missing or damaged when the backup was made." in said.getvalue()
    rows = told()
    move()
    with pytest.raises(CommandError, match="not all files follow them"):
        restore(tmp_path / "second.zip", stderr=io.StringIO())
    assert but(told(), CHANGED_BY_RESTORING) == but(rows, CHANGED_BY_RESTORING)
    assert not {lost, damaged} & set(files("blobs"))


# --- What is remembered ---


def test_when_the_last_backup_was_made_is_remembered(tmp_path: Path, move: Callable[[], Path]) -> None:
    assert last_backup() is None
    began = timezone.now()

    archive = back_up(tmp_path / "backup.zip")

    made = last_backup()
    assert made is not None
    assert timedelta() <= made.at - began < timedelta(minutes=10)
    assert made.size == archive.stat().st_size
    move()
    restore(archive)
    assert last_backup() == made


# --- A process that dies ---


@pytest.fixture
def killed_in() -> Callable[[str, Path], None]:
    """Restore in a process that is killed at a function of ``restoring``."""

    def killed_in(function: str, archive: Path) -> None:
        leave_database()
        child = os.fork()
        if not child:
            try:
                setattr(restoring, function, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
                restore(archive, replace=True)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL

    return killed_in


@pytest.mark.processes
@pytest.mark.parametrize("function", ["_replace_rows", "_finish_rows"])
def test_killed_before_the_commit_it_changed_nothing(
    archive: Path, move: Callable[[], Path], killed_in: Callable[[str, Path], None], function: str
) -> None:
    move()
    DeviceConfig.objects.put("00-00-00-00-00-99", "{}")
    Asset.objects.upload("other.bin", [b"other"])
    rows, seen = stored(), {alias: files(alias) for alias in ["configs", "assets", "blobs"]}

    killed_in(function, archive)

    assert len(files("blobs")) > 1
    call_command("sync_mirror", stdout=io.StringIO())  # as a start does
    assert (stored(), {alias: files(alias) for alias in seen}) == (rows, seen)


@pytest.mark.both_databases
@pytest.mark.processes
def test_killed_after_the_commit_the_next_start_makes_up_for_it_and_announces_nothing(
    archive: Path, move: Callable[[], Path], killed_in: Callable[[str, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = stored()
    seen = {alias: files(alias) for alias in ["configs", "assets", "blobs"]}
    move()
    DeviceConfig.objects.put(MAC, '{"other": 1}')

    killed_in("_put_secret_key", archive)

    assert but(stored(), CHANGED_BY_RESTORING) == but(rows, CHANGED_BY_RESTORING)
    assert files("configs") != seen["configs"]
    monkeypatch.setattr(type(publisher), "is_on", property(lambda self: True))
    call_command("sync_mirror", stdout=io.StringIO())
    assert {alias: files(alias) for alias in seen} == seen
    assert not Announcement.objects.owed().exists()
    # From then on, a start announces of which file it had old bytes.
    Path(mirror_storage("configs").path(f"{MAC}.json")).write_text("old")
    call_command("sync_mirror", stdout=io.StringIO())
    assert [each.filename for each in Announcement.objects.owed()] == [f"{MAC}.json"]


@pytest.mark.skipif(not may_mount(), reason="Only root may mount a disk, where mounting is allowed.")
@pytest.mark.processes
def test_a_full_disk_leaves_nothing_behind(archive: Path, move: Callable[[], Path], tmp_path: Path) -> None:
    with Disk(tmp_path / "disk", 32) as disk:
        disk.fill()
        with pytest.raises(CommandError, match="No room is left on the disk of the .*/disk directory"):
            back_up(disk.path / "backup.zip")
        assert [path.name for path in disk.path.iterdir()] == ["filler"]
    directory = move()
    before = everything()
    with Disk(directory / "blobs", 32) as disk:
        disk.fill()
        with pytest.raises(CommandError, match="No room is left on the disk of the blobs directory"):
            restore(archive)
        assert list(disk.path.iterdir()) == []  # what filled it is named by no row, either
    assert everything() == before


# --- Where to ---


def test_a_file_that_is_there_is_replaced_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "backup.zip"
    path.write_text("mine")
    with pytest.raises(CommandError, match="is there already. Name another file, or give --overwrite"):
        back_up(path)
    assert path.read_text() == "mine"

    back_up(path, overwrite=True)

    call_command("verify_backup", str(path), stdout=io.StringIO())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["configs/backup.zip", "missing/backup.zip", "configs"])
def test_a_place_where_it_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match="which is the server's own|is missing. Make it first|is no regular file"):
        back_up(tmp_path / name)
    assert list((tmp_path / "configs").iterdir()) == []


def test_it_goes_to_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "backup.zip").open("wb") as file, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", io.TextIOWrapper(file, write_through=True))
        call_command("backup", "-", stderr=io.StringIO())
        sys.stdout.detach()  # type: ignore[union-attr]

    call_command("verify_backup", str(tmp_path / "backup.zip"), stdout=io.StringIO())
