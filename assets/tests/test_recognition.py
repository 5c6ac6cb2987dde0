"""What an image is and what is doubtful about it is kept with each version, by whatever way it came."""

from __future__ import annotations

import hashlib
import os
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client

from assets.identity import as_fields
from assets.images import FULL_FLASH
from assets.models import DOUBTFUL, UNCHANGED_WHERE_RUNNING, Asset, SharedChunk
from iotsupport.database import is_shared
from iotsupport.mirror.after_commit import Change, make_all_equal
from iotsupport.mirror.files import CHUNK_BYTES, MARKS, mirror_storage
from iotsupport.mirror.following import follow
from iotsupport.signals import following
from iotsupport.tests.support.api_client import nothing_changed, refusal
from iotsupport.tests.support.first_version import IMAGES, LARGE, LOST
from iotsupport.tests.support.images import ELF_SHA256, make_full_flash, make_image
from iotsupport.tests.support.migrating import go_to_today
from iotsupport.tests.support.multipart import part, post, upload

pytestmark = pytest.mark.usefixtures("transactional_db")

IMAGE = {
    "chip": "ESP32-C3",
    "project": "kitchen",
    "version": "1.4.2",
    "idf_version": "v5.3.1",
    "built": "2026-11-03T14:02:11",
    "elf_sha256": ELF_SHA256,
    "image_sha256": make_image()[-32:].hex(),
    "signed": False,
}

CHECKSUM = "The image's checksum is wrong"
OTHER_CHIP = "It is for another chip than the version before: ESP32-S3 instead of ESP32-C3."
OTHER_PROJECT = "It is of another project than the version before: cellar instead of kitchen."
OTHER_BYTES = "Other bytes were uploaded as version 1.4.2 before: nobody can tell the two by their version."
NO_IMAGE = "The version before is an image for the ESP32-C3 (kitchen), and this file is none."


def mode_of(filename: str) -> int:
    return os.stat(mirror_storage("assets").path(filename)).st_mode & MARKS


def test_an_upload_answers_what_the_image_is(script: Client):
    answer = upload(script, make_image(), "any name").json()

    assert (answer["image"], answer["warnings"]) == (IMAGE, [])
    assert script.get("/assets").json() == [answer]


@pytest.mark.both_databases
def test_what_an_image_does_not_say_is_null(script: Client):
    image = upload(script, make_image(project=b"", version=b"", date=b"", has_digest=False)).json()["image"]

    assert [image[name] for name in ["project", "version", "built", "image_sha256"]] == [None] * 4


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize(
    ("before", "content", "warnings"),
    [
        (None, make_image(), []),
        (None, b"a font", []),
        (None, make_image()[:-1], ["The image is cut short after"]),
        (None, make_image()[:1500] + b"x" + make_image()[1501:], [CHECKSUM, "The SHA-256 at the image's end"]),
        (None, make_full_flash(), [FULL_FLASH]),
        (b"a font", make_image(), []),
        (make_image(), make_image(), []),
        (make_image(), make_image(version=b"1.5.0"), []),
        (make_image(), make_image(9, version=b"1.5.0"), [OTHER_CHIP]),
        (make_image(), make_image(project=b"cellar"), [OTHER_PROJECT]),
        (make_image(), make_image(9, project=b"cellar"), [OTHER_CHIP, OTHER_PROJECT]),
        (make_image(), make_image(filling=b"\x11"), [OTHER_BYTES]),
        (make_image(version=b""), make_image(version=b"", filling=b"\x11"), []),
        (make_image(), make_image(9), [OTHER_CHIP, OTHER_BYTES]),
        (make_image(), b"a font", [NO_IMAGE]),
        (make_image(), make_full_flash(), [FULL_FLASH, NO_IMAGE]),
    ],
)
def test_warns_and_saves(script: Client, before: bytes | None, content: bytes, warnings: list[str]):
    if before is not None:
        upload(script, before)

    answer = upload(script, content).json()

    assert [said.startswith(expected) for said, expected in zip(answer["warnings"], warnings, strict=True)].count(
        False
    ) == 0
    asset = Asset.objects.get()
    assert asset.sha256 == hashlib.sha256(content).hexdigest()
    assert asset.warnings == asset.history.latest().warnings == answer["warnings"]
    assert mode_of("firmware.bin") == (DOUBTFUL if warnings else 0)


