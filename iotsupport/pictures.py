"""What happened in each hour and on each day, as pictures that the server draws: SVG without scripts or styles.

A picture has a strip of bars for each kind of thing that happened. Its colours are the style sheet's, and what it shows
can be read, too: by who does not see it in ``summary`` and ``values``, by who points at a bar in its title.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import NamedTuple, TypeVar

from django.template.defaultfilters import date as write
from django.utils import timezone

from iotsupport import times

T = TypeVar("T", date, datetime)

HOURS, DAYS = 24, 30

# In units of the drawing, which is stretched to the width that there is.
BAR_WIDTH, HEIGHT = 10, 60
GAP = 1
# Of a bar that stands for anything at all.
LEAST_HEIGHT = 1.5


class Bar(NamedTuple):
    """A rectangle, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    title: str


class Strip(NamedTuple):
    kind: str
    """Such as "downloads"; the style sheet has a colour for it."""
    total: int
    summary: str
    values: str
    bars: list[Bar]
    width: int

    @property
    def height(self) -> int:
        return HEIGHT

    @property
    def shown_total(self) -> str:
        return f"{self.total:,}"


class Picture(NamedTuple):
    title: str
    strips: list[Strip]
    scale: list[str]
    """What stands below its left end, its middle, and its right end."""


class Count(NamedTuple):
    """How often something of a kind happened in the hour that begins then."""

    kind: str
    hour: datetime
    times: int


def first_hour(now: datetime) -> datetime:
    """The beginning of what the pictures show."""
    today = timezone.localtime(now, times.shown_zone()).replace(hour=0, minute=0, second=0, microsecond=0)
    return min(today - timedelta(days=DAYS - 1), _hour(now) - timedelta(hours=HOURS - 1))


def draw(counts: Iterable[Count], kinds: list[str], now: datetime) -> list[Picture]:
    """The pictures of the last 24 hours and of the last 30 days, each of which ends with the one that is not over."""
    zone = times.shown_zone()
    hours = [_hour(now) - timedelta(hours=HOURS - 1 - number) for number in range(HOURS)]
    today = timezone.localtime(now, zone).date()
    days = [today - timedelta(days=DAYS - 1 - number) for number in range(DAYS)]
    by_hour: dict[str, Counter[datetime]] = {kind: Counter() for kind in kinds}
    by_day: dict[str, Counter[date]] = {kind: Counter() for kind in kinds}
    for kind, hour, count in counts:
        by_hour[kind][hour] += count
        by_day[kind][timezone.localtime(hour, zone).date()] += count
    hour_names = {hour: write(timezone.localtime(hour, zone), "G:i") for hour in hours}
    day_names = {day: "today" if day == today else write(day, "j F") for day in days}
    return [
        _picture("Last 24 hours", "at {}", by_hour, hour_names, ends="now"),
        _picture("Last 30 days", "on {}", by_day, day_names, ends="today"),
    ]


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _picture(title: str, place: str, counts: Mapping[str, Counter[T]], names: Mapping[T, str], ends: str) -> Picture:
    strips = [_strip(kind, f"in the {title.lower()}", place, counted, names) for kind, counted in counts.items()]
    labels = list(names.values())
    return Picture(title, strips, [labels[0], labels[len(labels) // 2], ends])


def _strip(kind: str, period: str, place: str, counted: Counter[T], names: Mapping[T, str]) -> Strip:
    values = [counted[part] for part in names]
    most, labels = max(values), list(names.values())
    summary = f"{sum(values):,} {kind} {period}"
    if most:
        summary += f", at most {most:,} {_place(place, labels[values.index(most)])}"
    bars = []
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        if value:
            height = max(LEAST_HEIGHT, HEIGHT * value / most)
            title = f"{label}: {value:,} {kind}"
            bars.append(Bar(number * BAR_WIDTH, round(HEIGHT - height, 1), BAR_WIDTH - GAP, round(height, 1), title))
    told = "; ".join(f"{label} {value:,}" for label, value in zip(labels, values, strict=True) if value)
    return Strip(kind, sum(values), summary, told, bars, BAR_WIDTH * len(values))


def _place(place: str, label: str) -> str:
    return label if label == "today" else place.format(label)
