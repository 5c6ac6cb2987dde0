"""The pictures of the first page: hours and days as they are where one looks, and words for who does not see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from iotsupport.pictures import BAR_WIDTH, DAYS, HEIGHT, HOURS, Count, draw, first_hour

NOW = datetime(2026, 11, 27, 14, 30, tzinfo=UTC)
HOUR = NOW.replace(minute=0)


def test_each_hour_and_each_day_has_its_place():
    counts = [
        Count("downloads", HOUR, 5),
        Count("downloads", HOUR - timedelta(hours=23), 10),
        Count("downloads", HOUR - timedelta(hours=24), 100),  # today no more
        Count("saves", HOUR - timedelta(days=29), 1),
    ]

    hours, days = draw(counts, ["downloads", "saves"], NOW)

    downloads, saves = hours.strips
    assert [(bar.x, bar.y, bar.height, bar.title) for bar in downloads.bars] == [
        (0, 0, HEIGHT, "15:00: 10 downloads"),
        ((HOURS - 1) * BAR_WIDTH, HEIGHT / 2, HEIGHT / 2, "14:00: 5 downloads"),
    ]
    assert saves.bars == []
    assert (hours.title, hours.scale) == ("Last 24 hours", ["15:00", "3:00", "now"])
    assert [bar.title for bar in days.strips[0].bars] == ["26 November: 110 downloads", "today: 5 downloads"]
    assert [(bar.x, bar.title) for bar in days.strips[1].bars] == [(0, "29 October: 1 saves")]
    assert (days.title, days.scale) == ("Last 30 days", ["29 October", "13 November", "today"])
    assert [strip.width for strip in days.strips] == [DAYS * BAR_WIDTH] * 2


def test_words_say_what_the_bars_show():
    counts = [Count("downloads", HOUR - timedelta(hours=1), 9000), Count("downloads", HOUR, 214)]

    hours, days = (picture.strips[0] for picture in draw(counts, ["downloads"], NOW))

    assert hours.summary == "9,214 downloads in the last 24 hours, at most 9,000 at 13:00"
    assert hours.values == "13:00 9,000; 14:00 214"
    assert (days.summary, days.shown_total) == ("9,214 downloads in the last 30 days, at most 9,214 today", "9,214")


def test_nothing_happened():
    for picture in draw([], ["downloads", "saves"], NOW):
        assert [(strip.bars, strip.values, strip.total) for strip in picture.strips] == [([], "", 0)] * 2
    assert picture.strips[0].summary == "0 downloads in the last 30 days"


def test_what_happened_once_is_seen_beside_a_thousand():
    strip = draw([Count("saves", HOUR, 10_000), Count("saves", HOUR - timedelta(hours=1), 1)], ["saves"], NOW)[
        0
    ].strips[0]

    assert strip.bars[0].height >= 1
    assert all(bar.y + bar.height == HEIGHT for bar in strip.bars)


def test_days_are_those_of_the_zone_also_where_one_has_25_hours(settings: Any):
    settings.SHOWN_TIME_ZONE = "Europe/Amsterdam"
    now = datetime(2026, 10, 26, 12, tzinfo=UTC)  # the clock was set back the day before
    counts = [
        Count("saves", datetime(2026, 10, 24, 22, tzinfo=UTC), 1),  # 0:00 on the 25th
        Count("saves", datetime(2026, 10, 25, 22, tzinfo=UTC), 2),  # 23:00 on the 25th
        Count("saves", datetime(2026, 10, 25, 23, tzinfo=UTC), 4),  # 0:00 on the 26th
    ]

    days = draw(counts, ["saves"], now)[1]

    assert [bar.title for bar in days.strips[0].bars] == ["25 October: 3 saves", "today: 4 saves"]


def test_as_much_is_asked_for_as_is_shown(settings: Any):
    for zone in ["UTC", "Pacific/Kiritimati", "Asia/Kolkata", "America/New_York"]:
        settings.SHOWN_TIME_ZONE = zone
        since = first_hour(NOW)

        shown = draw([Count("saves", since + timedelta(hours=hour), 1) for hour in range(-30, 0)], ["saves"], NOW)

        # What was before would be left of the first day; that hour is its first one, or begins in it.
        assert [strip.total for picture in shown for strip in picture.strips] in ([0, 0],)
        assert draw([Count("saves", since + timedelta(minutes=59), 1)], ["saves"], NOW)[1].strips[0].total == 1


def test_what_a_clock_noted_ahead_is_left_out():
    assert draw([Count("saves", HOUR + timedelta(days=400), 7)], ["saves"], NOW)[1].strips[0].total == 0
