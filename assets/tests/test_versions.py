"""A board's digests lead to the version that it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from assets.models import Asset
from iotsupport.boards import firmware
from iotsupport.boards.firmware import FoundVersion
from iotsupport.tests.support.api_client import make_administrator, make_user
from iotsupport.tests.support.images import make_image

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("transactional_db")]

OLD, NEW, FONT = make_image(), make_image(version=b"1.5.0"), b"a font"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def digest(content: bytes) -> str:
    """What is appended to an image."""
    return content[-32:].hex()


def found(md5s: Iterable[str] = (), image_sha256s: Iterable[str] = ()) -> dict[str, tuple[str, str, str]]:
    return {
        asked: (version.filename, version.sha256, version.version)
        for asked, version in firmware.find(md5s, image_sha256s).items()
    }


def said(filename: str, content: bytes, version: str) -> tuple[str, str, str]:
    return filename, hashlib.sha256(content).hexdigest(), version


@pytest.fixture(autouse=True)
def assets(transactional_db: None) -> None:
    for name, content in [("kitchen.bin", OLD), ("kitchen.bin", NEW), ("font.bin", FONT)]:
        Asset.objects.upload(name, [content])


def test_versions_of_the_present_and_the_past_are_found_by_either_digest():
    assert found([md5(OLD), md5(FONT), "0" * 32], [digest(NEW), digest(OLD), "0" * 64]) == {
        md5(OLD): said("kitchen.bin", OLD, "1.4.2"),
        md5(FONT): said("font.bin", FONT, ""),
        digest(NEW): said("kitchen.bin", NEW, "1.5.0"),
        digest(OLD): said("kitchen.bin", OLD, "1.4.2"),
    }


def test_of_the_same_bytes_the_newest_version_is_found():
    copy = Asset.objects.upload("copy.bin", [OLD])

    [version] = firmware.find([md5(OLD)], []).values()

    assert version == FoundVersion("copy.bin", copy.sha256, copy.uploaded_at, "1.4.2")


def test_what_was_deleted_is_found():
    Asset.objects.get(filename="kitchen.bin").delete()

    assert found([md5(NEW)]) == {md5(NEW): said("kitchen.bin", NEW, "1.5.0")}


def test_a_deletion_makes_nothing_newer():
    for name in ["first.bin", "second.bin"]:
        Asset.objects.upload(name, [b"same"])
    Asset.objects.get(filename="first.bin").delete()

    assert found([md5(b"same")]) == {md5(b"same"): said("second.bin", b"same", "")}


def test_nothing_is_found_by_nothing():
    Asset.objects.upload("plain.bin", [make_image(has_digest=False)])

    assert found([], []) == found([""], [""]) == {}


def test_many_are_found_in_few_queries():
    many = [f"{number:032x}" for number in range(450)]

    with CaptureQueriesContext(connection) as captured:
        assert set(found([*many, md5(OLD)])) == {md5(OLD)}

    assert len(captured) == 3


@pytest.mark.parametrize("column", ["md5", "image_sha256"])
def test_no_query_reads_every_version(column: str):
    assert Asset.history.model._meta.get_field(column).db_index
    if connection.vendor == "sqlite":  # the other reads a table of so few rows
        assert "USING INDEX" in Asset.history.filter(**{f"{column}__in": ["0" * 32]}).explain()


def page_for(user: User) -> str:
    """Where this person sees the asset whose earlier version a board runs."""
    [version] = firmware.find([md5(OLD)], []).values()
    request = RequestFactory().get("/admin/")
    request.user = user
    return firmware.page_of(request, version)


def test_the_page_of_a_version_is_that_of_its_asset_for_who_may_view_it():
    page = f"/admin/assets/asset/{Asset.objects.get(filename='kitchen.bin').pk}/change/"

    assert page_for(make_administrator()) == page
    assert page_for(make_user("assets.view_asset", username="guest", is_staff=True)) == page
    assert page_for(make_user("devices.view_deviceconfig", username="other", is_staff=True)) == ""


def test_what_was_deleted_has_no_page():
    Asset.objects.get(filename="kitchen.bin").delete()

    assert page_for(make_administrator()) == ""
