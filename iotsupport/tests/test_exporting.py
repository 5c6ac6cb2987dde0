"""``manage.py export_configs`` and ``export_assets``: files as people keep them in git."""

from __future__ import annotations

import errno
import os
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from assets.models import Asset
from devices.models import DeviceConfig, DeviceType
from iotsupport.management import exporting
from iotsupport.mirror import files as mirror
from iotsupport.tests.support.server import files

MAC, OTHER = "aa-bb-cc-dd-ee-ff", "00-00-00-00-00-01"
TEXT = '{ "b": 1.0,\r\n"a": "é" }\n'
SCHEMA = '{ "properties": {"pin": {"enum": [1, 2]}} }'

pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "kept in git"


def run(command: str, directory: Path, *options: str, **more: Any) -> list[str]:
    """The lines of what it says."""
    output = StringIO()
    call_command(command, str(directory), *options, stdout=output, stderr=output, **more)
    return output.getvalue().splitlines()


def times(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}


@pytest.mark.both_databases
def test_configurations_byte_for_byte(target: Path) -> None:
    DeviceConfig.objects.put(MAC, TEXT)
    DeviceConfig.objects.put(OTHER, "{}")

    lines = run("export_configs", target)

    assert files(target) == {f"{MAC}.json": TEXT.encode(), f"{OTHER}.json": b"{}"}
    assert lines == [f"{OTHER}.json: new", f"{MAC}.json: new", "2 new, 0 changed, 0 unchanged, 0 removed"]


@pytest.mark.both_databases
def test_assets_byte_for_byte(target: Path) -> None:
    Asset.objects.upload("firmware.bin", [b"one", b"two"])
    Asset.objects.upload("empty.bin", [])

    lines = run("export_assets", target)

    assert files(target) == {"firmware.bin": b"onetwo", "empty.bin": b""}
    assert lines[-1] == "2 new, 0 changed, 0 unchanged, 0 removed"


def test_what_is_the_same_is_not_touched(target: Path) -> None:
    DeviceConfig.objects.put(MAC, TEXT)
    DeviceConfig.objects.put(OTHER, "{}")
    run("export_configs", target)
    before = times(target)
    DeviceConfig.objects.put(OTHER, "[]".replace("[]", '{"a": 1}'))

    lines = run("export_configs", target)

    assert lines == [f"{OTHER}.json: changed", "0 new, 1 changed, 1 unchanged, 0 removed"]
    assert [name for name, time in times(target).items() if time != before[name]] == [f"{OTHER}.json"]


def test_a_file_of_the_same_size_is_another_one_all_the_same(target: Path) -> None:
    Asset.objects.upload("firmware.bin", [b"new"])
    target.mkdir()
    (target / "firmware.bin").write_bytes(b"old")

    assert run("export_assets", target) == ["firmware.bin: changed", "0 new, 1 changed, 0 unchanged, 0 removed"]
    assert files(target) == {"firmware.bin": b"new"}


