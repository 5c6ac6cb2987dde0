"""“Delete selected” goes in parts, so that others save in between; what is left can be done again."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.db import DataError, OperationalError, connection
from django.test import Client
from playwright.sync_api import Route

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.editing import deleting
from iotsupport.editing.deleting import Keys
from iotsupport.mirror.files import mirror_storage
from iotsupport.models import ApiToken
from iotsupport.tests.support.api_client import counted, make_user, session_client
from iotsupport.tests.support.browser import chromium
from iotsupport.tests.support.page_walk import Page
from notifications.models import Announcement

pytestmark = pytest.mark.usefixtures("transactional_db")

CONFIGS, ASSETS, USERS = "/admin/devices/deviceconfig/", "/admin/assets/asset/", "/admin/auth/user/"
ROWS = 150


@pytest.fixture
def configs() -> list[DeviceConfig]:
    """Each with its file, as a restored database has them: without the saves, of which each takes its time."""
    rows = [DeviceConfig(mac_address=f"02-00-00-00-00-{number:02x}", content="{}") for number in range(ROWS)]
    rows = DeviceConfig.objects.bulk_create(rows)
    for row in rows:
        (mirror_storage(row.storage_alias).directory / row.filename).write_text("{}")
    return rows


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction takes 40 rows, and a request one transaction."""
    monkeypatch.setattr(deleting, "STEP_ROWS", 40)
    monkeypatch.setattr(deleting, "PART_SECONDS", 1e-9)
    monkeypatch.setattr(deleting, "REQUEST_SECONDS", 1e-9)
    monkeypatch.setattr(deleting, "PAUSE_SECONDS", 0.0)


def select_all(client: Client, url: str = CONFIGS, query: str = "", **fields: Any) -> Any:
    data = {"action": "delete_selected", "_selected_action": "0", "select_across": "1", **fields}
    return client.post(f"{url}{query}", data)


def send(client: Client, page: Any, url: str = CONFIGS) -> Any:
    """Press the button of the page that asks, or says how far it is."""
    [form] = [form for form in Page(page.content.decode()).forms if "rows" in form.values]
    assert form.method == "post"
    return client.post(url, {name: values[0] for name, values in form.values.items()})


def text(page: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.content.decode()))


def messages(client: Client, url: str = CONFIGS) -> list[str]:
    page: Any = client.get(url)
    return [f"{message.level_tag}: {message}" for message in page.context["messages"]]


def test_the_question_names_a_few_and_counts_the_rest(signed_in: Client, configs: list[DeviceConfig]):
    page = select_all(signed_in)

    assert "delete 150 device configurations?" in text(page)
    assert re.findall("02-00-00-00-00-..", text(page)) == [row.mac_address for row in configs[:20]]
    assert "and 130 more" in text(page)
    assert len(page.content) < 20_000
    assert DeviceConfig.objects.count() == ROWS


def test_the_question_shows_all_where_they_are_few(signed_in: Client, configs: list[DeviceConfig]):
    page = select_all(signed_in, query="?q=02-00-00-00-00-0")

    assert len(re.findall("02-00-00-00-00-0.", text(page))) == 16
    assert "more" not in text(page)


@pytest.mark.both_databases
def test_goes_in_parts_and_says_how_far_it_is(
    signed_in: Client, administrator: User, configs: list[DeviceConfig], small_parts: None
):
    Announcement.objects.record_again("iotsupport/updates/configs", [configs[0].filename])
    page, shown = select_all(signed_in), []
    with counted("iot_config_operations_total", times=ROWS, operation="delete", status="success"):
        while page.status_code == 200:
            page = send(signed_in, page)
            if page.status_code == 200:
                shown.append(re.search(r"Deleted: \d+\. Left: \d+", text(page))[0])  # type: ignore[index]
                assert "iotsupport/going_on.js" in page.content.decode()

    assert shown == ["Deleted: 40. Left: 110", "Deleted: 80. Left: 70", "Deleted: 120. Left: 30"]
    assert messages(signed_in) == ["success: Successfully deleted 150 device configurations."]
    assert not DeviceConfig.objects.exists() and not Announcement.objects.exists()
    assert mirror_storage("configs").names() == []
    versions = DeviceConfig.history.filter(history_type="-", history_user=administrator)
    assert versions.count() == LogEntry.objects.filter(action_flag=DELETION, user=administrator).count() == ROWS


