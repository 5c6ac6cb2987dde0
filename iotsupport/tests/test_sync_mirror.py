"""``manage.py sync_mirror``: files on disk are made equal to the database, and nothing else is served."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from assets.models import Asset, SharedChunk
from devices.models import DeviceConfig
from iotsupport.mirror.files import StagedFile, mirror_storage
from iotsupport.tests.support.databases import Database
from iotsupport.tests.support.server import manage

MAC = "aa-bb-cc-dd-ee-ff"
CONTENT = '{"version": 1}'

pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.fixture
def configs(directories: Path) -> Path:
    return directories / "configs"


@pytest.fixture
def saved_file(configs: Path) -> Path:
    """The file of a configuration in the database."""
    DeviceConfig.objects.put(MAC, CONTENT)
    return configs / f"{MAC}.json"


def sync_mirror(*options: str) -> str:
    output = StringIO()
    call_command("sync_mirror", *options, stdout=output, stderr=output)
    return output.getvalue()


def check() -> str:
    """What ``--check`` reports; it must find a difference."""
    output = StringIO()
    with pytest.raises(CommandError, match="Files and database differ. 'manage.py sync_mirror' makes them equal."):
        call_command("sync_mirror", "--check", stdout=output, stderr=output)
    return output.getvalue()


def download_status(client: Client) -> int:
    response = client.get(f"/configs/{MAC}.json")
    response.close()
    return response.status_code


@pytest.mark.both_databases
def test_says_that_all_is_equal(saved_file: Path) -> None:
    Asset.objects.upload("firmware.bin", [b"firmware"])

    assert sync_mirror() == "Files and database are equal.\n"
    assert sync_mirror("--check") == "Files and database are equal.\n"


def test_writes_a_missing_file(saved_file: Path) -> None:
    saved_file.unlink()

    assert check() == f"configs: {MAC}.json: differs from its row\n"
    assert not saved_file.exists()
    assert sync_mirror() == f"configs: {MAC}.json: written\n"
    assert saved_file.read_text() == CONTENT


@pytest.mark.both_databases
def test_writes_a_missing_asset_from_its_kept_bytes(directories: Path) -> None:
    Asset.objects.upload("firmware.bin", [b"firmware"])
    (directories / "assets" / "firmware.bin").unlink()

    assert sync_mirror() == "assets: firmware.bin: written\n"
    assert (directories / "assets" / "firmware.bin").read_bytes() == b"firmware"


def test_writes_a_file_that_was_tampered_with(saved_file: Path) -> None:
    saved_file.write_text('{"version": 9}')

    assert check() == f"configs: {MAC}.json: differs from its row\n"
    assert saved_file.read_text() == '{"version": 9}'
    assert sync_mirror() == f"configs: {MAC}.json: written\n"
    assert saved_file.read_text() == CONTENT


def test_writes_a_file_that_could_not_be_served(saved_file: Path) -> None:
    saved_file.chmod(0o600)

    assert sync_mirror() == f"configs: {MAC}.json: written\n"
    assert saved_file.stat().st_mode & 0o777 == 0o644


@pytest.mark.both_databases
def test_follows_an_update_that_sends_no_signals(saved_file: Path) -> None:
    DeviceConfig.objects.update(content='{"version": 2}')

    assert f"configs: {MAC}.json: written\n" in sync_mirror()
    assert saved_file.read_text() == '{"version": 2}'


@pytest.mark.both_databases
def test_removes_the_file_of_a_deleted_row(saved_file: Path) -> None:
    DeviceConfig.objects.get().delete()
    saved_file.write_text(CONTENT)  # as if the process was killed in between

    assert check() == f"configs: {MAC}.json: has no row\n"
    assert saved_file.exists()
    assert sync_mirror() == f"configs: {MAC}.json: removed\n"
    assert not saved_file.exists()


def test_removes_the_file_of_a_deleted_asset(directories: Path) -> None:
    Asset.objects.upload("firmware.bin", [b"firmware"]).delete()
    (directories / "assets" / "firmware.bin").write_bytes(b"firmware")

    assert sync_mirror() == "assets: firmware.bin: removed\n"
    assert not (directories / "assets" / "firmware.bin").exists()


@pytest.mark.parametrize("name", ["00-00-00-00-00-00.json", f"{MAC.upper()}.json", "notes.txt"])
def test_keeps_but_does_not_serve_what_it_does_not_know(client: Client, saved_file: Path, name: str) -> None:
    unknown = saved_file.with_name(name)
    unknown.write_text("{}")

    report = f"configs: {name}: is not known to the database; not served, and removed only by --delete-unknown\n"
    assert check() == report
    assert sync_mirror() == report
    assert unknown.read_text() == "{}"
    assert unknown.stat().st_mode & 0o777 == 0o600


def test_answers_404_for_what_it_does_not_know(client: Client, configs: Path) -> None:
    (configs / f"{MAC}.json").write_text("{}")

    assert download_status(client) == 200
    sync_mirror()
    assert download_status(client) == 404


def test_other_bytes_under_the_name_of_a_deleted_row_are_not_known(saved_file: Path) -> None:
    """Somebody may have put them there meanwhile, and the history would not bring them back."""
    DeviceConfig.objects.get().delete()
    saved_file.write_text('{"version": 9}')

    assert "is not known to the database" in sync_mirror()
    assert saved_file.read_text() == '{"version": 9}'


def test_serves_a_file_that_was_not_known_once_it_is_saved(client: Client, configs: Path) -> None:
    (configs / f"{MAC}.json").write_text(CONTENT)
    sync_mirror()

    DeviceConfig.objects.put(MAC, CONTENT)

    assert download_status(client) == 200
    assert sync_mirror("--check") == "Files and database are equal.\n"


def test_removes_what_it_does_not_know_only_when_told_to(saved_file: Path) -> None:
    saved_file.with_name("notes.txt").write_text("notes")

    assert sync_mirror("--delete-unknown") == "configs: notes.txt: removed\n"
    assert [path.name for path in saved_file.parent.iterdir()] == [saved_file.name]


def test_refuses_to_check_and_delete_at_once(directories: Path) -> None:
    with pytest.raises(CommandError, match="--check changes nothing, so --delete-unknown does not go with it."):
        sync_mirror("--check", "--delete-unknown")


def test_removes_what_killed_processes_left(directories: Path) -> None:
    left = {"configs": ".new-1", "assets": ".new-2", "blobs": ".new-3"}
    for directory, name in left.items():
        (directories / directory / name).write_text("half")

    assert check() == "configs: .new-1: was left by a killed process\nassets: .new-2: was left by a killed process\n"
    assert len(list(directories.glob("*/.new-*"))) == 3
    assert sync_mirror() == "".join(
        f"{label}: {name}: removed: left by a killed process\n"
        for label, name in [("configs", ".new-1"), ("assets", ".new-2"), ("assets", ".new-3")]
    )
    assert list(directories.glob("*/.new-*")) == []


@pytest.mark.both_databases
def test_leaves_alone_what_is_being_saved(configs: Path) -> None:
    staged = StagedFile(mirror_storage("configs"))

    assert sync_mirror() == "Files and database are equal.\n"
    assert staged.path.exists()


def test_goes_on_after_what_it_cannot_repair(directories: Path) -> None:
    for filename, content in [("first.bin", b"1"), ("second.bin", b"2")]:
        asset = Asset.objects.upload(filename, [content])
        (directories / "assets" / filename).unlink()
        if filename == "first.bin":
            (directories / "blobs" / asset.sha256).unlink()
            SharedChunk.objects.all().delete()  # where other nodes would fetch it
    output = StringIO()

    with pytest.raises(CommandError, match="Not everything could be made equal; see above."):
        call_command("sync_mirror", stdout=output, stderr=output)

    assert "assets: The change is saved, but the file of first.bin is not up to date: " in output.getvalue()
    assert "Upload the file again." in output.getvalue()
    assert "assets: second.bin: written\n" in output.getvalue()


def test_goes_on_where_something_stands_in_the_way_of_a_file(saved_file: Path) -> None:
    DeviceConfig.objects.put("aa-bb-cc-dd-ee-01", CONTENT)
    for path in list(saved_file.parent.iterdir()):
        path.unlink()
    saved_file.mkdir()
    output = StringIO()

    with pytest.raises(CommandError, match="Not everything could be made equal; see above."):
        call_command("sync_mirror", stdout=output, stderr=output)

    assert "The configs directory cannot be used (Is a directory). Repair it" in output.getvalue()
    assert saved_file.with_name("aa-bb-cc-dd-ee-01.json").read_text() == CONTENT


@pytest.mark.parametrize("option", ["--check", "--verbosity=1"])
def test_says_which_directory_is_missing(saved_file: Path, option: str) -> None:
    saved_file.parent.rename(saved_file.parent.with_name("elsewhere"))
    output = StringIO()

    with pytest.raises(CommandError):
        call_command("sync_mirror", option, stdout=output, stderr=output)

    assert "configs: The configs directory is missing. Create it for the server's user" in output.getvalue()


@pytest.mark.both_databases
def test_what_is_saved_while_it_looks_stays_served(
    client: Client, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read all rows, and then finds a file that none of them is for."""
    (configs / f"{MAC}.json").write_text("{}")
    look_up = DeviceConfig.remembers

    def save_meanwhile(filename: str, sha256: str) -> bool:
        known = look_up(filename, sha256)
        DeviceConfig.objects.put(MAC, CONTENT)
        return known

    monkeypatch.setattr(DeviceConfig, "remembers", save_meanwhile)
    sync_mirror()

    assert download_status(client) == 200