@pytest.mark.both_databases
def test_types_lie_beside_and_come_in_again(target: Path) -> None:
    kitchen = DeviceType.objects.create(name="Küche 1", folded="küche 1", schema=SCHEMA, starting_content="{}")
    DeviceConfig(mac_address=MAC, content=TEXT, type=kitchen).save()
    DeviceConfig.objects.put(OTHER, "{}")

    run("export_configs", target)

    assert (target / "types.json").read_text() == f'{{\n "{MAC}": "Küche 1"\n}}\n'
    assert SCHEMA in (target / "types" / "Küche 1.json").read_text()
    DeviceConfig.objects.all().delete()
    kitchen.delete()
    assert run("import_configs", target)[-1] == "3 taken, 0 replaced, 0 unchanged, 0 refused"
    back = DeviceConfig.objects.get(mac_address=MAC)
    assert back.type is not None
    assert (back.content, back.type.name, back.type.schema) == (TEXT, "Küche 1", SCHEMA)
    assert DeviceConfig.objects.get(mac_address=OTHER).type is None


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize("options", [[], ["--delete"]])
def test_what_was_deleted_is_removed_on_request_and_nothing_else_ever(target: Path, options: list[str]) -> None:
    DeviceConfig.objects.put(MAC, "{}")
    Asset.objects.upload("old.bin", [b"old"])
    for command in ["export_configs", "export_assets"]:
        run(command, target)
    DeviceConfig.objects.all().delete()
    Asset.objects.all().delete()
    (target / ".git" / "objects").mkdir(parents=True)
    (target / ".git" / f"{MAC}.json").touch()
    for name in ["README.md", "notes.json", f"{MAC}.txt"]:
        (target / name).touch()

    said = run("export_configs", target, *options) + run("export_assets", target, *options)

    ours = {f"{MAC}.json", "old.bin"}
    left = {path.name for path in target.iterdir()}
    assert left == {".git", "README.md", "notes.json", f"{MAC}.txt", *(ours if not options else [])}
    assert (target / ".git" / f"{MAC}.json").exists()
    for name in ours:
        assert (f"{name}: removed" if options else f"{name}: it was deleted; --delete removes it.") in said


@pytest.mark.parametrize("content", ["precious", TEXT])
def test_a_link_is_replaced_and_what_it_leads_to_stays(target: Path, tmp_path: Path, content: str) -> None:
    DeviceConfig.objects.put(MAC, TEXT)
    target.mkdir()
    (tmp_path / "elsewhere").write_bytes(content.encode())
    (target / f"{MAC}.json").symlink_to(tmp_path / "elsewhere")

    run("export_configs", target)

    assert (tmp_path / "elsewhere").read_bytes() == content.encode()
    assert not (target / f"{MAC}.json").is_symlink()
    assert (target / f"{MAC}.json").read_bytes() == TEXT.encode()


@pytest.mark.parametrize("where", ["configs", "assets", "blobs", "configs/below", "link", "data/below"])
@pytest.mark.parametrize("command", ["export_configs", "export_assets"])
def test_never_writes_where_files_follow_rows(
    command: str, where: str, directories: Path, tmp_path: Path, settings: Any
) -> None:
    settings.DATA_DIR = tmp_path / "data"
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(directories / "configs")
    DeviceConfig.objects.put(MAC, "{}")

    with pytest.raises(CommandError, match="which is the server's own. Name another directory."):
        run(command, directories / where)


def test_wants_a_directory_or_one_to_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CommandError, match="file is not a directory. Name one for the files"):
        run("export_configs", tmp_path / "file")
    with pytest.raises(CommandError, match="missing is missing. Make it first"):
        run("export_configs", tmp_path / "missing" / "below")


def test_a_full_disk_is_told_and_leaves_nothing_half(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DeviceConfig.objects.put(MAC, TEXT)

    def full_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mirror.os, "fsync", full_disk)

    with pytest.raises(CommandError, match="No room is left on the disk of the export directory. Free some space"):
        run("export_configs", target)
    assert files(target) == {}


def test_what_a_killed_one_left_goes_with_the_next(target: Path) -> None:
    target.mkdir()
    (target / ".new-0123").touch()

    assert run("export_configs", target) == [
        ".new-0123: removed: left by a killed process",
        "0 new, 0 changed, 0 unchanged, 1 removed",
    ]
    assert files(target) == {}


@pytest.mark.both_databases
def test_many_are_written_in_several_turns(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "TOGETHER", 2)
    monkeypatch.setattr("devices.transfer.exporting.TOGETHER", 3)
    for number in range(7):
        DeviceConfig.objects.put(f"00-00-00-00-00-{number:02}", f'{{"number": {number}}}')

    assert run("export_configs", target)[-1] == "7 new, 0 changed, 0 unchanged, 0 removed"
    assert len(files(target)) == 7
