"""The first page: numbers that lead to what they count, pictures, what was done last, who came; and who sees what."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.boards.models import Board, HourlyCount
from iotsupport.tests.support.api_client import make_user, session_client
from notifications.messages import ASSETS_TOPIC
from notifications.models import Announcement

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]

CONFIGS = "/admin/devices/deviceconfig/"


def mac_address(number: int) -> str:
    return f"02-00-00-00-{number >> 8:02x}-{number & 255:02x}"


def make_board(number: int, state: str, minutes: float | None = 5, **values: Any) -> Board:
    """A board that was last seen so many minutes ago, or never; it has a configuration unless it waits."""
    if state != "waiting":
        DeviceConfig.objects.put(mac_address(number), f'{{"deviceName": "Lamp {number}"}}')
    seen = None if minutes is None else timezone.now() - timedelta(minutes=minutes)
    values |= {"state": state, "last_seen": seen}
    board, _ = Board.objects.update_or_create(mac_address=mac_address(number), defaults=values)
    return board


@pytest.fixture
def fleet() -> None:
    """Of each state another number."""
    longest = timezone.now() - timedelta(hours=3, minutes=1)
    states = ["current"] * 4 + ["behind"] * 3 + ["waiting"] * 2
    for number, state in enumerate(states):
        since = longest + timedelta(minutes=number - 4) if state == "behind" else None
        make_board(number, state, number + 1, behind_since=since)
    make_board(20, "never_fetched", None)
    for number in range(21, 26):
        make_board(number, "current", 60 * 24 + number)
    make_board(30, "current", 10_000)
    DeviceConfig.objects.filter(mac_address=mac_address(30)).delete()
    assert Board.objects.get(mac_address=mac_address(30)).state == "gone"
    Asset.objects.upload("fw.bin", [b"x"])


def page(client: Client) -> str:
    answer = client.get("/admin/")
    assert answer.status_code == 200
    return " ".join(answer.text.split())


def numbers(client: Client) -> dict[str, tuple[int, str]]:
    """Names to what is counted and where that leads to."""
    found = client.get("/admin/").context["numbers"]
    return {number.name: (number.value, number.url) for number in found}


def count_rows(client: Client, url: str) -> int:
    listed: Any = client.get(url)
    assert listed.status_code == 200
    return int(listed.context["cl"].result_count)


@pytest.mark.both_databases
def test_each_number_leads_to_exactly_what_it_counts(signed_in: Client, fleet: None):
    Announcement.objects.all().delete()
    now = timezone.now()
    Announcement.objects.create(topic=ASSETS_TOPIC, filename="fw.bin", owed_since=now - timedelta(hours=2))
    Announcement.objects.create(topic=ASSETS_TOPIC, filename="old.bin", announced_at=now)

    found = numbers(signed_in)

    assert {name: count for name, (count, _) in found.items()} == {
        "current": 9,
        "behind": 3,
        "never fetched": 1,
        "silent": 5,
        "waiting": 2,
        "asset": 1,
        "to be announced": 1,
    }
    assert {name: count_rows(signed_in, url) for name, (_, url) in found.items()} == {
        name: count for name, (count, _) in found.items()
    }


def test_says_what_the_numbers_mean(signed_in: Client, fleet: None, settings: Any):
    shown = page(signed_in)

    assert re.search(r"behind</span> <small>the oldest for <time [^>]+>3 hours</time>", shown)
    assert "not seen for 24 hours" in shown
    assert "notifications are off" in shown
    settings.SILENT_AFTER = 1
    assert "not seen for 1 hour<" in page(signed_in)


def test_nobody_is_silent_where_that_is_turned_off(signed_in: Client, fleet: None, settings: Any):
    settings.SILENT_AFTER = 0

    assert "silent" not in numbers(signed_in)
    assert "?seen=silent" not in signed_in.get(CONFIGS).text


def test_begins_with_nothing(signed_in: Client):
    assert {count for count, _ in numbers(signed_in).values()} == {0}
    assert "<time" not in page(signed_in)


@pytest.mark.parametrize(
    ("permission", "names"),
    [
        ("devices.view_deviceconfig", ["current", "behind", "never fetched", "silent", "waiting"]),
        ("assets.change_asset", ["asset"]),
        ("notifications.view_announcement", ["to be announced"]),
        ("auth.view_group", []),
    ],
)
def test_who_may_not_view_something_finds_nothing_of_it(fleet: None, permission: str, names: list[str]):
    guest = session_client(make_user(permission, is_staff=True))

    assert list(numbers(guest)) == names
    shown = page(guest)
    assert ("Lamp 1" in shown) == (mac_address(7) in shown) == (permission == "devices.view_deviceconfig")
    assert ("fw.bin" in shown) == (permission == "assets.change_asset")


@pytest.mark.both_databases
def test_who_may_view_all_sees_downloads_and_saves(signed_in: Client, fleet: None):
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    HourlyCount.objects.create(kind=HourlyCount.DOWNLOADS, hour=hour, count=1234)
    HourlyCount.objects.create(kind=HourlyCount.DOWNLOADS, hour=hour - timedelta(days=40), count=999_999)
    saves = DeviceConfig.history.count() + Asset.history.count()

    shown = page(signed_in)
    guest = page(session_client(make_user("devices.view_deviceconfig", is_staff=True)))

    for period in ["24 hours", "30 days"]:
        assert f'aria-label="1,234 downloads in the last {period}, at most 1,234 ' in shown
        assert f'aria-label="{saves} saves in the last {period}, at most {saves} ' in shown
        assert f'aria-label="{DeviceConfig.history.count()} saves in the last {period}' in guest
    assert "downloads in" not in guest
    assert shown.count("<rect ") == 4
    assert "style=" not in shown[shown.index("<svg") : shown.rindex("</figure>")]


@pytest.mark.both_databases
def test_saves_are_counted_in_the_hour_that_they_were_made_in(signed_in: Client, administrator: User):
    DeviceConfig.objects.put(mac_address(1), "{}", user=administrator)
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    DeviceConfig.history.update(history_date=hour - timedelta(hours=3) + timedelta(minutes=59, seconds=59))

    hours = signed_in.get("/admin/").context["pictures"][0].strips[1]

    assert hours.values == f"{(hour - timedelta(hours=3)).hour}:00 1"


@pytest.mark.both_databases
def test_the_last_ten_changes_of_all_kinds_say_who_did_what(signed_in: Client, administrator: User):
    for number in range(12):
        DeviceConfig.objects.put(mac_address(number), f'{{"deviceName": "Lamp {number}"}}', user=administrator)
    config = DeviceConfig.objects.get(mac_address=mac_address(11))
    config.updated_by = administrator
    config.save()
    config.delete()
    asset = Asset.objects.upload("fw.bin", [b"x"])
    signed_in.post("/admin/auth/group/add/", {"name": "Night shift"})

    changes: Any = signed_in.get("/admin/").context["changes"]

    assert [(change.name, change.what) for change in changes[:5]] == [
        ("Night shift", "added"),
        ("fw.bin", "added"),
        ("Lamp 11", "deleted"),
        ("Lamp 11", "changed"),
        ("Lamp 11", "added"),
    ]
    assert len(changes) == 10
    assert [change.by for change in changes[:2]] == ["admin", ""]
    assert changes[1].url == f"/admin/assets/asset/{asset.pk}/change/"
    assert changes[2].url == f"{CONFIGS}versions/{mac_address(11)}/"
    assert {signed_in.get(change.url).status_code for change in changes[:3]} == {200}


@pytest.mark.both_databases
def test_the_last_boards_that_came_lead_to_where_one_goes_on(signed_in: Client, fleet: None):
    Board.objects.filter(mac_address=mac_address(1)).update(runs_version="1.4.2")

    arrivals: Any = signed_in.get("/admin/").context["arrivals"]
    viewer: Any = session_client(make_user("devices.view_deviceconfig", is_staff=True)).get("/admin/")

    assert [arrival.name for arrival in arrivals] == [
        *[f"Lamp {number}" for number in range(7)],
        *[mac_address(number) for number in [7, 8]],
        "Lamp 21",
    ]
    assert arrivals[1].what == "holds what is saved, says it runs 1.4.2"
    assert arrivals[7].url == f"{CONFIGS}add/?mac_address={mac_address(7)}"
    assert f'value="{mac_address(7)}"' in signed_in.get(arrivals[7].url).text
    assert viewer.context["arrivals"][7].url == "/admin/devices/waitingboard/"


def test_costs_the_same_for_few_and_for_many(signed_in: Client, administrator: User):
    def queries() -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            signed_in.get("/admin/")
        return [query["sql"] for query in captured]

    def add(numbers: range) -> None:
        for number in numbers:
            state = ["current", "behind", "never_fetched", "waiting"][number % 4]
            make_board(number, state, None if state == "never_fetched" else number, behind_since=timezone.now())
            Asset.objects.upload(f"{number}.bin", [b"x"], user=administrator)
            Announcement.objects.create(topic=ASSETS_TOPIC, filename=f"{number}.bin", owed_since=timezone.now())
        hour = timezone.now().replace(minute=0, second=0, microsecond=0)
        HourlyCount.objects.bulk_create(
            HourlyCount(kind=HourlyCount.DOWNLOADS, hour=hour - timedelta(hours=number), count=number)
            for number in numbers
        )

    queries()  # asks for what a process keeps from then on, such as the types of content
    add(range(4))
    few = queries()
    add(range(4, 60))
    many = queries()

    assert len(many) == len(few)
    assert sum("GROUP BY" in query and "iotsupport_board" in query for query in many) == 1


def test_lists_what_there_is_in_the_order_of_use(signed_in: Client):
    def names(client: Client, url: str = "/admin/") -> list[tuple[str, list[str]]]:
        apps = client.get(url).context["available_apps"]
        return [(app["name"], [str(model["name"]) for model in app["models"]]) for app in apps]

    assert (
        names(signed_in)
        == names(signed_in, CONFIGS)
        == [
            ("Devices", ["Device configurations", "Changes", "Device types", "Waiting boards"]),
            ("Assets", ["Assets"]),
            ("Notifications", ["Announcements"]),
            ("Users and access", ["Users", "Groups", "API tokens"]),
            ("This server", ["State"]),
        ]
    )
    guest = session_client(make_user("iotsupport.add_apitoken", is_staff=True))
    assert names(guest) == [("Users and access", ["API tokens"])]
    assert signed_in.get("/admin/auth/").status_code == signed_in.get("/admin/iotsupport/").status_code == 200


def test_shows_when_something_happened_also_where_the_clock_was_set_back(signed_in: Client):
    make_board(1, "behind", -60 * 24, behind_since=timezone.now() + timedelta(days=1))

    shown = page(signed_in)

    assert re.search(r"the oldest for <time [^>]+>less than a minute</time>", shown)
    assert re.search(r"<time [^>]+>tomorrow \d+:\d\d</time>", shown)
    assert isinstance(signed_in.get("/admin/").context["arrivals"][0].moment, datetime)