def test_lets_others_change_things_in_between(signed_in: Client, configs: list[DeviceConfig], small_parts: None):
    page = send(signed_in, select_all(signed_in))
    added = DeviceConfig.objects.put("02-ff-00-00-00-01", "{}")
    DeviceConfig.objects.get(pk=configs[-1].pk).delete()

    while page.status_code == 200:
        page = send(signed_in, page)

    # What was added meanwhile was not chosen; what somebody else deleted was not deleted here.
    assert list(DeviceConfig.objects.all()) == [added]
    assert messages(signed_in) == ["success: Successfully deleted 149 device configurations."]


def test_a_transaction_takes_a_step_after_another_until_it_has_taken_its_time(
    signed_in: Client, configs: list[DeviceConfig], small_parts: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deleting, "PART_SECONDS", 60.0)

    page = send(signed_in, select_all(signed_in))

    assert page.status_code == 302
    assert not DeviceConfig.objects.exists()


def test_waits_between_transactions_until_others_have_looked(
    signed_in: Client, configs: list[DeviceConfig], small_parts: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deleting, "REQUEST_SECONDS", 60.0)
    monkeypatch.setattr(deleting, "PAUSE_SECONDS", 100.0)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)

    send(signed_in, select_all(signed_in))

    assert waits.count(100.0) == (3 if connection.vendor == "sqlite" else 0)


def test_what_is_left_can_be_done_again_after_a_failure(
    signed_in: Client, configs: list[DeviceConfig], small_parts: None
):
    page = send(signed_in, select_all(signed_in))
    with mock.patch.object(deleting.Deletion, "_delete", side_effect=OperationalError("database is locked")):
        page = send(signed_in, page)

    assert "The rest was not deleted." in text(page) and "Deleted: 40. Left: 110" in text(page)
    assert "going_on.js" not in page.content.decode()
    while page.status_code == 200:
        page = send(signed_in, page)
    assert not DeviceConfig.objects.exists()


def test_a_mistake_of_ours_is_told_and_logged(
    signed_in: Client, configs: list[DeviceConfig], small_parts: None, caplog: pytest.LogCaptureFixture
):
    page = send(signed_in, select_all(signed_in))
    with mock.patch.object(deleting.Deletion, "_delete", side_effect=DataError("too long")):
        page = send(signed_in, page)

    assert "The rest was not deleted. The database could not do it (too long)." in text(page)
    assert "The database refused a deletion" in caplog.messages


def test_a_part_that_fails_is_deleted_not_at_all(signed_in: Client, configs: list[DeviceConfig], small_parts: None):
    page = send(signed_in, select_all(signed_in))
    with mock.patch.object(os, "access", return_value=False):
        page = send(signed_in, page)

    assert "The configurations directory cannot be written" in text(page) or "directory cannot" in text(page)
    assert DeviceConfig.objects.count() == 110 == len(mirror_storage("configs").names())


def test_a_moderate_number_can_be_brought_back_together(
    signed_in: Client, configs: list[DeviceConfig], small_parts: None
):
    page = select_all(signed_in, query="?q=02-00-00-00-00-2")
    assert "delete 16 device" in text(page)

    send(signed_in, page)

    assert any("Undo" in message for message in messages(signed_in))
    send(signed_in, select_all(signed_in))
    assert not any("Undo" in message for message in messages(signed_in))


def test_whoever_may_not_delete_deletes_nothing(configs: list[DeviceConfig]):
    trainee = session_client(make_user("devices.view_deviceconfig", "devices.change_deviceconfig", is_staff=True))

    select_all(trainee, post="yes", rows=f"{configs[0].pk}-{configs[-1].pk}")

    assert DeviceConfig.objects.count() == ROWS


@pytest.mark.both_databases
def test_takes_only_what_the_list_of_this_user_has(administrator: User):
    maria = make_user("iotsupport.view_apitoken", "iotsupport.delete_apitoken", username="maria", is_staff=True)
    tokens = []
    for user in [administrator, maria]:
        token = ApiToken(user=user)
        token.generate()
        token.save()
        tokens.append(token)

    url = "/admin/iotsupport/apitoken/"
    select_all(session_client(maria), url, post="yes", rows=f"{tokens[0].pk}-{tokens[1].pk}")

    assert list(ApiToken.objects.all()) == tokens[:1]


