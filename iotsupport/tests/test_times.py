"""Times on the pages of people: as people say them, with the whole one at hand, in their own zone."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.template import Context, Template
from django.test import Client
from django.utils import timezone

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.models import ApiToken
from iotsupport.monitoring.logs import LineFormatter
from iotsupport.tests.support.api_client import make_token, make_user, session_client
from iotsupport.times import how_long, lasting, since, tell, tell_date, told

NOW = datetime(2026, 11, 27, 14, 30, tzinfo=UTC)
CONFIGS = "/admin/devices/deviceconfig/"
LATEST = re.compile(r'<time datetime="([^"]+)" title="([^"]+)">([^<]+)</time>')


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (timedelta(seconds=20), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(minutes=4, seconds=59), "4 minutes ago"),
        (timedelta(minutes=59, seconds=59), "59 minutes ago"),
        (timedelta(hours=1), "today 13:30"),
        (timedelta(hours=14, minutes=30), "today 0:00"),
        (timedelta(hours=14, minutes=31), "yesterday 23:59"),
        (timedelta(hours=38), "yesterday 0:30"),
        (timedelta(days=2), "25 November"),
        (timedelta(days=330), "1 January"),
        (timedelta(days=331), "31 December 2025"),
    ],
)
def test_says_when_it_was(ago: timedelta, words: str):
    assert tell(NOW - ago, NOW) == words


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (timedelta(seconds=59), "just now"),  # another machine's clock
        (timedelta(minutes=4), "in 4 minutes"),
        (timedelta(hours=2), "today 16:30"),
        (timedelta(hours=10), "tomorrow 0:30"),
        (timedelta(days=3), "30 November"),
        (timedelta(days=365), "27 November 2027"),
    ],
)
def test_says_when_it_will_be_or_when_a_clock_was_ahead(ahead: timedelta, words: str):
    assert tell(NOW + ahead, NOW) == words


def test_a_minute_ago_is_a_minute_ago_across_midnight():
    assert tell(datetime(2026, 12, 31, 23, 58, tzinfo=UTC), datetime(2027, 1, 1, 0, 1, tzinfo=UTC)) == "3 minutes ago"


def test_days_are_those_of_the_zone(settings: Any):
    settings.SHOWN_TIME_ZONE = "America/New_York"

    assert tell_date(NOW - timedelta(hours=10), NOW) == "yesterday 23:30"
    assert tell_date(datetime(2026, 11, 1, 5, 30, tzinfo=UTC), NOW) == "1 November"


def test_a_day_with_a_clock_change_is_one_day(settings: Any):
    settings.SHOWN_TIME_ZONE = "Europe/Amsterdam"
    now = datetime(2026, 10, 25, 22, 30, tzinfo=UTC)  # 23:30, of a day with 25 hours

    assert tell_date(datetime(2026, 10, 24, 22, 10, tzinfo=UTC), now) == "today 0:10"
    assert tell_date(datetime(2026, 10, 24, 21, 50, tzinfo=UTC), now) == "yesterday 23:50"


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(seconds=59), "less than a minute"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(hours=3, minutes=59), "3 hours"),
        (timedelta(days=2), "2 days"),
        (timedelta(days=65), "2 months"),
        (timedelta(days=800), "2 years"),
    ],
)
def test_says_how_long_it_took(length: timedelta, words: str):
    assert how_long(length) == words


def test_says_since_when_something_is_so():
    now = timezone.now()

    assert "for 4 minutes<" in since(now - timedelta(minutes=4, seconds=1))
    assert "for less than a minute<" in since(now)
    assert re.search(">since (today|yesterday) ", since(now - timedelta(hours=2)))
    assert ">3 hours<" in lasting(now - timedelta(hours=3, minutes=1))
    # The clock was set back.
    assert re.search(">since (today|tomorrow) ", since(now + timedelta(hours=2)))
    assert ">less than a minute<" in lasting(now + timedelta(hours=2))


def test_the_whole_time_is_at_hand(settings: Any):
    settings.SHOWN_TIME_ZONE = "Europe/Amsterdam"

    [found] = LATEST.findall(told(NOW - timedelta(days=400)))

    assert found == ("2025-10-23T14:30:00Z", "2025-10-23 16:30:00 CEST", "23 October 2025")


def test_a_template_says_nothing_of_no_time():
    template = Template("{% load times %}[{{ moment|told }}{{ moment|since }}{{ moment|lasting }}]")

    assert template.render(Context({"moment": None})) == "[]"
    assert template.render(Context({"moment": NOW})).count("<time ") == 3


class TestPages:
    pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]

    @pytest.fixture(autouse=True)
    def amsterdam(self, settings: Any) -> None:
        settings.SHOWN_TIME_ZONE = "Europe/Amsterdam"

    def test_lists_forms_and_histories_say_times_so(self, signed_in: Client, administrator: User):
        config = DeviceConfig.objects.put("aa-bb-cc-dd-ee-ff", "{}", user=administrator)
        asset = Asset.objects.upload("fw.bin", [b"x"], user=administrator)
        make_token(administrator)
        token = ApiToken.objects.get()
        signed_in.post("/admin/auth/group/add/", {"name": "Night shift"})

        for path in [
            CONFIGS,
            f"{CONFIGS}{config.pk}/change/",
            f"{CONFIGS}versions/{config.mac_address}/",
            "/admin/assets/asset/",
            f"/admin/assets/asset/{asset.pk}/change/",
            f"/admin/iotsupport/apitoken/{token.pk}/change/",
            "/admin/auth/group/1/history/",
        ]:
            times = LATEST.findall(signed_in.get(path).text)
            assert {words for _, _, words in times} == {"just now"}, path
            assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d CES?T", whole) for _, whole, _ in times)

    def test_so_for_those_who_may_only_look(self):
        config = DeviceConfig.objects.put("aa-bb-cc-dd-ee-ff", "{}")
        guest = session_client(make_user("devices.view_deviceconfig", "auth.view_user", is_staff=True))

        for path in [f"{CONFIGS}{config.pk}/change/", f"/admin/auth/user/{User.objects.get().pk}/change/"]:
            assert ">just now</time>" in guest.get(path).text

    def test_a_list_is_sorted_by_a_time_as_before(self, signed_in: Client):
        for number in range(3):
            DeviceConfig.objects.put(f"02-00-00-00-00-0{number}", "{}")
            DeviceConfig.objects.filter(mac_address__endswith=str(number)).update(
                updated_at=NOW - timedelta(days=(number + 1) % 3)
            )
        columns = signed_in.get(CONFIGS).context["cl"].list_display
        at = [getattr(column, "__name__", column) for column in columns].index("changed")

        listed: Any = signed_in.get(CONFIGS, {"o": f"-{at}"}).context["cl"].result_list

        assert [row.mac_address[-1] for row in listed] == ["2", "0", "1"]

    def test_who_edits_a_time_sees_it_in_the_zone_and_types_it_so(self, signed_in: Client):
        user = make_user(username="maria")
        User.objects.filter(pk=user.pk).update(date_joined=NOW)

        page = signed_in.get(f"/admin/auth/user/{user.pk}/change/").text

        assert 'name="date_joined_1" value="15:30:00"' in page

    def test_programs_and_the_log_stay_in_utc(self, signed_in: Client, administrator: User):
        Asset.objects.upload("fw.bin", [b"x"])
        [asset] = session_client(administrator).get("/api/assets").json()

        assert asset["uploaded_at"].endswith(("Z", "+00:00"))
        assert timezone.get_current_timezone_name() == "UTC"
        record = logging.makeLogRecord({"created": NOW.timestamp(), "levelno": logging.INFO, "msg": "saved"})
        assert "14:30:00" in LineFormatter("%(asctime)s %(message)s").format(record)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "Europe", "\0", "/etc/localtime"])
def test_a_zone_that_is_none_is_utc_and_is_told(zone: str, monkeypatch: pytest.MonkeyPatch):
    from iotsupport.environment import Environment

    env = Environment()
    monkeypatch.setattr(env, "ENVIRON", {"TIME_ZONE": zone})

    assert env.time_zone("TIME_ZONE", "UTC") == "UTC"
    assert "it must be a time zone that this machine knows, such as Europe/Amsterdam" in env.problems["TIME_ZONE"]
