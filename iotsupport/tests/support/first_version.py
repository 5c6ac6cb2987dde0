"""An installation with the tables of the first version and rows that later migrations change, and its update.

Both are made once for the run: going back to the first tables, and coming from there, takes seconds of the processor.
Each ``conftest.py`` imports the fixtures that its tests use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from typing import Any, NamedTuple

import pytest
from django.core.management import call_command
from django.db import connection

from assets.models import Asset, SharedChunk
from devices.models import DeviceConfig
from iotsupport.mirror.files import CHUNK_BYTES, mirror_storage
from iotsupport.tests.support.images import make_image
from iotsupport.tests.support.migrating import go_to
from notifications.messages import ASSETS_TOPIC
from notifications.models import Announcement

# Before names were mended, images recognised, and boards known.
FIRST = [
    ("devices", "0001_initial"),
    ("assets", "0002_sharedchunk"),
    ("iotsupport", "0003_order_of_tokens"),
    ("notifications", "0001_initial"),
]

CONFIGS = {
    "aa-bb-cc-dd-ee-ff": '{"deviceName": "KÜCHE", "deviceEntityId": "light.Küche"}',
    "aa-bb-cc-dd-ee-00": "{}",
}

# As macOS sends it, and as everybody else does.
DECOMPOSED, COMPOSED = "gro\u0308\u00dfe.bin", "gr\u00f6\u00dfe.bin"
# Name of an asset before, and after.
MENDED = {DECOMPOSED: COMPOSED, "fw.bin ": "fw.bin", "Plain.bin": "Plain.bin"}
# Name, and why it stays: another one has the right one, or it would be unusable.
LEFT = {"e\u0301.bin": "is another asset's", " .hidden": "starts with a dot"}
OTHER = "\u00e9.bin"
# Each asset of these has its name for its bytes.
NAMES = [*MENDED, *LEFT, OTHER]

# More than one part of those that nodes share.
LARGE = make_image(project=b"large", filling=b"\x77" * 900)
# Assets with all of their versions, the first one first.
IMAGES = {"a.bin": [make_image(), b"a font"], "b.bin": [make_image(9)[:-1]], "c.bin": [LARGE], "d.bin": [b""]}
# Of these, the bytes are neither kept in a file nor shared.
LOST = {"lost.bin": [b"a lost font", make_image(project=b"lost")], "gone.bin": [make_image(9, project=b"gone")]}


class FirstVersion(NamedTuple):
    """What there was before the update."""

    names: dict[int, str]
    """Of the assets that are called by :data:`NAMES`, by the ID of the row."""
    versions: int
    """Of configurations."""


class Updated(NamedTuple):
    before: FirstVersion
    said: str
    """By ``manage.py migrate``, on standard error."""


@pytest.fixture
def first_version(earlier: Callable[..., Any]) -> FirstVersion:
    """Be an installation of the first version."""
    return _before(*earlier("first-version", _leave_as_before))


@pytest.fixture
def updated(earlier: Callable[..., Any]) -> Updated:
    """Be what becomes of it."""

    def update() -> list[Any]:
        before, said = earlier("first-version", _leave_as_before), StringIO()
        with redirect_stderr(said):
            call_command("migrate", verbosity=0)
        return [before, said.getvalue()]

    before, said = earlier("first-version-updated", update)
    return Updated(_before(*before), said)


def _before(names: dict[str, str], versions: int) -> FirstVersion:
    return FirstVersion({int(pk): name for pk, name in names.items()}, versions)


def _leave_as_before() -> tuple[dict[str, str], int]:
    for mac_address, content in CONFIGS.items():
        DeviceConfig.objects.put(mac_address, content)
    for name, images in (IMAGES | LOST).items():
        for image in images:
            Asset.objects.upload(name, [image[:CHUNK_BYTES], image[CHUNK_BYTES:]])
    rows = {Asset.objects.upload(f"{number}", [name.encode()]).pk: name for number, name in enumerate(NAMES)}
    lost = Asset.history.filter(filename__in=LOST).values_list("sha256", flat=True)
    SharedChunk.objects.filter(sha256__in=lost).delete()
    for sha256 in lost:
        os.unlink(mirror_storage("blobs").path(sha256))
    # Migrations warn of bytes, not of what was before them: with this mode, all files are as their rows will say.
    mirror_storage("assets").mark("a.bin", 0o644)
    versions = DeviceConfig.history.count()
    go_to(*FIRST)
    assert "iotsupport_board" not in connection.introspection.table_names()
    _call_them_as_before(rows)
    for name in [DECOMPOSED, "fw.bin ", "fw.bin"]:  # the table is the same: as the first version records it
        Announcement.objects.create(topic=ASSETS_TOPIC, filename=name)
    return {str(pk): name for pk, name in rows.items()}, versions


def _call_them_as_before(rows: dict[int, str]) -> None:
    """Give these rows, their versions and their files names that today's version refuses."""
    directory = mirror_storage("assets").directory
    with connection.cursor() as cursor:
        for pk, name in rows.items():
            cursor.execute("SELECT filename FROM assets_asset WHERE id = %s", [pk])
            (directory / cursor.fetchone()[0]).rename(directory / name)
            for table in ["assets_asset", "assets_historicalasset"]:
                cursor.execute(f"UPDATE {table} SET filename = %s WHERE id = %s", [name, pk])  # noqa: S608