@pytest.mark.both_databases
def test_what_is_deleted_while_it_looks_is_no_error(saved_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_file.with_name("notes.txt").write_text("notes")
    names = type(mirror_storage("configs")).names

    def delete_meanwhile(storage: object) -> list[str]:
        found = names(mirror_storage("configs"))
        saved_file.with_name("notes.txt").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(type(mirror_storage("configs")), "names", delete_meanwhile)

    assert sync_mirror() == "Files and database are equal.\n"


@pytest.mark.both_databases
def test_fixtures_are_mirrored(configs: Path, tmp_path: Path) -> None:
    fixture = tmp_path / "configs_fixture.json"
    now = "2026-01-01T00:00:00Z"
    fields = {"mac_address": MAC, "content": CONTENT, "created_at": now, "updated_at": now}
    fixture.write_text(json.dumps([{"model": "devices.deviceconfig", "pk": 1, "fields": fields}]))

    call_command("loaddata", str(fixture), verbosity=0)

    assert (configs / f"{MAC}.json").read_text() == CONTENT


@pytest.mark.both_databases
@pytest.mark.processes
def test_a_database_that_is_not_migrated_is_said_in_a_sentence(
    new_database: Callable[[Path], Database], tmp_path: Path
) -> None:
    database = new_database(tmp_path / "new")

    done = manage({"DATA_DIR": str(tmp_path / "new"), **database.environ}, "sync_mirror", check=False)

    assert done.returncode == 1
    assert re.search('not migrated: (no such table|relation ".*" does not exist)', done.stderr)
    assert "Traceback" not in done.stderr