@pytest.mark.both_databases
def test_warns_of_a_version_that_was_there_long_before(script: Client):
    for content in [make_image(), make_image(version=b"1.5.0")]:
        upload(script, content)

    assert upload(script, make_image(filling=b"\x11")).json()["warnings"] == [OTHER_BYTES]
    assert upload(script, make_image(version=b"1.5.0")).json()["warnings"] == []


@pytest.mark.both_databases
def test_the_history_keeps_what_each_version_was(script: Client):
    for content in [make_image(), b"a font"]:
        upload(script, content)

    [last, first] = Asset.objects.get().history.all()
    assert (first.version, first.image_sha256, last.version, last.warnings) == (
        "1.4.2",
        IMAGE["image_sha256"],
        "",
        [NO_IMAGE],
    )


@pytest.mark.both_databases
@pytest.mark.parametrize("word", ["kitchen", "1.4.2", "esp32-c3", "V5.3", "KITCHEN 1.4", IMAGE["image_sha256"]])
def test_is_found_by_what_the_image_says(signed_in: Client, word: str):
    Asset.objects.upload("a.bin", [make_image()])
    Asset.objects.upload("b.bin", [make_image(9, project=b"cellar", version=b"2.0")])

    page = signed_in.get("/admin/assets/asset/", {"q": word}).content.decode()

    assert "a.bin" in page
    assert "b.bin" not in page or word == "V5.3"


class TestChoice:
    """Whether boards that say they run an asset are told that there is nothing new."""

    @pytest.mark.both_databases(once=True)
    @pytest.mark.parametrize(
        ("said", "before", "after"),
        [(None, False, False), (None, True, True), (b"true", False, True), (b"false", True, False)],
    )
    def test_comes_with_an_upload(self, script: Client, said: bytes | None, before: bool, after: bool):
        asset = Asset.objects.upload("firmware.bin", [make_image()])
        asset.unchanged_where_running = before
        asset.save()

        answer = post(
            script, part(b"new"), *([] if said is None else [part(said, None, "unchanged_where_running")])
        ).json()

        assert answer["unchanged_where_running"] is after
        assert bool(mode_of("firmware.bin") & UNCHANGED_WHERE_RUNNING) is after

    @pytest.mark.parametrize("said", [b"", b"yes", b"True", b"1"])
    def test_is_true_or_false(self, script: Client, said: bytes):
        with nothing_changed():
            response = post(script, part(b"new"), part(said, None, "unchanged_where_running"))

        assert refusal(response) == (400, "INVALID_VALUE")

    def test_changes_neither_the_bytes_nor_their_date(self):
        asset = Asset.objects.upload("firmware.bin", [make_image()])
        before = os.stat(mirror_storage("assets").path("firmware.bin"))

        asset.unchanged_where_running = True
        asset.save_choice()

        after = os.stat(mirror_storage("assets").path("firmware.bin"))
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert mode_of("firmware.bin") == UNCHANGED_WHERE_RUNNING
        assert Asset.objects.get().uploaded_at == asset.uploaded_at

    @pytest.mark.both_databases
    def test_is_made_equal_at_a_start(self):
        Asset.objects.upload("firmware.bin", [make_image()])
        Asset.objects.update(unchanged_where_running=True)

        call_command("sync_mirror", stdout=StringIO())

        assert mode_of("firmware.bin") == UNCHANGED_WHERE_RUNNING
        call_command("sync_mirror", "--check", stdout=StringIO())

    @pytest.mark.both_databases
    def test_comes_back_with_bytes_that_were_lost(self):
        asset = Asset.objects.upload("firmware.bin", [make_image()[:-1]])
        asset.unchanged_where_running = True
        asset.save_choice()
        os.unlink(mirror_storage("assets").path("firmware.bin"))

        call_command("sync_mirror", stdout=StringIO())

        assert mode_of("firmware.bin") == UNCHANGED_WHERE_RUNNING | DOUBTFUL


