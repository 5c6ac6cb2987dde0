"""Each version keeps by which way it came about."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from devices.models import DeviceConfig
from iotsupport.editing.origins import Origin, Way, changing, current
from iotsupport.models import ApiToken

MAC = "aa-bb-cc-dd-ee-ff"
ADD = "/admin/devices/deviceconfig/add/"

pytestmark = pytest.mark.usefixtures("transactional_db")


def versions() -> list[tuple[str, str, str | None, str | None]]:
    found = DeviceConfig.history.order_by("history_id")
    return [
        (str(version.history_user), version.history_way, version.history_token, version.history_change_reason)
        for version in found
    ]


def test_in_the_admin(admin_client: Client):
    admin_client.post(ADD, {"mac_address": MAC, "content": "{}"})

    assert versions() == [("admin", Way.ADMIN, None, None)]


def test_by_an_api_token(admin_user):
    token = ApiToken(user=admin_user, description="nightly build")
    secret = token.generate()
    token.save()
    headers = {"authorization": f"Bearer {secret}"}

    Client().put(f"/configs/{MAC}.json", "{}", content_type="application/json", headers=headers)
    Client().delete(f"/configs/{MAC}", headers=headers)

    assert versions() == [("admin", Way.API, "nightly build", None)] * 2


def test_by_the_api_in_a_session(admin_client: Client):
    admin_client.put(f"/configs/{MAC}.json", "{}", content_type="application/json")

    assert versions() == [("admin", Way.API, None, None)]


def test_by_a_command(tmp_path: Path):
    (tmp_path / f"{MAC}.json").write_text("{}")

    call_command("import_configs", str(tmp_path))

    assert versions() == [("None", Way.COMMAND, None, None)]


def test_what_is_begun_for_a_block_ends_with_it(admin_user):
    with changing(Origin(Way.BULK, admin_user, reason="Move to the new broker")):
        DeviceConfig.objects.put(MAC, "{}")

    assert versions() == [("admin", Way.BULK, None, "Move to the new broker")]
    assert current().way == Way.COMMAND


def test_a_request_leaves_nothing_to_what_its_thread_does_next(admin_client: Client):
    admin_client.post(ADD, {"mac_address": MAC, "content": "{}"})
    DeviceConfig.objects.put("aa-bb-cc-dd-ee-00", "{}")

    assert versions()[1] == ("None", Way.COMMAND, None, None)
