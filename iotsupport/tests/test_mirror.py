"""Files on disk follow the rows, whatever fails in between. Seen through the two models that are mirrored."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from django.db import IntegrityError, transaction
from django.test.utils import CaptureQueriesContext

from assets.models import Asset
from assets.uploads import StagedBlob
from devices.models import DeviceConfig
from iotsupport.mirror import files as mirror
from iotsupport.mirror.after_commit import Change, make_all_equal, make_equal
from iotsupport.mirror.files import MirrorBehindError, MirrorError, MirrorStorage, StagedFile, mirror_storage
from iotsupport.mirror.rows import Wanted
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.server import files
from iotsupport.tests.support.waiting import LIMIT

MAC = "aa-bb-cc-dd-ee-ff"

pytestmark = pytest.mark.usefixtures("transactional_db")


class Refusal(Exception):
    """What makes a transaction roll back."""


def save(content: str = '{"version": 1}', mac_address: str = MAC) -> DeviceConfig:
    return DeviceConfig.objects.put(mac_address, content)


def upload(content: bytes, filename: str = "firmware.bin") -> Asset:
    return Asset.objects.upload(filename, [content])


@pytest.fixture
def configs(directories: Path) -> Path:
    return directories / "configs"


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """What the commits would do to the files, to be called by the test: as if other processes were in between."""
    postponed: list[Callable[[], Any]] = []
    monkeypatch.setattr(Change, "follow_commit", lambda change: postponed.append(partial(make_all_equal, [change])))
    return postponed


# --- What is saved -----------------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_a_saved_row_has_its_file(configs: Path) -> None:
    save('{ "b": 1.0,\r\n"a": "é" }\n')

    assert files(configs) == {f"{MAC}.json": '{ "b": 1.0,\r\n"a": "é" }\n'.encode()}


def test_a_file_can_be_read_by_the_web_server_whatever_the_umask(directories: Path) -> None:
    previous = os.umask(0o077)
    try:
        save()
        upload(b"firmware")
    finally:
        os.umask(previous)

    modes = {
        path.name: path.stat().st_mode & 0o777
        for name in ["configs", "assets"]
        for path in (directories / name).iterdir()
    }
    assert modes == {f"{MAC}.json": 0o644, "firmware.bin": 0o644}


def test_a_reader_keeps_the_old_file_while_it_is_replaced(configs: Path) -> None:
    save('{"version": 1}')

    with (configs / f"{MAC}.json").open() as reader:
        save('{"version": 2}')

        assert reader.read() == '{"version": 1}'


@pytest.mark.both_databases
def test_new_bytes_are_on_the_disk_before_the_transaction(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bytes, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.pread(descriptor, 100, 0), transaction.get_connection().in_atomic_block))

    monkeypatch.setattr(mirror.os, "fsync", fsync)

    save('{"version": 1}')

    assert synced == [(b'{"version": 1}', False)]


@pytest.mark.both_databases
def test_no_two_versions_have_the_same_date(configs: Path) -> None:
    """``Last-Modified`` counts seconds, and a device may have asked within the same one."""
    dates = []
    for version in range(5):
        save(f'{{"version": {version}}}')
        dates.append(int((configs / f"{MAC}.json").stat().st_mtime))

    assert sorted(set(dates)) == dates


@pytest.mark.both_databases
def test_a_row_that_changes_its_name_takes_its_file_with_it(configs: Path) -> None:
    save()
    config = DeviceConfig.objects.get()

    config.mac_address = "00-00-00-00-00-01"
    config.save()

    assert list(files(configs)) == ["00-00-00-00-00-01.json"]


# --- What is refused or rolled back ------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_a_rollback_leaves_nothing(directories: Path) -> None:
    with pytest.raises(Refusal), transaction.atomic():
        save()
        upload(b"firmware")
        raise Refusal

    assert [files(directories / name) for name in ["configs", "assets", "blobs"]] == [{}, {}, {}]


@pytest.mark.both_databases
def test_a_rollback_to_a_savepoint_leaves_what_was_saved_before(configs: Path) -> None:
    with transaction.atomic():
        save('{"version": 1}')
        with pytest.raises(Refusal), transaction.atomic():
            save('{"version": 2}')
            raise Refusal

    assert files(configs) == {f"{MAC}.json": b'{"version": 1}'}
    assert DeviceConfig.objects.get().content == '{"version": 1}'


@pytest.mark.both_databases
def test_a_save_outside_of_a_transaction_is_refused_as_a_whole(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save('{"version": 1}')
    config = DeviceConfig.objects.get()
    config.content = '{"version": 2}'
    monkeypatch.setattr(mirror.os, "fsync", full_disk)

    with pytest.raises(MirrorError, match="No room is left on the disk of the configs directory. Free some space"):
        config.save()

    assert DeviceConfig.objects.get().content == '{"version": 1}'
    assert DeviceConfig.history.count() == 1
    assert files(configs) == {f"{MAC}.json": b'{"version": 1}'}


def full_disk(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_what_fills_the_disk_goes_while_its_error_is_still_around(
    configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror.os, "fsync", full_disk)

    with pytest.raises(MirrorError) as caught:
        save()

    assert files(configs) == {}
    assert caught.value.__cause__ is not None


@pytest.mark.both_databases
def test_a_constraint_that_fails_late_leaves_nothing(configs: Path) -> None:
    save()

    with pytest.raises(IntegrityError):
        DeviceConfig(mac_address=MAC, content='{"version": 2}').save()

    assert files(configs) == {f"{MAC}.json": b'{"version": 1}'}


@pytest.mark.both_databases
def test_says_that_the_row_is_saved_when_its_file_cannot_follow(configs: Path) -> None:
    (configs / f"{MAC}.json").mkdir()  # nothing can be renamed to that

    with pytest.raises(MirrorBehindError, match=f"The change is saved, but the file of {MAC}.json is not up to date"):
        save()

    assert DeviceConfig.objects.count() == 1
    assert list(files_and_directories(configs)) == [f"{MAC}.json"]


def files_and_directories(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_says_so_too_when_not_even_the_temporary_file_can_be_removed(
    configs: Path, late: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk becomes read-only between the save and its commit."""
    save()
    monkeypatch.setattr(mirror.os, "utime", read_only_disk)
    monkeypatch.setattr(mirror.Path, "unlink", read_only_disk)

    with pytest.raises(MirrorBehindError, match="cannot be written"):
        late[0]()