@pytest.mark.both_databases
def test_users_and_what_belongs_to_them_go_in_parts_too(signed_in: Client, administrator: User, small_parts: None):
    users = User.objects.bulk_create(User(username=f"user-{number:03}") for number in range(120))
    ApiToken.objects.bulk_create(ApiToken(user=user, digest=f"{user.pk:064}", hint="-") for user in users)

    page = select_all(signed_in, USERS, "?q=user-")
    assert "What belongs to them is deleted, too: API tokens." in text(page)
    page = send(signed_in, page, USERS)
    assert "Deleted: 40. Left: 80 users" in text(page)
    while page.status_code == 200:
        page = send(signed_in, page, USERS)

    assert list(User.objects.all()) == [administrator]
    assert not ApiToken.objects.exists()


def test_stops_at_what_may_not_be_deleted(administrator: User, small_parts: None):
    maria = make_user("auth.view_user", "auth.delete_user", username="maria", is_staff=True)
    users = User.objects.bulk_create(User(username=f"user-{number:03}") for number in range(150))
    ApiToken.objects.create(user=users[120], digest="0" * 64, hint="-")
    client = session_client(maria)

    page = select_all(client, USERS, "?q=user-")
    for _ in range(4):
        page = send(client, page, USERS)

    assert "The rest was not deleted. You may not delete API tokens." in text(page)
    assert "Deleted: 120. Left: 30 users." in text(page)
    assert User.objects.filter(username__startswith="user-").count() == 30


@pytest.mark.processes
def test_a_browser_goes_on_by_itself_until_somebody_presses_enter(
    signed_in: Client, configs: list[DeviceConfig], small_parts: None
):
    deleting = send(signed_in, select_all(signed_in)).content.decode()
    script = Path(str(finders.find("iotsupport/going_on.js"))).read_text()
    sent: list[str] = []

    def answer(route: Route) -> None:
        if route.request.method == "POST":
            sent.append(parse_qs(route.request.post_data)["rows"][0])
            if len(sent) == 1:  # the next takes its time
                route.fulfill(body=deleting, content_type="text/html")
        elif "going_on" in route.request.url:
            route.fulfill(body=script, content_type="text/javascript")
        else:
            route.fulfill(body="<h1>The list</h1>" if sent else deleting, content_type="text/html")

    with chromium() as browser:
        page = browser.new_page()
        page.route("**/*", answer)
        with page.expect_request(lambda request: request.method == "POST" and sent != []):
            page.goto(f"http://iot.example.com{CONFIGS}", wait_until="commit")
        page.keyboard.press("Enter")
        page.wait_for_selector("h1:text('The list')")

    assert sent == [f"{configs[40].pk}-{configs[-1].pk}"] * 2


def test_assets_go_with_their_files(signed_in: Client):
    for number in range(3):
        Asset.objects.upload(f"{number}.bin", [b"x"])

    send(signed_in, select_all(signed_in, ASSETS), ASSETS)

    assert not Asset.objects.exists() and mirror_storage("assets").names() == []


@pytest.mark.parametrize(
    ("keys", "written"),
    [([], ""), ([7], "7"), ([1, 2, 3], "1-3"), ([1, 2, 4, 6, 7], "1-2 4 6-7")],
)
def test_keys_are_written_in_one_field(keys, written):
    joined = Keys.join(keys)

    assert str(joined) == written
    assert joined.count == len(keys)
    assert Keys.parse(written).take(100) == keys


def test_keys_are_taken_from_the_left():
    keys = Keys.parse("1-3 5 7-20")
    copy = keys.copy()

    assert keys.take(5) == [1, 2, 3, 5, 7]
    assert str(keys) == "8-20"
    assert str(copy) == "1-3 5 7-20"


@pytest.mark.parametrize("text", ["x", "1-", "-1", "9-1", "1--2", "1" * 19, "²", "1\0"])
def test_what_is_no_key_counts_for_nothing(text):
    assert Keys.parse(f"5 {text} 8").take(100) == [5, 8]


def test_a_made_up_range_costs_no_memory(signed_in: Client, configs: list[DeviceConfig], small_parts: None):
    page = select_all(signed_in, post="yes", rows="900000000000000000-999999999999999999")

    assert page.status_code == 200
    assert DeviceConfig.objects.count() == ROWS
