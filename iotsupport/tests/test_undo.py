"""The message after a deletion has a button that takes it back."""

from __future__ import annotations

import errno
import os
from typing import Any
from unittest import mock

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import DataError, OperationalError, connection
from django.test import Client

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.editing import undo
from iotsupport.mirror.files import MirrorStorage, StagedFile, mirror_storage
from iotsupport.tests.support.api_client import counted, make_user, nothing_changed, session_client
from iotsupport.tests.support.page_walk import Page
from iotsupport.tests.support.saved_twice import ASSETS, CONFIGS, CONTENT, MAC, save_config_twice

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")


@pytest.fixture
def config() -> DeviceConfig:
    return save_config_twice()


@pytest.fixture
def three(config: DeviceConfig) -> list[DeviceConfig]:
    others = [DeviceConfig.objects.put(f"02-00-00-00-00-0{number}", f'{{"n": {number}}}') for number in [1, 2]]
    return [config, *others]


def delete(client: Client, url: str, row: Any, query: str = "") -> Any:
    """The page that comes after the confirmation."""
    return client.post(f"{url}{row.pk}/delete/{query}", {"post": "yes"}, follow=True)


def delete_selected(client: Client, rows: list[DeviceConfig]) -> Any:
    data = {"action": "delete_selected", "_selected_action": [row.pk for row in rows], "post": "yes"}
    return client.post(CONFIGS, data, follow=True)


def undo_button(page: Any) -> tuple[str, dict[str, str]] | None:
    """Where the button of a page sends its form, and what."""
    forms = Page(page.content.decode()).forms
    found = [(form, button) for form in forms for button in form.buttons if "/undo/" in button[2]]
    if not found:
        return None
    [(form, (name, value, url))] = found
    assert form.method == "post"
    return url, {**{key: values[0] for key, values in form.values.items()}, name: value}


def press_undo(client: Client, page: Any) -> Any:
    button = undo_button(page)
    assert button is not None
    return client.post(*button, follow=True)


def messages(page: Any) -> list[str]:
    return [f"{message.level_tag}: {message}" for message in page.context["messages"]]


def test_brings_back_the_last_version(signed_in: Client, administrator: User, config: DeviceConfig):
    deleted = delete(signed_in, CONFIGS, config)
    assert mirror_storage("configs").names() == []

    with counted("iot_config_operations_total", operation="save", status="success"):
        page = press_undo(signed_in, deleted)

    row = DeviceConfig.objects.get()
    link = f'“<a href="{CONFIGS}{row.pk}/change/">{MAC} (Lamp)</a>”'
    assert messages(page) == [f"success: The device configuration {link} is back, as it was."]
    assert (row.pk, row.content, row.device_name, row.updated_by) == (config.pk, CONTENT, "Lamp", administrator)
    assert row.is_mirrored()
    assert [version.history_type for version in row.history.order_by("history_id")] == ["+", "~", "-", "+"]
    assert row.history.latest().history_user == administrator
    assert LogEntry.objects.first().get_change_message() == "Its deletion was undone."  # type: ignore[union-attr]


@pytest.mark.both_databases
def test_brings_back_an_asset(signed_in: Client, administrator: User):
    Asset.objects.upload("firmware.bin", [b"before"])
    asset = Asset.objects.upload("firmware.bin", [b"last"])
    deleted = delete(signed_in, ASSETS, asset)

    press_undo(signed_in, deleted)

    row = Asset.objects.get()
    assert (row.pk, row.filename, row.size, row.uploaded_by) == (asset.pk, "firmware.bin", 4, administrator)
    assert row.is_mirrored()


@pytest.mark.both_databases
def test_brings_back_all_that_were_selected(signed_in: Client, three: list[DeviceConfig]):
    before = list(DeviceConfig.objects.values_list("pk", "content"))
    deleted = delete_selected(signed_in, three)
    assert not DeviceConfig.objects.exists()

    page = press_undo(signed_in, deleted)

    assert messages(page) == ["success: 3 device configurations are back, as they were."]
    assert list(DeviceConfig.objects.values_list("pk", "content")) == before
    assert len(mirror_storage("configs").names()) == 3


