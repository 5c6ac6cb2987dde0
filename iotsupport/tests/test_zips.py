"""Files as a zip, from lists of the admin and by the API: byte for byte, streamed, in one order."""

from __future__ import annotations

import io
import re
import tracemalloc
import zipfile
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client

from assets.models import Asset
from assets.shared import SharedChunk
from devices.models import DeviceConfig, DeviceType
from iotsupport.mirror.files import mirror_storage
from iotsupport.tests.support.api_client import make_user, refusal, session_client, token_client
from iotsupport.transfer.zipping import CHUNK_BYTES, ZippedFile, stream_zip

MAC, OTHER, THIRD = "aa-bb-cc-dd-ee-ff", "00-00-00-00-00-01", "00-00-00-00-00-02"
TEXT = '{ "b": 1.0,\r\n"a": "é" }\n'
CONFIGS, ASSETS = "/admin/devices/deviceconfig/", "/admin/assets/asset/"

pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.fixture
def saved(transactional_db: None) -> None:
    DeviceConfig.objects.put(MAC, TEXT)
    DeviceConfig.objects.put(OTHER, '{"deviceName": "Lamp"}')
    Asset.objects.upload("firmware.bin", [b"\xe9" * 100])
    Asset.objects.upload("a logo.png", [b"logo"])


def unpack(response: Any) -> dict[str, bytes]:
    """The files, in their order."""
    assert response.status_code == 200
    assert response["Content-Type"] == "application/zip"
    assert response.streaming
    with zipfile.ZipFile(io.BytesIO(response.getvalue())) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist()}


@pytest.mark.both_databases
def test_all_configurations(script: Client, saved: None) -> None:
    response = script.get("/configs.zip")

    assert list(unpack(response).items()) == [
        (f"{OTHER}.json", b'{"deviceName": "Lamp"}'),
        (f"{MAC}.json", TEXT.encode()),
    ]
    assert re.fullmatch(r'attachment; filename="configs-\d{4}-\d\d-\d\d\.zip"', response["Content-Disposition"])


@pytest.mark.both_databases
def test_all_assets_as_they_are(script: Client, saved: None) -> None:
    response = script.get("/api/assets.zip")
    body = response.getvalue()

    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert [(info.filename, info.compress_type) for info in archive.infolist()] == [
            ("a logo.png", zipfile.ZIP_STORED),
            ("firmware.bin", zipfile.ZIP_STORED),
        ]
        assert archive.read("firmware.bin") == b"\xe9" * 100
    assert re.fullmatch(r'attachment; filename="assets-\d{4}-\d\d-\d\d\.zip"', response["Content-Disposition"])


@pytest.mark.both_databases
def test_types_lie_beside(script: Client, saved: None) -> None:
    kitchen = DeviceType.objects.create(name="Kitchen", folded="kitchen", schema="{}")
    DeviceType.objects.create(name="Hall", folded="hall", schema="{}")
    DeviceConfig.objects.filter(mac_address=MAC).update(type=kitchen)

    found = unpack(script.get("/configs.zip"))

    assert list(found) == [f"{OTHER}.json", f"{MAC}.json", "types.json", "types/Kitchen.json"]
    assert found["types.json"] == f'{{\n "{MAC}": "Kitchen"\n}}\n'.encode()


def test_the_same_files_are_the_same_bytes(script: Client, saved: None) -> None:
    assert script.get("/configs.zip").getvalue() == script.get("/configs.zip").getvalue()


@pytest.mark.parametrize(
    ("path", "permission"), [("/configs.zip", "devices.view_deviceconfig"), ("/assets.zip", "assets.view_asset")]
)
def test_only_for_those_who_may_view(saved: None, path: str, permission: str) -> None:
    assert refusal(Client().get(path)) == (401, "NOT_AUTHENTICATED")
    assert refusal(token_client(make_user(username="other")).get(path)) == (403, "FORBIDDEN")
    assert token_client(make_user(permission)).get(path).status_code == 200


