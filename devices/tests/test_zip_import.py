"""What an import of a zip of configurations would do, and what is refused of it."""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from devices.models import DeviceConfig, DeviceType
from devices.tests.zips import *  # noqa: F403
from devices.tests.zips import make_zip
from devices.transfer.types import write_type
from iotsupport.tests.support.api_client import make_user, nothing_changed, refusal, token_client
from iotsupport.tests.support.server import files

MAC, OTHER, THIRD = "aa-bb-cc-dd-ee-ff", "00-00-00-00-00-01", "00-00-00-00-00-02"
DRY_RUN = "/configs.zip?dry_run=true"
SCHEMA = '{"properties": {"pin": {"enum": [1, 2]}}}'

pytestmark = [pytest.mark.usefixtures("transactional_db")]


def send(caller: Client, data: bytes, content_type: str = "application/zip", path: str = DRY_RUN) -> Any:
    return caller.post(path, data, content_type=content_type)


def report(caller: Client, members: dict[str, str | bytes]) -> dict[str, Any]:
    with nothing_changed():
        response = send(caller, make_zip(members))
    assert response.status_code == 202, response.content
    return response.json()


def test_says_what_would_be_new_changed_unchanged_and_refused(script: Client) -> None:
    DeviceConfig.objects.put(MAC, '{"a": 1}')
    DeviceConfig.objects.put(OTHER, '{"a": 1}')

    found = report(
        script,
        {
            "AABBCCDDEEFF.json": '{"a": 1}',
            f"{OTHER}.json": '{"a": 1.0}',
            f"{THIRD}.json": "{}",
            "00-00-00-00-00-03.json": "[]",
            "notes.txt": "",
            "inner.zip": make_zip({"a": ""}),
            "00-00-00-00-00-04.json": make_zip({"a": ""}),
            "00-00-00-00-00-05.json": "x" * 65537,
        },
    )

    refused = {each["name"]: each["reason"] for each in found.pop("refused")}
    assert found == {"new": [THIRD], "changed": [OTHER], "unchanged": [MAC], "new_types": []}
    assert refused["00-00-00-00-00-03.json"].startswith("Line 1, column 1: write one JSON object")
    assert refused["notes.txt"] == "It is not called <MAC address>.json. Rename it, or leave it out."
    assert refused["inner.zip"] == refused["notes.txt"]
    assert refused["00-00-00-00-00-04.json"] == "This is compressed (ZIP), not text. Unpack it first."
    assert refused["00-00-00-00-00-05.json"] == "It has more than 65536 bytes. Shorten it."
    assert len(refused) == 5


def test_what_was_exported_is_unchanged(script: Client) -> None:
    kitchen = DeviceType.objects.create(name="Küche", folded="küche", schema=SCHEMA)
    DeviceConfig(mac_address=MAC, content='{ "pin": 1 }\r\n', type=kitchen).save()
    DeviceConfig.objects.put(OTHER, "{}")
    exported = script.get("/configs.zip").getvalue()

    found = send(script, exported).json()

    assert found == {"new": [], "changed": [], "unchanged": [OTHER, MAC], "refused": [], "new_types": []}


def test_new_types_judge_what_comes_with_them(script: Client) -> None:
    kitchen = write_type(DeviceType(name="Kitchen", schema=SCHEMA))
    found = report(
        script,
        {
            f"{MAC}.json": '{"pin": 1}',
            f"{OTHER}.json": '{"pin": 3}',
            f"{THIRD}.json": "{}",
            "types.json": f'{{"{MAC}": "Kitchen", "{OTHER}": "Kitchen", "{THIRD}": "Hall"}}',
            "types/Kitchen.json": kitchen,
            "types/Broken.json": "{}",
        },
    )

    assert (found["new"], found["new_types"]) == ([MAC], ["Kitchen"])
    reasons = {each["name"]: each["reason"] for each in found["refused"]}
    assert reasons[f"{OTHER}.json"].startswith("This does not fit the type “Kitchen”.")
    assert reasons[f"{THIRD}.json"].startswith("There is no type “Hall”.")
    assert reasons["types/Broken.json"].startswith("A type is {")


