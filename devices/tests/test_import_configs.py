"""``manage.py import_configs``: a directory of ``<mac>.json`` files is taken over, byte for byte."""

from __future__ import annotations

import gzip
import random
import re
from contextlib import suppress
from io import StringIO
from itertools import count
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from devices.management.commands.import_configs import Command
from devices.models import DeviceConfig
from devices.transfer import importing
from devices.writing import Write, Written, write_many
from iotsupport.management import progress
from iotsupport.management.progress import CLEAR
from iotsupport.tests.support.api_client import nothing_changed
from iotsupport.tests.support.server import files
from iotsupport.tests.support.waiting import LIMIT

SPELLINGS = [
    "{0}-{1}-{2}-{3}-{4}-{5}",
    "{0}:{1}:{2}:{3}:{4}:{5}",
    "{0}{1}{2}{3}{4}{5}",
]

CONTENTS = [
    "{}",
    '{"deviceName": "Lamp", "deviceEntityId": "lamp", "enableOTA": true}',
    '{\n  "deviceName": "Küche 🍳",\n  "n": 1e3,\n  "big": 12345678901234567890\n}\n',
    '{\r\n\t"deviceName" : "K\\u00fcche",\r\n\t"zero": 1.0\r\n}\r\n',
    '\n\n{"b": [1, 2], "a": {"deviceName": 1}}  \n\n',
]

# Each layout in each spelling, in small letters and in capitals.
FILES = 2 * len(SPELLINGS) * len(CONTENTS)

REFUSED = {
    "aa-bb-cc-dd-ee-00.json": (b"[1]", "Line 1, column 1: write one JSON object"),
    "aa-bb-cc-dd-ee-01.json": (b'{"a": }', "Line 1, column 7: a value is missing here."),
    "aa-bb-cc-dd-ee-02.json": (b'{"a": 1, "a": 2}', 'the key "a" is in this object already'),
    "aa-bb-cc-dd-ee-03.json": (b'{"a": NaN}', "NaN is no number in JSON"),
    "aa-bb-cc-dd-ee-04.json": (b'{"a": "\xff"}', "the byte 0xff is not UTF-8"),
    "aa-bb-cc-dd-ee-05.json": (b"\xef\xbb\xbf{}", "the text begins with a byte order mark"),
    "aa-bb-cc-dd-ee-06.json": (b'{"a": "%s"}' % (b"x" * 70_000), "It is larger than 65536 bytes"),
    "aa-bb-cc-dd-ee-07.json": (b"", "nothing is here"),
    "aa-bb-cc-dd-ee.json": (b"{}", "This is not a MAC address"),
    "aa-bb:cc-dd-ee-ff.json": (b"{}", "This is not a MAC address"),
    "aa-bb-cc-dd-ee-0a.json": (gzip.compress(b"{}"), "This is compressed (gzip), not text. Unpack it first."),
    "aa-bb-cc-dd-ee-09.json": ('{"a":\u00a01}'.encode(), "NO-BREAK SPACE (U+00A0) stands here"),
    "aa-bb-cc-dd-ee-08.txt": (b"{}", "It is not called <MAC address>.json"),
}

MAC = "aa-bb-cc-dd-ee-ff"

pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.fixture
def configs(directories: Path) -> Path:
    return directories / "configs"


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    """Files in all spellings and layouts that exist."""
    directory = tmp_path / "existing"
    directory.mkdir()
    for number in range(FILES):
        (directory / spelled(number)).write_bytes(content(number))
    return directory


def pairs(number: int) -> list[str]:
    digits = random.Random(number).randbytes(6).hex()  # noqa: S311 - to be repeatable
    return [digits[i : i + 2] for i in range(0, 12, 2)]


def spelled(number: int) -> str:
    name = SPELLINGS[number % len(SPELLINGS)].format(*pairs(number))
    return f"{name.upper() if number % 2 else name}.json"


def content(number: int) -> bytes:
    return CONTENTS[number % len(CONTENTS)].encode()


def expected_files() -> dict[str, bytes]:
    return {f"{'-'.join(pairs(number))}.json": content(number) for number in range(FILES)}


def import_configs(directory: Path, *options: str) -> list[str]:
    """The lines of the report."""
    output = StringIO()
    call_command("import_configs", str(directory), *options, stdout=output, stderr=output)
    return output.getvalue().splitlines()


def refuse_configs(directory: Path, *options: str) -> list[str]:
    """The lines of the report of an import that refuses some files."""
    output = StringIO()
    with pytest.raises(CommandError, match="Some files were refused. Correct them, then run this again"):
        call_command("import_configs", str(directory), *options, stdout=output, stderr=output)
    return output.getvalue().splitlines()


@pytest.mark.both_databases
def test_takes_over_files_byte_for_byte(existing: Path, configs: Path) -> None:
    *lines, summary = import_configs(existing)

    assert lines == [f"{name}: taken" for name in sorted(files(existing))]
    assert summary == f"{FILES} taken, 0 replaced, 0 unchanged, 0 refused"
    assert files(configs) == expected_files()
    assert {config.filename: config.content_bytes for config in DeviceConfig.objects.all()} == expected_files()