def test_an_asset_whose_bytes_are_lost_is_told_before_anything_is_sent(script: Client, saved: None) -> None:
    asset = Asset.objects.get(filename="firmware.bin")
    mirror_storage("blobs").directory.joinpath(asset.sha256).unlink()
    SharedChunk.objects.all().delete()  # where another node would have them

    status, code = refusal(script.get("/assets.zip"))

    assert (status, code) == (503, "STORAGE_UNAVAILABLE")


# --- In the admin ------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_what_is_selected(signed_in: Client, saved: None) -> None:
    pk = DeviceConfig.objects.get(mac_address=MAC).pk

    response = signed_in.post(CONFIGS, {"action": "export_selected", "_selected_action": [pk]})

    assert unpack(response) == {f"{MAC}.json": TEXT.encode()}


@pytest.mark.both_databases
def test_all_that_is_found_is_selected_at_once(signed_in: Client, saved: None) -> None:
    pk = Asset.objects.get(filename="firmware.bin").pk
    fields = {"action": "export_selected", "select_across": "1", "_selected_action": [pk]}

    assert list(unpack(signed_in.post(f"{ASSETS}?q=logo", fields))) == ["a logo.png"]
    assert list(unpack(signed_in.post(ASSETS, fields))) == ["a logo.png", "firmware.bin"]


@pytest.mark.both_databases
def test_a_link_exports_what_search_and_filters_found(signed_in: Client, saved: None) -> None:
    for number in range(110):
        DeviceConfig.objects.put(f"02-00-00-00-00-{number:02x}", f'{{"deviceName": "Sensor {number}"}}')

    page = signed_in.get(f"{CONFIGS}?q=sensor&o=2&p=2").content.decode()

    [link] = re.findall(r'<a href="([^"]+)">Export all 110</a>', page)
    assert link == "export/?q=sensor&amp;o=2"
    found = unpack(signed_in.get(f"{CONFIGS}export/?q=sensor&o=2"))
    assert list(found) == [f"02-00-00-00-00-{number:02x}.json" for number in range(110)]
    assert list(unpack(signed_in.get(f"{CONFIGS}export/?q=lamp"))) == [f"{OTHER}.json"]


def test_an_empty_list_has_nothing_to_export(signed_in: Client) -> None:
    assert "export/" not in signed_in.get(CONFIGS).content.decode()


def test_a_filter_that_cannot_be_leads_back_to_the_list(signed_in: Client, saved: None) -> None:
    assert signed_in.get(f"{CONFIGS}export/?updated_at__gte=never")["Location"] == f"{CONFIGS}?e=1"


def test_lists_export_only_for_those_who_may_view() -> None:
    other = session_client(make_user("assets.view_asset", is_staff=True))

    assert other.get(f"{CONFIGS}export/").status_code == 403
    assert other.get(f"{ASSETS}export/").status_code == 200
    assert Client().get(f"{ASSETS}export/").status_code == 302


# --- The zip itself ----------------------------------------------------------------------------------------------


def test_neither_one_large_file_nor_many_small_ones_are_held_in_memory() -> None:
    large = ZippedFile("large.bin", 200 * CHUNK_BYTES, lambda: (b"x" * CHUNK_BYTES for _ in range(200)))
    small = [ZippedFile(f"{number}.json", 1000, lambda: [b"y" * 1000]) for number in range(5000)]
    tracemalloc.start()

    size = sum(map(len, stream_zip([large, *small], is_packed=False)))

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 18_000_000
    assert most < 6_000_000  # what the zip's list of 5,000 takes, and some chunks


def test_dates_are_those_of_the_rows_and_none_that_a_zip_cannot_say() -> None:
    files = [
        ZippedFile("new", 0, list, datetime(2026, 5, 4, 3, 2, 0, tzinfo=UTC)),
        ZippedFile("old", 0, list, datetime(1970, 1, 1, tzinfo=UTC)),
    ]

    body = b"".join(stream_zip(files, is_packed=True))

    dates = [info.date_time for info in zipfile.ZipFile(io.BytesIO(body)).infolist()]
    assert dates == [(2026, 5, 4, 3, 2, 0), (1980, 1, 1, 0, 0, 0)]
