"""Why somebody changes or deletes something in the admin is kept with the version."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.editing import deleting
from iotsupport.tests.support.api_client import make_user, nothing_changed, session_client, token_client
from iotsupport.tests.support.images import make_image
from iotsupport.tests.support.page_walk import Page
from iotsupport.tests.support.saved_twice import ASSETS, CONFIGS, MAC, save_config_twice

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

REASON = "quicker while we test"


@pytest.fixture
def config() -> DeviceConfig:
    return save_config_twice()


def last_reason(model: Any) -> str | None:
    reason: str | None = model.history.latest().history_change_reason
    return reason


def file(content: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile("kitchen.bin", content)


def test_of_a_change_is_kept(signed_in: Client, config: DeviceConfig):
    signed_in.post(f"{CONFIGS}{config.pk}/change/", {"content": "{}", "reason": f" {REASON} "})

    assert last_reason(DeviceConfig) == REASON
    assert "Reason" not in str(signed_in.get("/admin/").content)


def test_may_be_left_out(signed_in: Client, config: DeviceConfig):
    signed_in.post(f"{CONFIGS}{config.pk}/change/", {"content": "{}"})

    assert last_reason(DeviceConfig) is None


@pytest.mark.parametrize("typed, said", [("x" * 501, "has 501 characters; 500 are allowed"), ("a\nb", "U+000A")])
def test_that_no_list_can_show_is_refused_and_kept(signed_in: Client, config: DeviceConfig, typed: str, said: str):
    with nothing_changed():
        page = signed_in.post(f"{CONFIGS}{config.pk}/change/", {"content": '{"typed": 1}', "reason": typed})

    assert said in page.text
    assert "&quot;typed&quot;" in page.text
    assert f'value="{typed}"' in page.text


def test_of_an_upload_is_kept_also_where_it_is_asked_about(signed_in: Client):
    signed_in.post(f"{ASSETS}add/", {"file": file(make_image()), "reason": "first"})
    asset = Asset.objects.get()
    assert last_reason(Asset) == "first"

    asked = signed_in.post(f"{ASSETS}{asset.pk}/change/", {"file": file(b"no image"), "reason": REASON})
    [form] = [form for form in Page(asked.text).forms if "pending" in form.values]
    signed_in.post(f"{ASSETS}{asset.pk}/change/", form.values)

    assert last_reason(Asset) == REASON


def test_of_a_choice_is_kept(signed_in: Client):
    asset = Asset.objects.upload("kitchen.bin", [b"x"])

    signed_in.post(f"{ASSETS}{asset.pk}/change/", {"unchanged_where_running": "on", "reason": REASON})

    assert last_reason(Asset) == REASON


def test_of_a_deletion_is_kept(signed_in: Client, config: DeviceConfig):
    signed_in.post(f"{CONFIGS}{config.pk}/delete/", {"post": "yes", "reason": REASON})

    assert last_reason(DeviceConfig) == REASON
    assert not DeviceConfig.objects.exists()


def test_of_a_deletion_is_refused_where_it_is_too_long(signed_in: Client, config: DeviceConfig):
    with nothing_changed():
        page = signed_in.post(f"{CONFIGS}{config.pk}/delete/", {"post": "yes", "reason": "x" * 501})

    assert "The reason has 501 characters; 500 are allowed. Shorten it." in page.text
    assert f'value="{"x" * 501}"' in page.text


def test_of_deleting_many_is_kept_with_each_also_in_parts(
    signed_in: Client, config: DeviceConfig, monkeypatch: pytest.MonkeyPatch
):
    for number in range(3):
        DeviceConfig.objects.put(f"02-00-00-00-00-0{number}", "{}")
    for name, value in {"STEP_ROWS": 1, "PART_SECONDS": 0, "REQUEST_SECONDS": 0, "PAUSE_SECONDS": 0}.items():
        monkeypatch.setattr(deleting, name, value)
    monkeypatch.setattr(deleting, "MOST_ROWS", 1)
    pks = list(DeviceConfig.objects.values_list("pk", flat=True))
    page = signed_in.post(CONFIGS, {"action": "delete_selected", "_selected_action": pks})
    assert 'name="reason"' in page.text

    fields: dict[str, Any] = {"reason": [REASON]}
    while DeviceConfig.objects.exists():
        [form] = [form for form in Page(page.text).forms if "rows" in form.values]
        page = signed_in.post(CONFIGS, {**form.values, **fields}, follow=True)
        fields = {}

    reasons = set(DeviceConfig.history.filter(history_type="-").values_list("history_change_reason", flat=True))
    assert reasons == {REASON}


def test_of_deleting_many_is_refused_where_it_is_too_long(signed_in: Client, config: DeviceConfig):
    fields = {"action": "delete_selected", "_selected_action": config.pk, "post": "yes", "reason": "x" * 501}

    with nothing_changed():
        page = signed_in.post(CONFIGS, fields)

    assert "The reason has 501 characters; 500 are allowed. Shorten it." in page.text


def test_is_not_asked_of_who_may_only_look(config: DeviceConfig):
    guest = session_client(make_user("devices.view_deviceconfig", is_staff=True))

    assert 'name="reason"' not in guest.get(f"{CONFIGS}{config.pk}/change/").text


def test_comes_with_an_upload_by_the_api():
    script = token_client(make_user("assets.add_asset", "assets.delete_asset"))

    script.post("/assets", {"file": file(b"x")}, headers={"X-Change-Reason": "first"})
    assert last_reason(Asset) == "first"
    script.delete("/assets/kitchen.bin", headers={"X-Change-Reason": REASON})

    assert last_reason(Asset) == REASON


def test_of_the_change_before_is_not_kept_with_the_next(signed_in: Client, config: DeviceConfig):
    signed_in.post(f"{CONFIGS}{config.pk}/change/", {"content": "{}", "reason": REASON})
    DeviceConfig.objects.put(MAC, '{"n": 2}')

    assert last_reason(DeviceConfig) is None
