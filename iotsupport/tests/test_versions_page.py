"""The versions of a configuration or asset in the admin: listed, compared, and saved anew."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.utils.html import escape

from assets.models import Asset, SharedChunk
from devices.models import DeviceConfig, DeviceType
from iotsupport.editing.versions import PAGE_ROWS
from iotsupport.mirror.files import MirrorStorage, StagedFile, mirror_storage
from iotsupport.tests.support.api_client import counted, make_user, nothing_changed, session_client
from iotsupport.tests.support.saved_twice import ASSETS, CONFIGS, CONTENT, MAC, save_config_twice

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

VERSIONS = f"{CONFIGS}versions/{MAC}/"
OF_ASSET = f"{ASSETS}versions/firmware.bin/"


@pytest.fixture
def config() -> DeviceConfig:
    return save_config_twice()


@pytest.fixture
def asset() -> Asset:
    Asset.objects.upload("firmware.bin", [b"before"])
    return Asset.objects.upload("firmware.bin", [b"last"])


def listed(page: Any) -> list[tuple[int, str, str, str | None]]:
    return [(each.number, each.done, each.by, each.version.history_change_reason) for each in page.context["listed"]]


def based_on(row: Any) -> dict[str, str]:
    return {"based_on": row.content_sha256 if row else ""}


def messages(page: Any) -> list[str]:
    return [f"{message.level_tag}: {message}" for message in page.context["messages"]]


class TestList:
    @pytest.mark.both_databases
    def test_has_all_that_was_saved_under_a_name_the_newest_first(self, signed_in: Client, config: DeviceConfig):
        config.delete()
        signed_in.post(f"{CONFIGS}add/", {"mac_address": MAC, "content": "{}", "reason": "needed again"})

        page = signed_in.get(VERSIONS)

        assert listed(page) == [
            (4, "added", "admin", "needed again"),
            (3, "deleted", "command", None),
            (2, "", "command", None),
            (1, "added", "command", None),
        ]
        assert [each.is_now for each in page.context["listed"]] == [True, False, False, False]

    def test_says_by_which_token(self, signed_in: Client, config: DeviceConfig):
        DeviceConfig.history.update(history_user=User.objects.get(), history_way="api", history_token="build")

        page = signed_in.get(VERSIONS)

        assert 'admin<span class="second">token “build”</span>' in page.text

    @pytest.mark.both_databases
    def test_has_pages_that_keep_what_is_chosen(self, signed_in: Client):
        for number in range(PAGE_ROWS + 1):
            DeviceConfig.objects.put(MAC, f'{{"n": {number}}}')

        page = signed_in.get(VERSIONS, {"old": 1, "new": 3, "p": 2})

        assert [number for number, *_ in listed(page)] == [1]
        assert '<input type="hidden" name="new" value="3">' in page.text
        assert 'href="?old=1&amp;new=3&amp;p=1"' in page.text

    @pytest.mark.both_databases
    def test_reads_no_texts_of_those_it_does_not_compare(self, signed_in: Client, django_assert_max_num_queries: Any):
        for number in range(PAGE_ROWS):
            DeviceConfig.objects.put(MAC, f'{{"n": {number}}}')

        with django_assert_max_num_queries(22):
            signed_in.get(VERSIONS)


class TestDifference:
    @pytest.mark.both_databases
    def test_is_that_of_the_last_two_at_first(self, signed_in: Client, config: DeviceConfig):
        page = signed_in.get(VERSIONS)

        assert "Version 1 and version 2 (now)" in page.text
        assert "<mark>Before</mark>" in page.text and "<mark>Lamp</mark>" in page.text

    def test_goes_from_the_older_to_the_newer_however_they_are_chosen(self, signed_in: Client, config: DeviceConfig):
        page = signed_in.get(VERSIONS, {"old": 2, "new": 1})

        assert "Version 1 and version 2 (now)" in page.text
        assert (page.context["old"], page.context["new"]) == (1, 2)

    def test_of_one_version_alone_shows_it(self, signed_in: Client):
        DeviceConfig.objects.put(MAC, '{"only": 1}')

        page = signed_in.get(VERSIONS)

        assert "Version 1 (now)" in page.text
        assert escape('{"only": 1}') in page.text

    def test_says_that_there_is_no_such_version(self, signed_in: Client, config: DeviceConfig):
        DeviceConfig.history.filter(pk=config.history.earliest().pk).update(history_forgotten=4)

        assert "There is no version 7." in signed_in.get(VERSIONS, {"new": 7}).text
        assert "Version 4 is not kept any more." in signed_in.get(VERSIONS, {"old": 4}).text
        assert "Version 5 and version 6 (now)" in signed_in.get(VERSIONS, {"old": 5, "new": 6}).text

    def test_of_assets_is_one_of_facts(self, signed_in: Client, asset: Asset):
        page = signed_in.get(OF_ASSET)

        changed = [fact.name for fact in page.context["comparison"]["facts"] if fact.is_changed]
        assert changed == ["size in bytes", "SHA-256", "MD5"]
        assert all(text in page.text for text in [asset.sha256, asset.md5])

    @pytest.mark.parametrize("content", ['{"a": "%s"}' % ("x" * 60_000), '{"a": [%s\n0]}' % ("1,\n" * 20_000)])
    def test_of_large_texts_is_shown(self, signed_in: Client, content: str):
        DeviceConfig.objects.put(MAC, content)
        DeviceConfig.objects.put(MAC, content.replace("1", "2").replace("x", "y"))

        assert signed_in.get(VERSIONS).status_code == 200


class TestRestoring:
    def test_shows_first_what_it_changes(self, signed_in: Client, config: DeviceConfig):
        with nothing_changed():
            page = signed_in.get(f"{VERSIONS}1/restore/")

        assert "<mark>Lamp</mark>" in page.text and "<mark>Before</mark>" in page.text
        assert page.context["form"].initial["based_on"] == config.content_sha256

    @pytest.mark.both_databases
    def test_saves_an_earlier_version_anew(self, signed_in: Client, administrator: User, config: DeviceConfig):
        with counted("iot_config_operations_total", operation="save", status="success"):
            page = signed_in.post(f"{VERSIONS}1/restore/", based_on(config), follow=True)

        row = DeviceConfig.objects.get()
        assert (row.content, row.updated_by, row.is_mirrored()) == ('{"deviceName": "Before"}', administrator, True)
        assert messages(page) == [f"success: Version 1 of {MAC} (Before) is saved anew."]
        assert listed(page)[0] == (3, "", "admin", "Restored from version 1")
        assert LogEntry.objects.first().get_change_message() == "Restored from version 1."  # type: ignore[union-attr]

    def test_keeps_the_reason_that_was_typed(self, signed_in: Client, config: DeviceConfig):
        signed_in.post(f"{VERSIONS}1/restore/", {**based_on(config), "reason": " as before "})

        assert config.history.latest().history_change_reason == "as before"

    @pytest.mark.both_databases
    def test_brings_back_the_bytes_of_an_asset(self, signed_in: Client, administrator: User, asset: Asset):
        signed_in.post(f"{OF_ASSET}1/restore/", based_on(asset))

        row = Asset.objects.get()
        assert Path(mirror_storage("assets").path("firmware.bin")).read_bytes() == b"before"
        assert (row.size, row.uploaded_by) == (6, administrator)

    @pytest.mark.both_databases
    def test_brings_back_what_was_deleted(self, signed_in: Client, config: DeviceConfig, asset: Asset):
        pk = config.pk
        for row in [config, asset]:
            row.delete()

        for url in [VERSIONS, OF_ASSET]:
            assert "It was deleted." in signed_in.get(f"{url}2/restore/").text
            signed_in.post(f"{url}2/restore/", based_on(None))

        assert (DeviceConfig.objects.get().pk, DeviceConfig.objects.get().content) == (pk, CONTENT)
        assert Asset.objects.get().size == 4

    @pytest.mark.both_databases(once=True)
    @pytest.mark.parametrize("change", ["edit", "delete"])
    def test_overwrites_nothing_unseen(self, signed_in: Client, config: DeviceConfig, change: str):
        seen = based_on(config)
        if change == "edit":
            DeviceConfig.objects.put(MAC, '{"by": "somebody else"}')
        else:
            config.delete()

        with nothing_changed(), counted("iot_config_operations_total", operation="save", status="error"):
            page = signed_in.post(f"{VERSIONS}1/restore/", {**seen, "reason": "as before"})

        assert "It was changed while you were looking. Nothing was saved." in page.text
        assert 'value="as before"' in page.text
        current = DeviceConfig.objects.first()
        signed_in.post(f"{VERSIONS}1/restore/", {"based_on": page.context["form"].initial["based_on"]})
        assert current is None or DeviceConfig.objects.get().device_name == "Before"

    def test_refuses_what_does_not_fit_any_more(self, signed_in: Client, config: DeviceConfig, settings: Any):
        settings.CONFIG_MAX_BYTES = 10

        with nothing_changed():
            pages = [signed_in.get(f"{VERSIONS}1/restore/"), signed_in.post(f"{VERSIONS}1/restore/", based_on(config))]

        assert ["10 are allowed" in page.text for page in pages] == [True, True]
        assert 'value="Restore version 1"' not in pages[0].text

    def test_asks_once_more_for_what_does_not_fit_its_type_any_more(self, signed_in: Client, config: DeviceConfig):
        strict = DeviceType.objects.create(name="Strict", folded="strict", schema='{"maxProperties": 0}')
        DeviceConfig.objects.update(type=strict)
        earlier, current = config.history.last().content, config.content
        sentence = "This does not fit the type “Strict”. Line 1, column 1: "

        shown = signed_in.get(f"{VERSIONS}1/restore/")
        with nothing_changed():
            refused = signed_in.post(f"{VERSIONS}1/restore/", {**based_on(config), "reason": "as before"})

        for page in [shown, refused]:
            assert sentence in page.text
            assert "Restore it although it does not fit" in page.text
            assert 'value="Restore version 1"' in page.text
        assert f"Nothing was saved. {sentence}" in refused.text
        assert 'value="as before"' in refused.text
        assert DeviceConfig.objects.get().content == current
        signed_in.post(f"{VERSIONS}1/restore/", {**based_on(config), "anyway": "on"})
        restored = DeviceConfig.objects.get()
        assert (restored.content, restored.fits) == (earlier, False)

    def test_says_that_the_bytes_are_gone(self, signed_in: Client, asset: Asset, directories: Path):
        for blob in (directories / "blobs").iterdir():
            blob.unlink()
        SharedChunk.objects.all().delete()  # where other nodes would fetch them

        with nothing_changed():
            pages = [signed_in.get(f"{OF_ASSET}1/restore/"), signed_in.post(f"{OF_ASSET}1/restore/", based_on(asset))]

        assert ["The kept bytes of this version are missing" in page.text for page in pages] == [True, True]

    def test_says_that_the_disk_is_full(self, signed_in: Client, config: DeviceConfig):
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fields = {**based_on(config), "reason": "as before"}

        with nothing_changed(), mock.patch.object(StagedFile, "sync", autospec=True, side_effect=full):
            page = signed_in.post(f"{VERSIONS}1/restore/", fields)

        assert "Nothing was saved. No room is left on the disk of the configs directory." in page.text
        assert 'value="as before"' in page.text

    def test_warns_where_the_file_does_not_follow(self, signed_in: Client, config: DeviceConfig):
        broken = OSError(errno.EIO, os.strerror(errno.EIO))

        with mock.patch.object(MirrorStorage, "replace", autospec=True, side_effect=broken):
            page = signed_in.post(f"{VERSIONS}1/restore/", based_on(config), follow=True)

        assert messages(page)[0].startswith("warning: The change is saved, but the file of")
        assert DeviceConfig.objects.get().device_name == "Before"

    def test_refuses_a_reason_that_is_too_long_and_keeps_it(self, signed_in: Client, config: DeviceConfig):
        with nothing_changed():
            page = signed_in.post(f"{VERSIONS}1/restore/", {**based_on(config), "reason": "x" * 501})

        assert "The reason has 501 characters; 500 are allowed. Shorten it." in page.text
        assert "x" * 501 in page.text

    def test_needs_a_token_against_forgery(self, administrator: User, config: DeviceConfig):
        forged = session_client(administrator, with_csrf=False)

        with nothing_changed():
            assert forged.post(f"{VERSIONS}1/restore/", based_on(config)).status_code == 403

    def test_is_not_for_those_who_may_only_look(self, config: DeviceConfig):
        guest = session_client(make_user("devices.view_deviceconfig", is_staff=True))

        with nothing_changed():
            answers = [guest.get(f"{VERSIONS}1/restore/"), guest.post(f"{VERSIONS}1/restore/", based_on(config))]

        assert [answer.status_code for answer in answers] == [403, 403]
        assert "/restore/" not in guest.get(VERSIONS).text


class TestDeleted:
    @pytest.fixture
    def two(self, config: DeviceConfig) -> None:
        """Deleted ones, and one that exists again."""
        DeviceConfig.objects.put("02-00-00-00-00-01", '{"deviceName": "Hall"}').delete()
        DeviceConfig.objects.put("02-00-00-00-00-02", "{}").delete()
        DeviceConfig.objects.put("02-00-00-00-00-02", "{}")
        config.delete()

    @pytest.mark.both_databases
    def test_are_listed_the_last_first(self, signed_in: Client, two: None):
        assert '<a href="/admin/devices/deletedconfig/">Deleted</a>' in signed_in.get(CONFIGS).text

        page = signed_in.get("/admin/devices/deletedconfig/")

        assert [version.mac_address for version in page.context["cl"].result_list] == [MAC, "02-00-00-00-00-01"]
        assert f'<a href="{VERSIONS}">Lamp</a>' in page.text

    @pytest.mark.both_databases
    def test_are_listed_once_however_often_they_were_deleted(self, signed_in: Client, two: None):
        DeviceConfig.objects.put(MAC, "{}").delete()

        page = signed_in.get("/admin/devices/deletedconfig/")

        assert [version.mac_address for version in page.context["cl"].result_list] == [MAC, "02-00-00-00-00-01"]

    @pytest.mark.both_databases
    @pytest.mark.parametrize("term", ["hall", "02:00:00:00:00:01", "00-01"])
    def test_are_found(self, signed_in: Client, two: None, term: str):
        page = signed_in.get("/admin/devices/deletedconfig/", {"q": term})

        assert [version.device_name for version in page.context["cl"].result_list] == ["Hall"]

    @pytest.mark.both_databases
    def test_are_brought_back(self, signed_in: Client, two: None):
        [version] = DeviceConfig.history.deleted().of(MAC)

        page = signed_in.post("/admin/devices/deletedconfig/bring-back/", {"version": version.pk}, follow=True)

        assert "is back, as it was." in messages(page)[0]
        assert DeviceConfig.objects.get(mac_address=MAC).content == CONTENT
        assert DeviceConfig.history.latest().history_change_reason == "Restored from version 3"

    @pytest.mark.both_databases
    def test_are_brought_back_together(self, signed_in: Client, two: None):
        chosen = list(DeviceConfig.history.deleted().values_list("pk", flat=True))

        signed_in.post("/admin/devices/deletedconfig/", {"action": "bring_back", "_selected_action": chosen})

        assert DeviceConfig.objects.count() == 3
        assert not DeviceConfig.history.deleted().exists()

    @pytest.mark.both_databases
    def test_assets_are_listed_and_brought_back(self, signed_in: Client, asset: Asset):
        asset.delete()
        page = signed_in.get("/admin/assets/deletedasset/", {"q": "firmware"})
        [version] = page.context["cl"].result_list

        signed_in.post("/admin/assets/deletedasset/bring-back/", {"version": version.pk})

        assert Asset.objects.get().is_mirrored()

    @pytest.mark.parametrize("version", ["", "x", "1", "9" * 30, "a\0b"])
    def test_what_is_not_deleted_is_not_brought_back(self, signed_in: Client, config: DeviceConfig, version: str):
        with nothing_changed():
            page = signed_in.post("/admin/devices/deletedconfig/bring-back/", {"version": version}, follow=True)

        assert messages(page) == ["info: That exists again, or was never deleted: nothing was brought back."]

    def test_are_only_looked_at_by_those_who_may_not_add(self, two: None):
        guest = session_client(make_user("devices.view_deviceconfig", is_staff=True))
        [version] = DeviceConfig.history.deleted().of(MAC)
        fields = {"action": "bring_back", "_selected_action": version.pk}

        with nothing_changed():
            refused = guest.post("/admin/devices/deletedconfig/bring-back/", {"version": version.pk})
            guest.post("/admin/devices/deletedconfig/", fields)

        assert refused.status_code == 403
        page = guest.get("/admin/devices/deletedconfig/")
        assert page.status_code == 200
        assert "Bring back" not in page.text

    def test_one_leads_to_its_versions(self, signed_in: Client, two: None):
        [version] = DeviceConfig.history.deleted().of(MAC)

        assert signed_in.get(f"/admin/devices/deletedconfig/{version.pk}/change/")["Location"] == VERSIONS