def test_what_was_behind_once_is_not_told_with_the_next_change(
    configs: Path, late: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    save()
    monkeypatch.setattr(mirror.os, "utime", read_only_disk)
    with pytest.raises(MirrorBehindError) as caught:
        late[0]()
    monkeypatch.undo()

    save(mac_address="aa-bb-cc-dd-ee-00")

    assert list(files(configs)) == ["aa-bb-cc-dd-ee-00.json"]
    assert "cannot be written" in str(caught.value)  # its traceback keeps all that was behind


def read_only_disk(*arguments: Any, **options: Any) -> None:
    raise OSError(30, "Read-only file system")


# --- The last commit wins ----------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_two_saves_that_get_to_the_file_in_the_other_order(configs: Path, late: list[Callable[[], Any]]) -> None:
    save('{"version": 1}')
    save('{"version": 2}')
    first, second = late

    second()
    first()

    assert files(configs) == {f"{MAC}.json": b'{"version": 2}'}


@pytest.mark.both_databases
def test_a_save_that_gets_to_the_file_after_the_delete(configs: Path, late: list[Callable[[], Any]]) -> None:
    save()
    DeviceConfig.objects.get().delete()
    saved, deleted = late

    deleted()
    saved()

    assert files(configs) == {}


@pytest.mark.both_databases
def test_a_delete_that_gets_to_the_file_after_the_next_save(configs: Path, late: list[Callable[[], Any]]) -> None:
    save('{"version": 1}')
    DeviceConfig.objects.get().delete()
    save('{"version": 2}')
    first, deleted, second = late

    first()
    second()
    deleted()

    assert files(configs) == {f"{MAC}.json": b'{"version": 2}'}


@pytest.mark.both_databases
@pytest.mark.processes
def test_looks_at_the_row_only_while_nobody_else_can_change_the_file(
    configs: Path, late: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a process may look, wait, and then write what has been replaced meanwhile."""
    save()
    held: list[bool] = []
    look = DeviceConfig.wanted_files

    def spy(filenames: list[str], using: str) -> dict[str, Wanted]:
        held.append(is_locked_for_another_process(mirror_storage("configs").lock_path))
        return look(filenames, using)

    monkeypatch.setattr(DeviceConfig, "wanted_files", spy)
    late[0]()

    assert held == [True]


def is_locked_for_another_process(path: Path) -> bool:
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=LIMIT)
    return "BlockingIOError" in done.stderr


# --- Deletes -----------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_a_deleted_row_takes_its_file_with_it(configs: Path) -> None:
    save().delete()

    assert files(configs) == {}


@pytest.mark.both_databases
def test_deleting_many_at_once_removes_their_files(directories: Path) -> None:
    for number in range(3):
        save(mac_address=f"aa-bb-cc-dd-ee-{number:02x}")
        upload(b"%d" % number, f"{number}.bin")

    DeviceConfig.objects.exclude(mac_address="aa-bb-cc-dd-ee-02").delete()
    Asset.objects.exclude(filename="2.bin").delete()

    assert list(files(directories / "configs")) == ["aa-bb-cc-dd-ee-02.json"]
    assert list(files(directories / "assets")) == ["2.bin"]


def test_a_row_whose_file_is_missing_can_be_deleted(configs: Path) -> None:
    config = save()
    (configs / config.filename).unlink()

    config.delete()

    assert not DeviceConfig.objects.exists()


@pytest.mark.both_databases
def test_a_delete_that_is_rolled_back_leaves_the_file(configs: Path) -> None:
    config = save()

    with pytest.raises(Refusal), transaction.atomic():
        config.delete()
        raise Refusal

    assert files(configs) == {f"{MAC}.json": b'{"version": 1}'}


@pytest.mark.both_databases
def test_a_delete_is_refused_before_the_commit_where_names_cannot_be_changed(
    configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = save()
    monkeypatch.setattr(mirror.os, "access", lambda path, mode: False)  # root may always, see the tests with disks

    with pytest.raises(MirrorError, match="The configs directory cannot be written. Make it writable"):
        config.delete()

    assert DeviceConfig.objects.count() == 1
    assert files(configs) == {f"{MAC}.json": b'{"version": 1}'}


def test_a_delete_is_refused_where_the_directory_is_gone(configs: Path) -> None:
    config = save()
    configs.rename(configs.with_name("elsewhere"))

    with pytest.raises(MirrorError, match="The configs directory is missing. Create it"):
        config.delete()

    assert DeviceConfig.objects.count() == 1


# --- Temporary files ---------------------------------------------------------------------------------------------


@pytest.fixture
def storage(configs: Path) -> MirrorStorage:
    return MirrorStorage(configs)


@pytest.fixture
def other_process(configs: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a save: its new bytes are staged, and not in place."""
    code = (
        "import django, sys; django.setup(); from iotsupport.mirror.files import MirrorStorage;"
        "staged = MirrorStorage(sys.argv[1]).stage([b'new']); print(staged.path, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(configs)]
    with subprocess.Popen(command, cwd=BASE_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(str(configs / ".new-"))
        yield process
        process.kill()


@pytest.mark.processes
def test_leaves_alone_what_another_process_is_writing(
    storage: MirrorStorage, configs: Path, other_process: subprocess.Popen[str]
) -> None:
    assert storage.leftovers(remove=True) == []
    assert len(files(configs)) == 1


@pytest.mark.processes
def test_removes_what_a_killed_process_left(
    storage: MirrorStorage, configs: Path, other_process: subprocess.Popen[str]
) -> None:
    other_process.kill()
    other_process.wait(LIMIT)
    [left] = files(configs)

    assert [path.name for path in storage.leftovers()] == [left]
    assert list(files(configs)) == [left]
    assert [path.name for path in storage.leftovers(remove=True)] == [left]
    assert files(configs) == {}


def test_a_leftover_is_removed_while_it_is_locked(
    storage: MirrorStorage, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the process that has just made it may lock it in between, and lose it."""
    (configs / ".new-1").touch()
    locked: list[bool] = []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        with path.open("rb") as file:
            locked.append(not mirror.try_lock(file))

    monkeypatch.setattr(mirror.Path, "unlink", unlink)

    storage.leftovers(remove=True)

    assert locked == [True]


def test_begins_again_where_its_new_file_is_taken_for_a_leftover(
    storage: MirrorStorage, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may look between the making and the locking."""
    chmod = os.fchmod
    looked: list[Path] = []

    def look_meanwhile(descriptor: int, mode: int) -> None:
        chmod(descriptor, mode)
        if not looked:
            looked.extend(MirrorStorage(configs).leftovers(remove=True))

    monkeypatch.setattr(mirror.os, "fchmod", look_meanwhile)

    storage.replace("data.json", storage.stage([b"new"]))

    assert len(looked) == 1
    assert files(configs) == {"data.json": b"new"}


def test_leaves_no_second_file_where_another_process_has_locked_the_first(
    storage: MirrorStorage, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chmod = os.fchmod
    locked: list[BinaryIO] = []

    def lock_meanwhile(descriptor: int, mode: int) -> None:
        chmod(descriptor, mode)
        if not locked:
            [path] = configs.iterdir()
            locked.append(path.open("rb"))
            fcntl.flock(locked[0], fcntl.LOCK_EX)

    monkeypatch.setattr(mirror.os, "fchmod", lock_meanwhile)

    storage.replace("data.json", storage.stage([b"new"]))
    locked[0].close()

    assert files(configs) == {"data.json": b"new"}


@pytest.mark.both_databases
def test_the_garbage_collector_may_run_while_the_directory_is_locked(directories: Path) -> None:
    """It closes interrupted uploads, which needs the lock too: waiting for it would be for ever."""
    gc.disable()
    try:
        blob: Any = StagedBlob()
        blob.itself = blob
        del blob

        with mirror_storage("blobs").lock():
            gc.collect()
    finally:
        gc.enable()

    assert files(directories / "blobs") == {}


# --- Cost --------------------------------------------------------------------------------------------------------


def test_a_save_costs_the_same_with_many_devices(django_assert_max_num_queries: Any) -> None:
    save()
    with CaptureQueriesContext(transaction.get_connection()) as few:
        save('{"version": 2}')
    for number in range(50):
        save(mac_address=f"00-00-00-00-00-{number:02x}")

    with django_assert_max_num_queries(len(few)):
        save('{"version": 3}')


# --- The bytes of assets -----------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_the_bytes_of_every_version_are_kept(directories: Path) -> None:
    upload(b"one")
    upload(b"two")

    assert files(directories / "assets") == {"firmware.bin": b"two"}
    assert sorted(files(directories / "blobs").values()) == [b"one", b"two"]


@pytest.mark.both_databases
def test_a_rolled_back_upload_does_not_take_away_what_another_one_brought(directories: Path) -> None:
    upload(b"same", "first.bin")

    with pytest.raises(Refusal), transaction.atomic():
        upload(b"same", "second.bin")
        raise Refusal

    assert files(directories / "assets") == {"first.bin": b"same"}
    assert list(files(directories / "blobs").values()) == [b"same"]


@pytest.mark.both_databases
def test_an_upload_outlives_the_rollback_of_an_earlier_one_with_the_same_bytes(directories: Path) -> None:
    early, late = StagedBlob(), StagedBlob()
    for blob in [early, late]:
        blob.write(b"same")
    with pytest.raises(Refusal), transaction.atomic():
        early.keep()
        with transaction.atomic():
            late.keep()
        raise Refusal
    with transaction.atomic():
        late.keep()

    early.close()

    assert list(files(directories / "blobs").values()) == [b"same"]


@pytest.mark.both_databases
def test_the_start_leaves_alone_the_bytes_of_an_upload_that_is_not_committed(directories: Path) -> None:
    blob = StagedBlob()
    blob.write(b"firmware")
    with transaction.atomic():
        blob.keep()

        assert Asset.collect_garbage() == []  # though no row names it yet

    assert list(files(directories / "blobs").values()) == [b"firmware"]


@pytest.mark.both_databases
def test_the_start_removes_bytes_that_no_version_names(directories: Path) -> None:
    upload(b"named")
    (directories / "blobs" / ("0" * 64)).write_bytes(b"of a killed upload")

    assert Asset.collect_garbage() == ["0" * 64]
    assert list(files(directories / "blobs").values()) == [b"named"]


def test_damaged_bytes_are_never_mirrored(directories: Path) -> None:
    asset = upload(b"firmware")
    (directories / "blobs" / asset.sha256).write_bytes(b"FIRMWARE")
    (directories / "assets" / "firmware.bin").unlink()

    with pytest.raises(MirrorBehindError, match="missing or damaged. Upload the file again."):
        make_equal(Asset, "firmware.bin", "default")

    assert files(directories / "assets") == {}


# --- Names -------------------------------------------------------------------------------------------------------


def test_temporary_names_cannot_meet(configs: Path) -> None:
    """One made by swapping the suffix would be the same for fw.bin and fw.elf."""
    staged = [StagedFile(mirror_storage("configs")) for _ in range(100)]

    assert len({file.path for file in staged}) == 100
    assert all(re.fullmatch(r"\.new-[0-9a-f]{32}", file.path.name) for file in staged)
