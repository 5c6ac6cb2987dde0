"""The clock was ahead, and is set back: what is ordered as it was saved stays so."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.utils import timezone

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.models import KNOWN_NETWORKS, ApiToken, KnownNetwork
from iotsupport.tests.support.api_client import make_user

pytestmark = [
    pytest.mark.usefixtures("transactional_db", "directories"),
    pytest.mark.both_databases,
]

MAC = "aa-bb-cc-dd-ee-ff"
CONFIGS = "/admin/devices/deviceconfig/"


class Clock:
    ahead = timedelta()

    def __init__(self) -> None:
        self._now = timezone.now

    def now(self) -> datetime:
        return self._now() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A year ahead, until it is set back."""
    clock = Clock()
    clock.ahead = timedelta(days=365)
    monkeypatch.setattr(timezone, "now", clock.now)
    return clock


@pytest.fixture
def config(clock: Clock) -> DeviceConfig:
    """Saved twice while the clock was ahead, and twice since."""
    for number in range(4):
        if number == 2:
            clock.ahead = timedelta()
        config = DeviceConfig.objects.put(MAC, f'{{"deviceName": "Lamp {number}"}}')
    return config


def names(records: Any) -> list[str]:
    return [record.device_name for record in records]


class TestVersions:
    def test_come_the_last_saved_one_first(self, config: DeviceConfig):
        newest_first = ["Lamp 3", "Lamp 2", "Lamp 1", "Lamp 0"]

        assert names(config.history.all()) == newest_first
        assert names(DeviceConfig.history.filter(id=config.pk)) == newest_first
        assert (config.history.latest().device_name, config.history.earliest().device_name) == ("Lamp 3", "Lamp 0")
        assert config.history.most_recent().device_name == "Lamp 3"

    def test_know_their_neighbours(self, config: DeviceConfig):
        third, second = config.history.all()[1:3]

        assert [third.next_record.device_name, third.prev_record.device_name] == ["Lamp 3", "Lamp 1"]
        assert [second.next_record.device_name, second.prev_record.device_name] == ["Lamp 2", "Lamp 0"]
        assert config.history.latest().next_record is config.history.earliest().prev_record is None

    def test_are_shown_with_what_each_changed(self, signed_in: Client, config: DeviceConfig):
        page: Any = signed_in.get(f"{CONFIGS}{config.pk}/history/", follow=True)

        assert [told.number for told in page.context["listed"]] == [4, 3, 2, 1]
        rows = page.context["comparison"]["rows"]
        assert [[piece.text for piece in row.old + row.new if piece.is_marked] for row in rows] == [["2", "3"]]

    def test_of_what_was_deleted_end_with_the_last(self, signed_in: Client, config: DeviceConfig):
        pk = config.pk
        config.delete()

        page: Any = signed_in.get(f"{CONFIGS}{pk}/history/", follow=True)

        assert str(page.context["object"]) == f"{MAC} (Lamp 3)"
        assert [told.version.history_type for told in page.context["listed"]] == ["-", "~", "~", "~", "+"]

    def test_of_an_asset_too(self, clock: Clock):
        Asset.objects.upload("fw.bin", [b"before"])
        clock.ahead = timedelta()
        asset = Asset.objects.upload("fw.bin", [b"the newest"])

        assert [version.size for version in asset.history.all()] == [10, 6]


class TestActions:
    @pytest.fixture
    def group(self, administrator: User, clock: Clock) -> Group:
        """Made while the clock was ahead, and changed since."""
        group = Group.objects.create(name="Trainees")
        for flag, name in [(ADDITION, "made"), (CHANGE, "changed")]:
            LogEntry.objects.create(
                user=administrator,
                content_type=ContentType.objects.get_for_model(Group),
                object_id=str(group.pk),
                object_repr=name,
                action_flag=flag,
            )
            clock.ahead = timedelta()
        return group

    def test_are_shown_the_last_first_on_the_front_page(self, group: Group, signed_in: Client):
        page = signed_in.get("/admin/").content.decode()

        assert re.findall(r"/auth/group/\d+/change/\">(\w+)<", page) == ["changed", "made"]

    def test_are_shown_as_they_were_done_on_the_page_of_one_thing(self, group: Group, signed_in: Client):
        page: Any = signed_in.get(f"/admin/auth/group/{group.pk}/history/")

        assert [entry.object_repr for entry in page.context["action_list"]] == ["made", "changed"]


def test_tokens_are_listed_the_last_made_first(signed_in: Client, administrator: User, clock: Clock):
    for description in ["first", "second"]:
        token = ApiToken(user=administrator, description=description)
        token.generate()
        token.save()
        clock.ahead = timedelta()

    assert [token.description for token in ApiToken.objects.all()] == ["second", "first"]


def test_the_network_that_was_used_last_stays_known(clock: Clock):
    maria = make_user(username="maria")
    KnownNetwork.objects.note(maria, "192.0.2.200")
    for number in range(KNOWN_NETWORKS):
        KnownNetwork.objects.note(maria, f"192.0.2.{number}")
    clock.ahead = timedelta()

    KnownNetwork.objects.note(maria, "192.0.2.100")

    assert KnownNetwork.objects.knows("maria", "192.0.2.100")
    assert KnownNetwork.objects.filter(user=maria).count() == KNOWN_NETWORKS
