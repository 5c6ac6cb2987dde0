"""What is saved is written and synced before the transaction begins, which lets nobody else save meanwhile."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, connection, transaction
from django.test import Client

from assets.models import Asset, PendingUpload
from devices.models import DeviceConfig, DeviceType
from devices.parsing import parse_config
from devices.transfer.importing import take_files
from iotsupport.management.importing import Taken
from iotsupport.mirror.files import MirrorError, MirrorStorage, mirror_storage
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.api_client import make_user, nothing_changed, session_client, token_client
from iotsupport.tests.support.images import make_image
from iotsupport.tests.support.server import clean_environ, files, manage
from iotsupport.tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

MAC, OTHER = "aa-bb-cc-dd-ee-ff", "00-00-00-00-00-01"
OLD, NEW = '{"version": 1}', '{"version": 2}'
ADMIN = "/admin/devices/deviceconfig/"
ASSETS_ADD = "/admin/assets/asset/add/"


@pytest.fixture
def saved(transactional_db: None) -> DeviceConfig:
    return DeviceConfig.objects.put(MAC, OLD)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bool]]]:
    """In which directory something was brought to the disk, and whether a transaction was open."""
    calls: list[tuple[str, bool]] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        calls.append(((path if path.is_dir() else path.parent).name, connection.in_atomic_block))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    yield calls


@contextmanager
def no_transaction() -> Iterator[None]:
    """Assert that none is begun: on SQLite, it would wait for all who save."""
    with mock.patch.object(transaction.Atomic, "__enter__", side_effect=AssertionError):
        yield


def content_of(mac_address: str) -> bytes:
    return Path(mirror_storage("configs").path(f"{mac_address}.json")).read_bytes()


# --- Configurations ----------------------------------------------------------------------------------------------


class TestAConfiguration:
    @pytest.fixture(autouse=True)
    def in_the_database(self, saved: DeviceConfig) -> None:
        """There is one already."""

    @pytest.mark.both_databases(once=True)
    @pytest.mark.parametrize("mac_address", [MAC, OTHER], ids=["replaced", "created"])
    def test_put(self, mac_address, synced):
        DeviceConfig.objects.put(mac_address, NEW)

        assert synced == [("configs", False)]
        assert content_of(mac_address) == NEW.encode()

    @pytest.mark.both_databases
    def test_saved_as_a_row(self, saved, synced):
        saved.content = NEW
        saved.save()
        DeviceConfig(mac_address=OTHER, content=NEW).save()

        assert synced == [("configs", False)] * 2
        assert (content_of(MAC), content_of(OTHER)) == (NEW.encode(), NEW.encode())

    @pytest.mark.both_databases(once=True)
    @pytest.mark.parametrize("mac_address", [MAC, OTHER], ids=["replaced", "created"])
    @pytest.mark.parametrize("suffix", ["", ".json"])
    def test_sent_by_a_script(self, script, mac_address, suffix, synced):
        body = NEW if suffix else f'{{"content": {NEW}}}'

        response = script.put(f"/configs/{mac_address}{suffix}", body, content_type="application/json")

        assert response.status_code == 200
        assert synced == [("configs", False)]
        assert content_of(mac_address) == NEW.encode()

    @pytest.mark.both_databases
    def test_imported(self, tmp_path, synced):
        path = tmp_path / f"{MAC}.json"
        path.write_text(NEW)

        assert take_files([path], dry_run=False) == [Taken("replaced")]
        assert synced == [("configs", False)]

    @pytest.mark.both_databases
    def test_changed_in_the_admin(self, saved, signed_in, synced):
        typed = '{\r\n"version": 2}'  # as browsers send it

        response = signed_in.post(f"{ADMIN}{saved.pk}/change/", {"content": typed, "based_on": saved.etag})

        assert response.status_code == 302
        assert synced == [("configs", False)]
        assert content_of(MAC) == b'{\n"version": 2}'

    def test_added_in_the_admin(self, signed_in, synced):
        response = signed_in.post(f"{ADMIN}add/", {"mac_address": OTHER, "content": NEW})

        assert response.status_code == 302
        assert synced == [("configs", False)]
        assert content_of(OTHER) == NEW.encode()

    @pytest.mark.both_databases
    def test_is_what_is_saved_where_that_is_another_text(self, saved, signed_in, synced):
        """The line ends of what is stored are known only when it is locked."""
        DeviceConfig.objects.put(MAC, '{\r\n"version": 1}')
        saved.refresh_from_db()
        synced.clear()

        signed_in.post(f"{ADMIN}{saved.pk}/change/", {"content": '{\r\n"version": 2}', "based_on": saved.etag})

        assert content_of(MAC) == b'{\r\n"version": 2}'
        assert files(mirror_storage("configs").directory).keys() == {f"{MAC}.json"}

    @pytest.mark.both_databases
    def test_judged_by_the_schema_of_its_type(self, saved, script, signed_in, monkeypatch):
        """It may take long, and meanwhile nobody else could save."""
        lamp = DeviceType.objects.create(name="Lamp", folded="lamp", schema="{}")
        DeviceConfig.objects.update(type=lamp)
        in_transaction: list[bool] = []

        def judge(schema: str, text: str) -> list[Any]:
            in_transaction.append(connection.in_atomic_block)
            return []

        monkeypatch.setattr("devices.models.errors_of", judge)
        script.put(f"/configs/{MAC}", f'{{"content": {NEW}}}', "application/json")
        script.put(f"/configs/{OTHER}", f'{{"content": {NEW}, "type": "Lamp"}}', "application/json")
        script.post(f"/configs/{MAC}/versions/1/restore")
        shown = signed_in.get(f"{ADMIN}{saved.pk}/change/").context["adminform"].form["based_on"].value()
        typed = {"content": '{"version": 3}', "type": lamp.pk, "based_on": shown}
        signed_in.post(f"{ADMIN}{saved.pk}/change/", typed)
        DeviceConfig.objects.put(MAC, '{"version": 4}')

        assert in_transaction == [False] * 5
        assert DeviceConfig.history.filter(mac_address=MAC).count() == 5

    def test_parsed(self, saved, script, signed_in, tmp_path):
        (tmp_path / f"{OTHER}.json").write_text(NEW)
        parsed: list[bool] = []

        def watch(text: str) -> Any:
            parsed.append(connection.in_atomic_block)
            return parse_config(text)

        with (
            mock.patch("devices.models.parse_config", autospec=True, side_effect=watch),
            mock.patch("devices.writing.parse_config", autospec=True, side_effect=watch),
        ):
            saved.save()
            take_files([tmp_path / f"{OTHER}.json"], dry_run=False)
            script.put(f"/configs/{MAC}.json", NEW, content_type="application/json")
            signed_in.post(f"{ADMIN}{saved.pk}/change/", {"content": '{"version": 3}'})

        assert not any(parsed)
        assert content_of(MAC) == b'{"version": 3}'

    # --- What is refused ---

    @pytest.mark.parametrize(
        ("wrapping", "headers", "status"),
        [
            ({"allow_overwrite": False}, {}, 409),
            ({}, {"If-Match": '"another"'}, 412),
            ({}, {"If-None-Match": "*"}, 412),
        ],
    )
    def test_that_a_script_may_not_replace_is_gone(self, script, wrapping, headers, status, synced):
        body = json.dumps({"content": {}, **wrapping})

        with nothing_changed():
            response = script.put(f"/configs/{MAC}", body, content_type="application/json", headers=headers)

        assert response.status_code == status
        assert synced == [("configs", False)]

    def test_of_somebody_who_may_only_add_is_gone(self):
        caller = token_client(make_user("devices.add_deviceconfig"))

        with nothing_changed():
            response = caller.put(f"/configs/{MAC}.json", NEW, content_type="application/json")

        assert response.json()["details"] == {"permission": "devices.change_deviceconfig"}

    @pytest.mark.parametrize(
        ("mac_address", "needed"), [(MAC, "devices.change_deviceconfig"), (OTHER, "devices.add_deviceconfig")]
    )
    def test_of_somebody_who_may_not_save_is_not_written(self, mac_address, needed, synced):
        caller = token_client(make_user("devices.view_deviceconfig"))

        with no_transaction():
            response = caller.put(f"/configs/{mac_address}.json", NEW, content_type="application/json")

        assert (response.status_code, response.json()["details"]) == (403, {"permission": needed})
        assert synced == []

    def test_of_strangers_and_of_people_who_may_not_save_is_not_written_by_the_admin_either(self, saved, synced):
        looks = session_client(make_user("devices.view_deviceconfig", is_staff=True))
        for caller in [looks, Client()]:
            assert caller.post(f"{ADMIN}{saved.pk}/change/", {"content": NEW}).status_code == 403
        assert synced == []

    @pytest.mark.parametrize("content", ["[]", '{"a": 1, "a": 2}', f'{{"padding": "{"x" * 70_000}"}}'])
    def test_that_is_no_configuration_is_not_written(self, saved, script, signed_in, content, synced):
        with nothing_changed():
            script.put(f"/configs/{MAC}.json", content, content_type="application/json")
            signed_in.post(f"{ADMIN}{saved.pk}/change/", {"content": content})
            with pytest.raises(ValidationError):
                DeviceConfig.objects.put(MAC, content)

        assert synced == []

    def test_that_somebody_else_changed_meanwhile_is_gone_while_the_form_is_shown_again(self, saved, signed_in):
        with nothing_changed():
            response = signed_in.post(f"{ADMIN}{saved.pk}/change/", {"content": NEW, "based_on": '"another"'})

        assert "Somebody else changed it meanwhile" in response.content.decode()

    @pytest.mark.both_databases
    def test_that_a_database_refuses_is_gone(self):
        with nothing_changed(), pytest.raises(IntegrityError):
            DeviceConfig(mac_address=MAC, content=NEW).save()

    def test_that_is_refused_is_gone_while_somebody_still_holds_it(self):
        """As a traceback may."""
        new = DeviceConfig.objects.prepare(NEW)

        with pytest.raises(ZeroDivisionError), DeviceConfig.objects.locked(MAC, new):
            raise ZeroDivisionError

        assert files(mirror_storage("configs").directory) == {f"{MAC}.json": OLD.encode()}

    def test_that_was_refused_once_can_be_saved_later(self, saved):
        saved.content, pk = NEW, saved.pk
        with pytest.raises(IntegrityError):
            saved.save(force_insert=True)

        saved.pk = pk
        saved.save()

        assert content_of(MAC) == NEW.encode()

    # --- Longer transactions ---

    @pytest.mark.both_databases
    def test_stays_until_the_commit_of_a_longer_transaction(self):
        with transaction.atomic():
            DeviceConfig.objects.put(MAC, NEW)
            DeviceConfig.objects.put(OTHER, NEW)

            assert content_of(MAC) == OLD.encode()

        names = {f"{MAC}.json", f"{OTHER}.json"}
        assert files(mirror_storage("configs").directory) == dict.fromkeys(names, NEW.encode())

    @pytest.mark.both_databases
    def test_saved_twice_in_a_transaction(self, saved):
        with transaction.atomic():
            for content in [NEW, NEW, '{"version": 3}']:
                saved.content = content
                saved.save()

        assert files(mirror_storage("configs").directory) == {f"{MAC}.json": b'{"version": 3}'}


# --- Assets ------------------------------------------------------------------------------------------------------


# The upload, its name under its digest, and the copy that devices download.
STEPS = ["blobs", "blobs", "assets"]


class TestTheBytesOfAnAsset:
    @pytest.fixture(params=["new", "again"], autouse=True)
    def before(self, request: pytest.FixtureRequest) -> None:
        if request.param == "again":
            Asset.objects.upload("firmware.bin", [b"old"])

    @pytest.fixture(params=["upload", "script", "admin"])
    def upload(self, request: pytest.FixtureRequest, script: Client, signed_in: Client) -> Callable[[str], Any]:
        """Upload b"new" under a name, in one of the ways to do so."""

        def send(name: str) -> Any:
            if request.param == "upload":
                return Asset.objects.upload(name, [b"new"])
            file = {"file": SimpleUploadedFile(name, b"new")}
            return script.post("/assets", file) if request.param == "script" else signed_in.post(ASSETS_ADD, file)

        return send

    @pytest.mark.both_databases(once=True)
    def test_uploaded(self, upload, directories, synced):
        upload("firmware.bin")

        assert synced == [(directory, False) for directory in STEPS]
        assert files(directories / "assets") == {"firmware.bin": b"new"}
        assert b"new" in files(directories / "blobs").values()

    def test_that_are_refused_are_gone(self, upload):
        with nothing_changed(), suppress(ValidationError):
            upload(".hidden")

    def test_that_are_refused_leave_alone_those_that_are_the_same(self, upload):
        Asset.objects.upload("other.bin", [b"new"])

        with nothing_changed(), suppress(ValidationError):
            upload(".hidden")

    @pytest.mark.both_databases(once=True)
    def test_that_are_there_already(self, upload, directories, synced):
        """They take the place of what may be damaged: but not before it is known that they may."""
        Asset.objects.upload("other.bin", [b"new"])
        synced.clear()

        upload("firmware.bin")

        assert synced == [("blobs", False), ("assets", False), ("blobs", True)]
        assert files(directories / "assets") == {"firmware.bin": b"new", "other.bin": b"new"}

    def test_that_fill_the_disk_are_gone(self, upload, monkeypatch):
        full = MirrorStorage.stage

        def stage(storage: MirrorStorage, chunks: Any) -> Any:
            if storage.label == "assets":
                raise MirrorError("No room is left.")
            return full(storage, chunks)

        monkeypatch.setattr(MirrorStorage, "stage", stage)

        with nothing_changed(), suppress(MirrorError):
            assert "No room is left." in upload("firmware.bin").content.decode()


class TestAnUploadThatWasAskedAbout:
    @pytest.fixture
    def asked(self, signed_in: Client) -> dict[str, str]:
        """What the answer is sent with. Half an image is doubtful."""
        half = SimpleUploadedFile("kitchen.bin", make_image()[:400])
        assert signed_in.post(ASSETS_ADD, {"file": half}).status_code == 200
        return {"pending": str(PendingUpload.objects.get().pk)}

    @pytest.mark.both_databases
    def test_is_copied(self, signed_in, asked, directories, synced):
        assert signed_in.post(ASSETS_ADD, asked).status_code == 302

        assert synced == [("assets", False)]
        assert files(directories / "assets") == {"kitchen.bin": make_image()[:400]}

    def test_and_is_refused_leaves_nothing(self, signed_in, asked):
        Asset.objects.upload("other.bin", [b"other"])
        of_another = f"/admin/assets/asset/{Asset.objects.get().pk}/change/"

        with nothing_changed():
            assert signed_in.post(of_another, asked).status_code == 200

    def test_by_who_may_save_nothing_any_more_is_not_copied(self, signed_in, asked, synced):
        looks = make_user("assets.view_asset", is_staff=True)
        PendingUpload.objects.update(user=looks)

        assert session_client(looks).post(ASSETS_ADD, asked).status_code == 403
        assert synced == []


# --- What is killed ----------------------------------------------------------------------------------------------


@pytest.mark.sqlite("its lock is what a save waits for")
def test_what_is_killed_while_it_waits_leaves_staged_bytes_until_the_next_start(template, tmp_path):
    installation = template.copy(tmp_path / "installation")
    configs = installation.data_dir / "configs"
    put = f"from devices.models import DeviceConfig; DeviceConfig.objects.put({MAC!r}, {NEW!r})"
    command = [sys.executable, "manage.py", "shell", "-c", put]
    env = clean_environ(installation.environ)
    with closing(sqlite3.connect(installation.database.path, isolation_level=None)) as somebody_else:
        somebody_else.execute("BEGIN IMMEDIATE")
        with subprocess.Popen(command, cwd=BASE_DIR, env=env) as process:
            eventually(lambda: configs.is_dir() and NEW.encode() in files(configs).values())
            process.kill()
        somebody_else.execute("ROLLBACK")
    [left] = files(configs)

    manage(installation.environ, "sync_mirror")

    assert left.startswith(".new-")
    assert files(configs) == {}
    assert installation.database.query("SELECT 1 FROM devices_deviceconfig") == []
