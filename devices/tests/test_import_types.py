"""``import_configs`` reads the types that ``export_configs`` writes beside configurations."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from devices.models import DeviceConfig, DeviceType
from devices.transfer.types import file_of, read_type, write_type
from iotsupport.tests.support.api_client import nothing_changed

MAC, OTHER = "aa-bb-cc-dd-ee-ff", "00-00-00-00-00-01"
SCHEMA = '{"properties": {"pin": {"enum": [1, 2]}}}'

pytestmark = [pytest.mark.usefixtures("transactional_db")]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "exported"
    (path / "types").mkdir(parents=True)
    (path / f"{MAC}.json").write_text('{"pin": 1}')
    (path / f"{OTHER}.json").write_text('{"pin": 7}')
    write(path, Kitchen=SCHEMA)
    (path / "types.json").write_text(json.dumps({MAC.upper(): "kitchen"}))
    return path


def write(directory: Path, **schemas: str) -> None:
    for name, schema in schemas.items():
        (directory / "types" / f"{name}.json").write_bytes(write_type(DeviceType(name=name, schema=schema)))


def run(directory: Path, *options: str) -> list[str]:
    output = StringIO()
    try:
        call_command("import_configs", str(directory), *options, stdout=output, stderr=output)
    except CommandError:
        output.write("some were refused")
    return output.getvalue().splitlines()


def types() -> dict[str, str | None]:
    return dict(DeviceConfig.objects.values_list("mac_address", "type__name"))


def test_types_come_first_and_devices_get_them(directory: Path) -> None:
    assert run(directory) == [
        "types/Kitchen.json: taken",
        f"{OTHER}.json: taken",
        f"{MAC}.json: taken",
        "3 taken, 0 replaced, 0 unchanged, 0 refused",
    ]
    assert types() == {MAC: "Kitchen", OTHER: None}


def test_run_again_it_changes_nothing(directory: Path) -> None:
    run(directory)

    with nothing_changed():
        assert run(directory)[-1] == "0 taken, 0 replaced, 3 unchanged, 0 refused"


def test_another_type_for_the_same_text_is_a_change(directory: Path) -> None:
    run(directory)
    write(directory, Hall="{}")
    (directory / "types.json").write_text(json.dumps({MAC: "Hall"}))

    assert run(directory)[-1] == "1 taken, 1 replaced, 2 unchanged, 0 refused"
    assert types() == {MAC: "Hall", OTHER: None}


def test_a_dry_run_knows_what_new_types_will_refuse(directory: Path) -> None:
    (directory / "types.json").write_text(json.dumps({MAC: "Kitchen", OTHER: "Kitchen"}))

    for options in [["--dry-run"], []]:
        lines = run(directory, *options)

        [refused] = [line for line in lines if "refused:" in line]
        assert refused.startswith(f"'{OTHER}.json': refused: This does not fit the type “Kitchen”. Line 1, column ")
        assert lines[-2].startswith("2 taken, 0 replaced, 0 unchanged, 1 refused")
        assert DeviceType.objects.exists() is (not options)


def test_a_type_that_is_another_here_stays(directory: Path) -> None:
    DeviceType.objects.create(name="Kitchen", folded="kitchen", schema="{}")

    lines = run(directory)

    assert lines[0] == (
        "'types/Kitchen.json': refused: The type “Kitchen” is another here, and stays as it is:"
        " a new schema is tried on its page first."
    )
    assert DeviceType.objects.get().schema == "{}"
    assert types() == {MAC: "Kitchen", OTHER: None}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("types.json", '{"x": "Kitchen"}', "'types.json': refused: This is not a MAC address"),
        ("types.json", f'{{"{MAC}": 1}}', "'types.json': refused: types.json says of each device the name of its type"),
        ("types.json", f'{{"{MAC}": "Hall"}}', f"'{MAC}.json': refused: There is no type “Hall”. Add it first"),
        ("types/Kitchen.json", "{}", "'types/Kitchen.json': refused: A type is {"),
        ("types/Kitchen.json", '{"name": "", "schema": {}}', "'types/Kitchen.json': refused: A type needs a name."),
        ("types/Kitchen.json", '{"name": "Kitchen", "schema": {"type": 1}}', "'types/Kitchen.json': refused: "),
        ("types/Kitchen.json", "\ufeff{}", "'types/Kitchen.json': refused: "),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_sentence(directory: Path, name: str, text: str, reason: str) -> None:
    (directory / name).write_text(text)

    for options in [["--dry-run"], []]:
        assert [line for line in run(directory, *options) if line.startswith(reason)]


def test_a_schema_comes_back_byte_for_byte() -> None:
    schema = '{\n  "maximum": 1e3,\n "title": "Küche"}'
    there = DeviceType(name="A " + "ü" * 98, description="“x”\n", schema=schema, starting_content='{"a": 1.0}\r\n')

    back = read_type(write_type(there))

    for field in ["name", "description", "schema", "starting_content"]:
        assert getattr(back, field) == getattr(there, field)
    assert len(file_of(there)) < 255