class TestImport:
    def report(self, directory: Path, *options: str) -> tuple[str, str]:
        output, errors = StringIO(), StringIO()
        call_command("import_assets", str(directory), *options, stdout=output, stderr=errors)
        return output.getvalue(), errors.getvalue()

    @pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["taken", "dry run"])
    def test_says_what_is_doubtful(self, tmp_path: Path, options: list[str]):
        Asset.objects.upload("kitchen.bin", [make_image()])
        directory = tmp_path / "new"
        directory.mkdir()
        (directory / "kitchen.bin").write_bytes(make_image(9))
        (directory / "cellar.bin").write_bytes(make_image(project=b"cellar"))

        output, errors = self.report(directory, *options)

        assert "1 taken, 1 replaced, 0 unchanged, 0 refused" in output
        assert errors.splitlines() == [
            f"'kitchen.bin': warning: {OTHER_CHIP}",
            f"'kitchen.bin': warning: {OTHER_BYTES}",
        ]

    def test_says_nothing_of_what_is_there(self, tmp_path: Path):
        Asset.objects.upload("kitchen.bin", [make_image()[:-1]])
        directory = tmp_path / "new"
        directory.mkdir()
        (directory / "kitchen.bin").write_bytes(make_image()[:-1])

        assert self.report(directory)[1] == ""


# --- Rows and versions from before ---------------------------------------------------------------------------------


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.postgresql)], ids=["here", "on another node"])
def with_bytes(request: pytest.FixtureRequest) -> None:
    """Be an installation after its update; where the bytes are elsewhere, they were already before it."""
    if not request.param:
        request.getfixturevalue("updated")
        return
    request.getfixturevalue("first_version")
    for blob in mirror_storage("blobs").directory.iterdir():
        blob.unlink()
    go_to_today("assets")


@pytest.mark.both_databases
@pytest.mark.usefixtures("with_bytes")
def test_the_migration_recognises_every_version():
    assert len(LARGE) > CHUNK_BYTES
    current = {asset.filename: asset for asset in Asset.objects.filter(filename__in=IMAGES)}
    assert [current[name].project for name in IMAGES] == ["", "kitchen", "large", ""]
    assert [bool(current[name].warnings) for name in IMAGES] == [False, True, False, False]
    assert current["c.bin"].image_sha256 == LARGE[-32:].hex()
    assert current["c.bin"].folded == "c.bin\nlarge\n1.4.2\nesp32-c3\nv5.3.1"
    assert current["a.bin"].history.earliest().instance.image == Asset(**as_fields(None, []) | IMAGE).image
    assert SharedChunk.objects.exists() == is_shared(connection)


@pytest.mark.both_databases
@pytest.mark.usefixtures("updated")
def test_the_migration_leaves_what_is_lost():
    lost = Asset.history.filter(filename__in=LOST)

    assert not [sha256 for sha256 in lost.values_list("sha256", flat=True) if mirror_storage("blobs").exists(sha256)]
    assert [asset.image for asset in Asset.objects.filter(filename__in=LOST)] == [None] * len(LOST)
    assert [(version.image_sha256, version.warnings) for version in lost] == [("", [])] * 3


@pytest.mark.usefixtures("updated")
def test_a_start_after_the_migration_says_nothing_new():
    """Devices are not called back for what they have."""
    mirror_storage("assets").mark("b.bin", 0o644)  # as it is before images are recognised
    before = {name: os.stat(mirror_storage("assets").path(name)).st_mtime_ns for name in ["c.bin", "b.bin"]}

    call_command("sync_mirror", stdout=StringIO())

    assert {name: os.stat(mirror_storage("assets").path(name)).st_mtime_ns for name in before} == before
    assert [mode_of(name) for name in before] == [0, DOUBTFUL]


@pytest.mark.both_databases
def test_another_node_follows_a_choice_without_calling_devices_back():
    Asset.objects.upload("firmware.bin", [make_image()])
    before = os.stat(mirror_storage("assets").path("firmware.bin")).st_mtime_ns
    Asset.objects.update(unchanged_where_running=True)
    told: list[str] = []

    def hear(filename: str, **kwargs: object) -> None:
        told.append(filename)

    following.connect(hear, sender=Asset)
    try:
        follow(Asset, "firmware.bin", "default")
    finally:
        following.disconnect(hear, sender=Asset)

    assert mode_of("firmware.bin") == UNCHANGED_WHERE_RUNNING
    assert os.stat(mirror_storage("assets").path("firmware.bin")).st_mtime_ns == before
    assert told == []


@pytest.mark.both_databases
def test_of_two_saves_of_the_same_bytes_the_last_commit_decides(directories: Path):
    """Though the first one's file comes later."""
    asset = Asset.objects.upload("firmware.bin", [make_image()])
    asset.unchanged_where_running = True
    staged = asset.stage()
    late = Change(Asset, "firmware.bin", "default", staged)  # of a save that has committed, and was overtaken

    make_all_equal([late])

    assert mode_of("firmware.bin") == 0
