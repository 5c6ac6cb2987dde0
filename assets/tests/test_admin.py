"""Assets in the admin: uploads, versions, refusals."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from assets.models import Asset
from iotsupport.mirror.files import MirrorStorage, mirror_storage
from iotsupport.tests.support.api_client import counted, make_user, nothing_changed, session_client

pytestmark = [
    pytest.mark.usefixtures("transactional_db", "directories"),
]

LIST = "/admin/assets/asset/"
ADD = f"{LIST}add/"

UPLOADS = "iot_asset_upload_requests_total"


@pytest.fixture
def asset() -> Asset:
    return Asset.objects.upload("firmware.bin", [b"one"])


def file(name: str, content: bytes) -> dict[str, Any]:
    return {"file": SimpleUploadedFile(name, content)}


def change_url(asset: Asset) -> str:
    return f"{LIST}{asset.pk}/change/"


def errors(response: Any) -> str:
    form = response.context_data["adminform"].form
    return " ".join(message for messages in form.errors.values() for message in messages)


def mirrored(asset: Asset) -> bytes:
    return Path(mirror_storage("assets").path(asset.filename)).read_bytes()


def full_disk(call: str) -> Any:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return mock.patch(f"iotsupport.mirror.files.os.{call}", autospec=True, side_effect=error)


def test_the_list_costs_the_same_for_5_and_50_assets(signed_in: Client, administrator: User):
    def queries() -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            signed_in.get(LIST)
        return [query["sql"] for query in captured]

    def add(numbers: range) -> None:
        for number in numbers:
            Asset.objects.upload(f"font-{number}.bin", [b"same"], user=administrator)

    add(range(5))
    few = queries()
    add(range(5, 50))
    many = queries()

    assert len(many) == len(few)
    assert sum("COUNT(" in query for query in many) == 1


@pytest.mark.both_databases
def test_remembers_who_uploaded_an_asset(signed_in: Client, administrator: User):
    with counted(UPLOADS, status="success", error_type="none"):
        response = signed_in.post(ADD, file("firmware.bin", b"one"))

    asset = Asset.objects.get()
    assert response.status_code == 302
    assert (asset.filename, asset.size, asset.uploaded_by) == ("firmware.bin", 3, administrator)
    assert (asset.history.get().history_type, asset.history.get().history_user) == ("+", administrator)
    assert mirrored(asset) == b"one"


def test_takes_an_empty_file(signed_in: Client):
    signed_in.post(ADD, file("empty.txt", b""))

    assert mirrored(Asset.objects.get()) == b""


@pytest.mark.both_databases
def test_the_next_version_keeps_the_name(signed_in: Client, administrator: User, asset: Asset):
    with counted("iot_asset_upload_file_size_bytes_count"):
        signed_in.post(change_url(asset), file("firmware (1).bin", b"two"))

    asset = Asset.objects.get()
    assert (asset.filename, asset.uploaded_by, mirrored(asset)) == ("firmware.bin", administrator, b"two")
    assert asset.history.latest().history_type == "~"


@pytest.mark.both_databases
def test_adding_a_name_that_is_there_makes_its_next_version(signed_in: Client, asset: Asset):
    signed_in.post(ADD, file("firmware.bin", b"two"))

    assert Asset.objects.get().pk == asset.pk
    assert mirrored(asset) == b"two"


@pytest.mark.parametrize(
    ("content", "error_type", "reason"),
    [
        (file("a..b", b"x"), "invalid_filename", "The file name holds two dots in a row. Rename the file"),
        (file(".hidden", b"x"), "invalid_filename", "The file name starts with a dot."),
        (file("ä" * 101, b"x"), "invalid_filename", "The file name is longer than 200 bytes."),
        (file("large.bin", b"x" * 11), "too_large", "The file has more than 10 bytes. Send a smaller one"),
        ({}, "no_file", "Choose a file to upload."),
    ],
    ids=["dots", "hidden", "long name", "large", "no file"],
)
def test_refuses_with_a_sentence(signed_in: Client, settings: Any, content: Any, error_type: str, reason: str):
    settings.ASSET_MAX_BYTES = 10
    with nothing_changed(), counted(UPLOADS, status="error", error_type=error_type):
        response = signed_in.post(ADD, content)

    assert response.status_code == 200
    assert reason in errors(response)


def test_a_version_needs_a_file(signed_in: Client, asset: Asset):
    with nothing_changed():
        response = signed_in.post(change_url(asset), {})

    assert "Choose a file to upload." in errors(response)


@pytest.mark.parametrize("call", ["write", "fsync"], ids=["while it arrives", "at its end"])
def test_says_that_the_disk_is_full(signed_in: Client, asset: Asset, call: str):
    with nothing_changed(), full_disk(call), counted(UPLOADS, status="error", error_type="storage"):
        response = signed_in.post(change_url(asset), file("firmware.bin", b"two"))

    assert "No room is left on the disk of the" in errors(response)


def test_warns_where_a_saved_asset_has_no_file_yet(signed_in: Client, asset: Asset):
    broken = OSError(errno.EIO, os.strerror(errno.EIO))
    with mock.patch.object(MirrorStorage, "replace", autospec=True, side_effect=broken):
        signed_in.post(change_url(asset), file("firmware.bin", b"two"))

    warning = [str(message) for message in signed_in.get(LIST).context["messages"]][-1]
    assert warning.startswith("The change is saved, but the file of firmware.bin is not up to date")
    assert Asset.objects.get().size == 3


@pytest.mark.both_databases
def test_deletes_the_selected_assets_with_their_files(signed_in: Client, asset: Asset):
    signed_in.post(LIST, {"action": "delete_selected", "_selected_action": [asset.pk], "post": "yes"})

    assert not Asset.objects.exists()
    assert mirror_storage("assets").names() == []


def test_only_who_may_change_replaces_an_asset(asset: Asset):
    adder = session_client(make_user("assets.add_asset", "assets.view_asset", is_staff=True))

    with nothing_changed(), counted(UPLOADS, status="error", error_type="forbidden"):
        response = adder.post(ADD, file("firmware.bin", b"two"))

    assert response.status_code == 403


def test_who_may_only_look_is_offered_no_upload(asset: Asset):
    guest = session_client(make_user("assets.view_asset", is_staff=True))

    page = guest.get(change_url(asset)).content.decode()

    assert asset.sha256 in page
    assert 'type="file"' not in page
    assert guest.post(change_url(asset), file("firmware.bin", b"two")).status_code == 403
    assert mirrored(asset) == b"one"