def test_goes_back_to_the_list_as_it_was(signed_in: Client, config: DeviceConfig):
    deleted = delete(signed_in, CONFIGS, config, "?_changelist_filters=q%3DLamp")

    page = press_undo(signed_in, deleted)

    assert page.redirect_chain == [(f"{CONFIGS}?q=Lamp", 302)]


def test_is_offered_for_so_many_at_once_as_one_may_wait_for(
    signed_in: Client, three: list[DeviceConfig], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(undo, "MOST_ROWS", 2)

    deleted = delete_selected(signed_in, three)

    assert messages(deleted) == ["success: Successfully deleted 3 device configurations."]
    assert undo_button(deleted) is None


def test_is_offered_once(signed_in: Client, config: DeviceConfig):
    delete(signed_in, CONFIGS, config)

    assert undo_button(signed_in.get(CONFIGS)) is None


@pytest.mark.parametrize("actions", [["view", "delete"], ["view", "change", "delete"]], ids=" ".join)
def test_needs_the_permission_to_add(config: DeviceConfig, actions: list[str]):
    permissions = [f"devices.{action}_deviceconfig" for action in actions]
    client = session_client(make_user(*permissions, username="maria", is_staff=True))
    deleted = delete(client, CONFIGS, config)

    with nothing_changed():
        response = client.post(f"{CONFIGS}undo/", {"rows": config.pk})

    assert undo_button(deleted) is None
    assert response.status_code == 403


def test_needs_no_other_permission(config: DeviceConfig):
    permissions = ["devices.add_deviceconfig", "devices.delete_deviceconfig"]
    client = session_client(make_user(*permissions, username="maria", is_staff=True))

    page = press_undo(client, delete(client, CONFIGS, config))

    assert page.redirect_chain == [("/admin/", 302)]
    assert messages(page) == [f"success: The device configuration “{MAC} (Lamp)” is back, as it was."]
    assert DeviceConfig.objects.exists()


def test_is_no_link(administrator: User, config: DeviceConfig):
    forged, client = session_client(administrator, with_csrf=False), session_client(administrator)
    rows = {"rows": config.pk}
    config.delete()

    with nothing_changed():
        answers = [client.get(f"{CONFIGS}undo/", rows), forged.post(f"{CONFIGS}undo/", rows)]

    assert [answer.status_code for answer in answers] == [405, 403]


@pytest.mark.both_databases
def test_leaves_what_exists_again(signed_in: Client, config: DeviceConfig):
    deleted = delete(signed_in, CONFIGS, config)
    DeviceConfig.objects.put(MAC, '{"successor": true}')

    with nothing_changed(), counted("iot_config_operations_total", operation="save", status="error"):
        page = press_undo(signed_in, deleted)

    history = f"{CONFIGS}versions/{MAC}/"
    [message] = messages(page)
    assert message.startswith(f"error: The device configuration “{MAC} (Lamp)” exists again, and was left as it is.")
    assert message.endswith(f'Its <a href="{history}">history</a> has what was deleted.')
    assert "successor" in signed_in.get(history).content.decode()


@pytest.mark.both_databases
def test_a_double_click_brings_it_back_once(signed_in: Client, config: DeviceConfig):
    deleted = delete(signed_in, CONFIGS, config)
    press_undo(signed_in, deleted)

    with nothing_changed():
        page = press_undo(signed_in, deleted)

    assert "exists again, and was left as it is." in messages(page)[0]


def test_brings_back_the_others(signed_in: Client, three: list[DeviceConfig]):
    deleted = delete_selected(signed_in, three)
    DeviceConfig.objects.put(MAC, '{"successor": true}')

    page = press_undo(signed_in, deleted)

    assert f"error: The device configuration “{MAC} (Lamp)” exists again" in messages(page)[0]
    assert messages(page)[1] == "success: 2 device configurations are back, as they were."
    assert DeviceConfig.objects.get(mac_address=MAC).content == '{"successor": true}'
    assert DeviceConfig.objects.count() == 3


def test_says_that_the_disk_is_full(signed_in: Client, three: list[DeviceConfig]):
    deleted = delete_selected(signed_in, three)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with nothing_changed(), mock.patch.object(StagedFile, "sync", autospec=True, side_effect=full):
        page = press_undo(signed_in, deleted)

    [message] = messages(page)
    assert message.startswith("error: Nothing was brought back. No room is left on the disk of the configs directory.")


def test_warns_where_the_file_does_not_follow(signed_in: Client, config: DeviceConfig):
    deleted = delete(signed_in, CONFIGS, config)
    broken = OSError(errno.EIO, os.strerror(errno.EIO))

    with mock.patch.object(MirrorStorage, "replace", autospec=True, side_effect=broken):
        page = press_undo(signed_in, deleted)

    assert messages(page)[0].startswith(f"warning: The change is saved, but the file of {MAC}.json is not up to date")
    assert DeviceConfig.objects.exists()


def test_says_that_a_limit_was_lowered(signed_in: Client, config: DeviceConfig, settings: Any):
    deleted = delete(signed_in, CONFIGS, config)
    settings.CONFIG_MAX_BYTES = 10

    with nothing_changed():
        page = press_undo(signed_in, deleted)

    [message] = messages(page)
    assert message.startswith(f"error: The device configuration “{MAC} (Lamp)” was not brought back.")
    assert "10 are allowed" in message


def test_says_that_no_version_is_left(signed_in: Client, config: DeviceConfig):
    deleted = delete(signed_in, CONFIGS, config)
    DeviceConfig.history.all().delete()

    with nothing_changed():
        page = press_undo(signed_in, deleted)

    assert messages(page) == ["error: No version of this device configuration is left to bring back."]


@pytest.mark.both_databases
def test_says_that_somebody_added_it_in_this_moment(signed_in: Client, config: DeviceConfig):
    deleted = delete(signed_in, CONFIGS, config)

    def be_faster(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith('INSERT INTO "devices_deviceconfig"'):
            execute(sql, *rest)
        return execute(sql, *rest)

    with nothing_changed(), connection.execute_wrapper(be_faster):
        page = press_undo(signed_in, deleted)

    assert f"error: The device configuration “{MAC} (Lamp)” exists again" in messages(page)[0]


@pytest.mark.parametrize(
    ("error", "sentence", "is_mistake"),
    [
        (OperationalError("away"), "The database could not store it (away).", False),
        (DataError("too long"), "The database could not store it (too long).", True),
    ],
)
def test_says_that_the_database_refuses(
    signed_in: Client, config: DeviceConfig, caplog: Any, error: Exception, sentence: str, is_mistake: bool
):
    deleted = delete(signed_in, CONFIGS, config)

    def refuse(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith('INSERT INTO "devices_deviceconfig"'):
            raise error
        return execute(sql, *rest)

    with nothing_changed(), connection.execute_wrapper(refuse):
        page = press_undo(signed_in, deleted)

    assert messages(page) == [f"error: Nothing was brought back. {sentence} Try again; the server's log says more."]
    assert ("The database refused to bring back what was deleted" in caplog.messages) is is_mistake


@pytest.mark.parametrize("rows", ["", "x", "1;2", "-1", "9" * 30, "²"])
def test_nonsense_brings_nothing_back(signed_in: Client, config: DeviceConfig, rows: str):
    with nothing_changed():
        response = signed_in.post(f"{CONFIGS}undo/", {"rows": rows})

    assert response.status_code == 302