@pytest.mark.both_databases
def test_reads_what_can_be_searched(existing: Path) -> None:
    import_configs(existing)

    config = DeviceConfig.objects.get(mac_address="-".join(pairs(1)))
    assert (config.device_name, config.device_entity_id, config.enable_ota) == ("Lamp", "lamp", True)
    assert DeviceConfig.objects.filter(device_name="Küche 🍳").count() == FILES // len(CONTENTS)


def test_leaves_the_existing_files_alone(existing: Path) -> None:
    before = files(existing)

    import_configs(existing)

    assert files(existing) == before


@pytest.mark.both_databases
def test_run_again_it_changes_nothing(existing: Path) -> None:
    import_configs(existing)

    *lines, summary = import_configs(existing)

    assert {line.split(": ")[1] for line in lines} == {"unchanged"}
    assert summary == f"0 taken, 0 replaced, {FILES} unchanged, 0 refused"
    assert DeviceConfig.history.count() == FILES


@pytest.mark.both_databases
def test_run_again_it_replaces_what_has_changed_since(existing: Path, configs: Path) -> None:
    import_configs(existing)
    (existing / spelled(7)).write_text('{"new": true}')

    *lines, summary = import_configs(existing)

    assert f"{spelled(7)}: replaced" in lines
    assert summary == f"0 taken, 1 replaced, {FILES - 1} unchanged, 0 refused"
    assert files(configs)[f"{'-'.join(pairs(7))}.json"] == b'{"new": true}'


@pytest.mark.both_databases
def test_a_dry_run_reports_and_changes_nothing(existing: Path, configs: Path) -> None:
    *lines, summary = import_configs(existing, "--dry-run")

    assert lines == [f"{name}: taken" for name in sorted(files(existing))]
    assert summary == f"{FILES} taken, 0 replaced, 0 unchanged, 0 refused; nothing was changed (--dry-run)"
    assert not DeviceConfig.objects.exists()
    assert files(configs) == {}


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_names_what_it_refuses_and_why_and_takes_the_rest(tmp_path: Path, configs: Path, options: list[str]) -> None:
    directory = tmp_path / "existing"
    directory.mkdir()
    for name, (data, _) in REFUSED.items():
        (directory / name).write_bytes(data)
    (directory / "ff-ff-ff-ff-ff-ff.json").write_bytes(b"{}")

    *lines, summary = refuse_configs(directory, *options)

    for name, (_, reason) in REFUSED.items():
        [line] = [line for line in lines if repr(name) in line]
        assert line.startswith(f"{name!r}: refused: ")
        assert reason in line
    assert "ff-ff-ff-ff-ff-ff.json: taken" in lines
    assert len(lines) == len(REFUSED) + 1
    assert summary.startswith(f"1 taken, 0 replaced, 0 unchanged, {len(REFUSED)} refused")
    assert files(configs) == ({} if options else {"ff-ff-ff-ff-ff-ff.json": b"{}"})


def test_a_name_that_is_not_utf_8_is_refused_like_any_other(tmp_path: Path) -> None:
    directory = tmp_path / "existing"
    directory.mkdir()
    (directory / "\udcff.json").write_bytes(b"{}")

    assert "This is not a MAC address" in refuse_configs(directory)[0]


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_refuses_a_second_file_for_the_same_device(tmp_path: Path, configs: Path, options: list[str]) -> None:
    """Which of the two the device has is not for the order of the names to decide."""
    directory = tmp_path / "existing"
    directory.mkdir()
    (directory / "AA-BB-CC-DD-EE-FF.json").write_text('{"which": 1}')
    (directory / "aabbccddeeff.json").write_text('{"which": 2}')

    *lines, summary = refuse_configs(directory, *options)

    assert lines == [
        "AA-BB-CC-DD-EE-FF.json: taken",
        "'aabbccddeeff.json': refused: 'AA-BB-CC-DD-EE-FF.json' is for the same device. Remove one of the two.",
    ]
    assert summary.startswith("1 taken, 0 replaced, 0 unchanged, 1 refused")
    assert files(configs) == ({} if options else {"aa-bb-cc-dd-ee-ff.json": b'{"which": 1}'})


def test_takes_over_the_directory_that_is_to_be_the_mirror(configs: Path) -> None:
    (configs / "aa-bb-cc-dd-ee-ff.json").write_text('{"version": 1}\r\n', newline="")

    import_configs(configs)

    assert files(configs) == {"aa-bb-cc-dd-ee-ff.json": b'{"version": 1}\r\n'}
    assert DeviceConfig.objects.get().content == '{"version": 1}\r\n'


