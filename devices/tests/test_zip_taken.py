"""A zip is taken over: planned, shown, then written in the background; in the admin, and at once by the API."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from assets.models import Asset
from devices.changes.models import Change
from devices.changes.worker import Worker
from devices.models import DeviceConfig, DeviceType
from devices.tests.zips import *  # noqa: F403
from devices.tests.zips import make_zip
from devices.transfer.types import write_type
from devices.transfer.uploads import UploadedZip
from iotsupport.tests.support.api_client import make_user, nothing_changed, refusal, session_client, token_client

MAC, OTHER, THIRD = "aa-bb-cc-dd-ee-ff", "00-00-00-00-00-01", "00-00-00-00-00-02"
SCHEMA = '{"properties": {"pin": {"enum": [1, 2]}}}'
PAGE = "/admin/devices/deviceconfig/import/"

pytestmark = [pytest.mark.usefixtures("transactional_db")]


def send(caller: Client, members: dict[str, str | bytes], **headers: str) -> Any:
    return caller.post("/configs.zip", make_zip(members), content_type="application/zip", headers=headers)


def choose(browser: Client, data: bytes, reason: str = "", name: str = "fleet.zip") -> Any:
    return browser.post(PAGE, {"file": SimpleUploadedFile(name, data), "reason": reason})


def nothing_left(data_dir: Path) -> bool:
    return [path.name for path in data_dir.iterdir() if path.name != "locks"] == []


def work() -> None:
    while Worker().work():
        pass


def texts() -> dict[str, str]:
    return dict(DeviceConfig.objects.values_list("mac_address", "content"))


# --- By the API --------------------------------------------------------------------------------------------------


def test_a_script_sends_it_and_it_goes_on_by_itself(script: Client) -> None:
    DeviceConfig.objects.put(MAC, "{}")
    DeviceConfig.objects.put(OTHER, "{}")

    members: dict[str, str | bytes] = {f"{MAC}.json": '{ "a": 1.0 }\r\n', f"{OTHER}.json": "{}", f"{THIRD}.json": "{}"}
    response = send(script, members, **{"X-Change-Reason": "new house"})

    assert response.status_code == 202
    begun = response.json()
    assert (begun["kind"], begun["reason"], begun["chosen"]) == ("import", "new house", 3)
    work()
    done = script.get(f"/changes/{begun['id']}").json()
    assert done["state"] == "applied"
    assert (done["counts"]["changed"], done["counts"]["unchanged"]) == (2, 1)
    assert texts() == {MAC: '{ "a": 1.0 }\r\n', OTHER: "{}", THIRD: "{}"}
    [version, _] = DeviceConfig.history.filter(mac_address=MAC)
    assert (version.history_way, version.history_change_reason) == ("bulk", "new house")


def test_nothing_begins_where_some_would_be_refused(script: Client) -> None:
    response = send(script, {f"{MAC}.json": "[]", f"{OTHER}.json": "{}"})

    assert response.status_code == 202
    work()
    assert script.get(f"/changes/{response.json()['id']}").json()["state"] == "refused"
    assert texts() == {}


def test_what_is_no_configuration_at_all_refuses_all_of_it(script: Client) -> None:
    response = send(script, {"notes.txt": "", f"{OTHER}.json": "{}"})

    assert refusal(response) == (400, "REFUSED_FILES")
    [told] = response.json()["details"]["refused"]
    assert told == {"name": "notes.txt", "reason": "It is not called <MAC address>.json. Rename it, or leave it out."}
    assert not Change.objects.exists()


def test_an_empty_zip_is_a_mistake(script: Client) -> None:
    assert refusal(send(script, {})) == (400, "NOTHING_FOUND")


def test_what_was_exported_comes_back_with_its_types(script: Client) -> None:
    kitchen = DeviceType.objects.create(name="Küche", folded="küche", schema=SCHEMA)
    DeviceConfig(mac_address=MAC, content='{ "pin": 1 }\r\n', type=kitchen).save()
    DeviceConfig.objects.put(OTHER, "{}")
    exported = script.get("/configs.zip").getvalue()
    DeviceConfig.objects.all().delete()
    kitchen.delete()

    script.post("/configs.zip", exported, content_type="application/zip")
    work()

    assert texts() == {MAC: '{ "pin": 1 }\r\n', OTHER: "{}"}
    back = DeviceType.objects.get()
    assert (back.name, back.schema, str(back.updated_by)) == ("Küche", SCHEMA, "admin")
    assert dict(DeviceConfig.objects.values_list("mac_address", "type")) == {MAC: back.pk, OTHER: None}


def test_who_may_not_add_types_brings_none(data_dir: Path) -> None:
    caller = token_client(make_user("devices.add_deviceconfig"))
    kitchen = write_type(DeviceType(name="Kitchen", schema=SCHEMA))

    response = send(caller, {f"{MAC}.json": "{}", "types/Kitchen.json": kitchen})

    assert refusal(response) == (400, "REFUSED_FILES")
    assert not DeviceType.objects.exists()


# --- In the admin ------------------------------------------------------------------------------------------------


def test_the_list_leads_to_the_page(signed_in: Client) -> None:
    page = signed_in.get("/admin/devices/deviceconfig/").content.decode()
    [link] = re.findall(r'<a href="([^"]+)">Import a zip</a>', page)

    page = signed_in.get(f"/admin/devices/deviceconfig/{link}").content.decode()

    assert 'enctype="multipart/form-data"' in page
    assert "csrfmiddlewaretoken" in page


def test_what_would_change_is_shown_before_anything_is_written(signed_in: Client, data_dir: Path) -> None:
    DeviceConfig.objects.put(MAC, '{"pin": 1}')

    with nothing_changed():
        response = choose(
            signed_in,
            make_zip({f"{MAC}.json": '{"pin": 2}', f"{OTHER}.json": "{}", "notes <b>.txt": ""}),
            reason="new house",
        )
        page = signed_in.get(response["Location"]).content.decode()

    assert response.status_code == 302
    assert "the zip fleet.zip" in page
    assert "Left out: notes &lt;b&gt;.txt: It is not called &lt;MAC address&gt;.json." in page
    assert f"{OTHER}" in page
    assert re.search(r"<mark>\s*2\s*</mark>", page) or "difference" in page
    assert nothing_left(data_dir)


def test_it_is_applied_on_the_next_page(signed_in: Client) -> None:
    location = choose(signed_in, make_zip({f"{MAC}.json": "{}"}), reason="new house")["Location"]
    change = Change.objects.get()
    assert (change.reason, str(change.created_by), location.split("/")[-3]) == ("new house", "admin", str(change.pk))

    signed_in.post(f"/admin/devices/change/{change.pk}/apply/")
    work()

    assert texts() == {MAC: "{}"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no zip", "This is no zip, or not all of it."),
        (make_zip({"../a": ""}), "is a path that leads out of the zip"),
        (make_zip({}), "No configuration is in the zip."),
        (make_zip({"notes.txt": ""}), "No configuration in the zip can be read. notes.txt: It is not called"),
    ],
)
def test_what_is_refused_is_told_on_the_page_and_what_was_typed_is_kept(
    signed_in: Client, data_dir: Path, data: bytes, reason: str
) -> None:
    with nothing_changed():
        page = choose(signed_in, data, reason="a good <reason>").content.decode()

    assert reason in page
    assert 'value="a good &lt;reason&gt;"' in page
    assert not Change.objects.exists()
    assert nothing_left(data_dir)


def test_a_zip_that_is_too_large_and_one_that_finds_no_room(signed_in: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_zip({f"{MAC}.json": "{}"})
    with monkeypatch.context() as patched:
        patched.setattr("devices.transfer.uploads.MOST_BYTES", 10)
        assert "The zip has more than 10 bytes. Send several." in choose(signed_in, data).content.decode()

    def full_disk(**options: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full_disk)
    assert "No room is left on the disk of the DATA_DIR directory." in choose(signed_in, data).content.decode()


def test_no_file_is_a_mistake(signed_in: Client) -> None:
    assert "This field is required." in signed_in.post(PAGE, {"reason": "x"}).content.decode()


def test_only_for_those_who_may_save(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(UploadedZip, "__init__", lambda upload, name: begun.append(name))
    viewer = session_client(make_user("devices.view_deviceconfig", is_staff=True))

    assert viewer.get(PAGE).status_code == 403
    assert choose(viewer, b"PK").status_code == 403
    assert choose(Client(), b"PK").status_code in {302, 403}
    assert "Import a zip" not in viewer.get("/admin/devices/deviceconfig/").content.decode()
    assert begun == []


def test_uploads_of_assets_are_as_before(signed_in: Client) -> None:
    file = {"file": SimpleUploadedFile("firmware.bin", b"firmware")}

    assert signed_in.post("/admin/assets/asset/add/", file).status_code == 302
    assert Asset.objects.get().size == 8


def test_its_answer_is_one_of_a_change(script: Client) -> None:
    answer = send(script, {f"{MAC}.json": "{}"})

    assert answer.json().keys() == json.loads(script.get(f"/changes/{answer.json()['id']}").content).keys()