@pytest.mark.parametrize(
    ("permission", "new", "changed"),
    [("devices.add_deviceconfig", [MAC], []), ("devices.change_deviceconfig", [], [OTHER])],
)
def test_each_by_what_the_sender_may(permission: str, new: list[str], changed: list[str]) -> None:
    DeviceConfig.objects.put(OTHER, "{}")
    caller = token_client(make_user(permission))
    types = {"types/Kitchen.json": write_type(DeviceType(name="Kitchen", schema=SCHEMA))}

    found = report(caller, {f"{MAC}.json": "{}", f"{OTHER}.json": '{"a": 1}', **types})

    assert (found["new"], found["changed"]) == (new, changed)
    [about_types, about_configs] = [each["reason"] for each in found["refused"]]
    assert about_types.startswith("You may not add types.")
    assert re.match("ci may not (add|change) configurations. Ask an administrator", about_configs)


def test_strangers_and_those_who_may_save_nothing_are_not_read() -> None:
    assert refusal(send(Client(), b"PK")) == (401, "NOT_AUTHENTICATED")
    assert refusal(send(token_client(make_user("devices.view_deviceconfig")), b"PK")) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"../../etc/passwd": "x"}, "is a path that leads out of the zip"),
        ({f"backup/{MAC}.json": "{}"}, "is in a directory. Put the files themselves into the zip."),
        ({"types/deeper/a.json": "{}"}, "is in a directory"),
        ({f"{MAC}.json": "{}", "AA:BB:CC:DD:EE:FF.json": "{}"}, "are for the same device. Leave one of the two out."),
    ],
)
def test_a_zip_that_cannot_be_meant_is_refused_whole(
    script: Client, members: dict[str, str | bytes], reason: str
) -> None:
    with nothing_changed():
        response = send(script, make_zip(members))

    assert refusal(response) == (400, "INVALID_ZIP")
    assert reason in response.json()["error"]


@pytest.mark.parametrize("data", [b"", b"{}", make_zip({"a": "b"})[:-1]])
def test_what_is_no_zip(script: Client, data: bytes) -> None:
    response = send(script, data)

    assert refusal(response) == (400, "INVALID_ZIP")
    assert "This is no zip, or not all of it." in response.json()["error"]


def test_forms_and_packed_bodies(script: Client) -> None:
    assert refusal(send(script, b"PK", "application/x-www-form-urlencoded")) == (415, "UNSUPPORTED_MEDIA_TYPE")
    coded = script.post(DRY_RUN, b"PK", content_type="application/zip", headers={"Content-Encoding": "gzip"})
    assert refusal(coded) == (415, "UNSUPPORTED_MEDIA_TYPE")
    in_chunks = script.post(DRY_RUN, b"PK", content_type="application/zip", headers={"Transfer-Encoding": "chunked"})
    assert refusal(in_chunks) == (400, "LENGTH_REQUIRED")


def test_half_a_body_and_one_that_is_too_large(script: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_zip({f"{MAC}.json": "{}"})
    arriving: dict[str, Any] = {"wsgi.input": io.BytesIO(data[:20])}
    half = script.generic("POST", DRY_RUN, data, "application/zip", **arriving)
    assert refusal(half) == (400, "INCOMPLETE")
    monkeypatch.setattr("iotsupport.transfer.receiving.MOST_BYTES", 10)
    assert refusal(send(script, data)) == (413, "TOO_LARGE")


def test_nothing_is_left_on_the_disk(script: Client, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    make = tempfile.TemporaryFile

    def watch(**options: Any) -> Any:
        file = make(**options)
        seen.append(os.readlink(f"/proc/self/fd/{file.fileno()}"))
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", watch)
    send(script, make_zip({"../a": ""}))
    send(script, make_zip({f"{MAC}.json": "{}"}))

    assert len(seen) == 2
    assert all(path.startswith(str(data_dir)) and path.endswith("(deleted)") for path in seen)
    assert files(data_dir) == {}


def test_a_full_disk_is_told(script: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(**options: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full_disk)

    response = send(script, make_zip({f"{MAC}.json": "{}"}))

    assert refusal(response) == (503, "STORAGE_UNAVAILABLE")
    assert "No room is left on the disk of the DATA_DIR directory." in response.json()["error"]


def test_a_parameter_that_cannot_be_read_is_refused_as_all_else(script: Client):
    answer = script.post("/configs.zip?dry_run=perhaps", b"", content_type="application/zip")

    assert refusal(answer) == (400, "INVALID_PARAMETER")
    assert answer.json()["details"] == {"parameters": ["dry_run"]}