def test_obeys_the_limit(tmp_path: Path, directories: Path, settings: LazySettings) -> None:
    settings.CONFIG_MAX_BYTES = 10
    directory = tmp_path / "existing"
    directory.mkdir()
    (directory / "aa-bb-cc-dd-ee-00.json").write_text('{"a":1234}')
    (directory / "aa-bb-cc-dd-ee-01.json").write_text('{"a":12345}')

    assert refuse_configs(directory) == [
        "aa-bb-cc-dd-ee-00.json: taken",
        "'aa-bb-cc-dd-ee-01.json': refused: It is larger than 10 bytes. Shorten it, or raise CONFIG_MAX_BYTES.",
        "1 taken, 0 replaced, 0 unchanged, 1 refused",
    ]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_wants_a_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CommandError, match=f"{name} is not a directory. Name the one that holds the files."):
        import_configs(tmp_path / name)


@pytest.mark.both_databases
def test_takes_as_many_together_as_there_is_room_for(existing: Path, configs: Path, few_together: None) -> None:
    *lines, summary = import_configs(existing)

    assert lines == [f"{name}: taken" for name in sorted(files(existing))]
    assert files(configs) == expected_files()


@pytest.fixture
def few_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Command, "together", 7)


@pytest.mark.both_databases
def test_asks_the_database_no_more_for_many(existing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iotsupport.mirror.after_commit.HOLD_SECONDS", LIMIT)  # however busy the machine is
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / f"{MAC}.json").write_text("{}")

    for_one = statements(tmp_path / "one")
    for_many = statements(existing)

    assert len(for_many) == len(for_one)


def statements(directory: Path) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        import_configs(directory)
    return [query["sql"] for query in queries]


@pytest.mark.both_databases
def test_what_somebody_else_saves_meanwhile_is_replaced_all_the_same(
    existing: Path, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had been saved before."""
    theirs = iter(["theirs"])

    def save_meanwhile(writes: list[Write]) -> list[Written]:
        for name in theirs:
            DeviceConfig.objects.put(writes[0].mac_address, f'{{"name": "{name}"}}')
        return write_many(writes)

    monkeypatch.setattr(importing, "write_many", save_meanwhile)

    *lines, summary = import_configs(existing)

    assert summary == f"{FILES - 1} taken, 1 replaced, 0 unchanged, 0 refused"
    assert files(configs) == expected_files()


@pytest.mark.both_databases
def test_what_somebody_saves_again_and_again_is_refused(
    existing: Path, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = count()

    def save_meanwhile(writes: list[Write]) -> list[Written]:
        DeviceConfig.objects.put(writes[0].mac_address, f'{{"number": {next(numbers)}}}')
        return write_many(writes)

    monkeypatch.setattr(importing, "write_many", save_meanwhile)

    lines = refuse_configs(existing)

    [refused] = [line for line in lines if "refused:" in line]
    assert "It is changed again and again meanwhile. Run this again." in refused
    assert lines[-1] == f"{FILES - 1} taken, 0 replaced, 0 unchanged, 1 refused"


def test_a_disk_that_takes_nothing_refuses_each_and_leaves_nothing(
    existing: Path, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)

    with nothing_changed():
        *lines, summary = refuse_configs(existing)

    assert len(lines) == FILES
    assert all("refused: No room is left on the disk of the configs directory." in line for line in lines)
    assert summary == f"0 taken, 0 replaced, 0 unchanged, {FILES} refused"


# --- On a terminal -----------------------------------------------------------------------------------------------


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def watch_configs(directory: Path, verbosity: int = 1) -> list[str]:
    """What somebody sees who watches, from one erasure of the line to the next."""
    terminal = Terminal()
    with suppress(CommandError):
        call_command("import_configs", str(directory), stdout=terminal, stderr=terminal, verbosity=verbosity)
    return terminal.getvalue().split(CLEAR)


def test_a_terminal_shows_how_far_it_has_come_and_what_was_refused(
    existing: Path, few_together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PAUSE_SECONDS", 0)
    monkeypatch.setenv("COLUMNS", "80")
    (existing / "notes.txt").touch()

    shown = watch_configs(existing)

    assert re.fullmatch(r"\[#{6}\.{24}\] 7 of 31, [0-9]+ (s|min) left", shown[1])
    assert "'notes.txt': refused: It is not called <MAC address>.json. Rename it, or leave it out.\n" in shown
    assert shown[-1] == f"{FILES} taken, 0 replaced, 0 unchanged, 1 refused\n"


def test_a_terminal_shows_each_file_where_that_is_wished(existing: Path) -> None:
    assert "".join(watch_configs(existing, verbosity=2)).count(": taken") == FILES


def test_goes_on_after_a_file_that_cannot_be_stored(existing: Path, configs: Path) -> None:
    first, second = sorted(expected_files())[:2]
    (configs / first).mkdir()  # stands where its file should be

    lines = refuse_configs(existing)

    [refused] = [line for line in lines if "refused:" in line]
    assert f"The change is saved, but the file of {first} is not up to date" in refused
    assert (configs / second).read_bytes() == expected_files()[second]
    assert lines[-1] == f"{FILES - 1} taken, 0 replaced, 0 unchanged, 1 refused"
