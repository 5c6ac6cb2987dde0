"""Times as people say them, with the whole one at hand: "4 minutes ago", "yesterday 9:12", "3 November".

For the pages of people alone, who read them in ``SHOWN_TIME_ZONE``. What programs read stays in UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.template.defaultfilters import date
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from iotsupport.pages import BROWSER_PREFIX

# So far apart two clocks may be before it is said.
NOW = timedelta(minutes=1)

UNITS = [
    ("year", timedelta(days=365)),
    ("month", timedelta(days=30)),
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
]


def shown_zone() -> ZoneInfo:
    return ZoneInfo(settings.SHOWN_TIME_ZONE)


class ShownTimeZoneMiddleware:
    """Has the pages of people show and take times in ``SHOWN_TIME_ZONE``."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(BROWSER_PREFIX):
            return self.get_response(request)
        with timezone.override(shown_zone()):
            return self.get_response(request)


def tell(moment: datetime, now: datetime | None = None) -> str:
    """Say when something was: "just now", "4 minutes ago", "today 14:02", "yesterday 9:12", "3 November".

    Or when it will be: "in 4 minutes", "tomorrow 9:12". What the clock had noted before it was set back is told so.
    """
    now = now or timezone.now()
    if abs(now - moment) < NOW:
        return "just now"
    if abs(now - moment) < timedelta(hours=1):
        length = how_long(now - moment)
        return f"{length} ago" if moment < now else f"in {length}"
    return tell_date(moment, now)


def tell_date(moment: datetime, now: datetime | None = None) -> str:
    """Say when something was without counting from now: "today 14:02", "yesterday 9:12", "3 November"."""
    local, today = (timezone.localtime(each, shown_zone()) for each in [moment, now or timezone.now()])
    days = (local.date() - today.date()).days
    if days in NEAR_DAYS:
        return f"{NEAR_DAYS[days]} {date(local, 'G:i')}"
    return date(local, "j F" if local.year == today.year else "j F Y")


NEAR_DAYS = {-1: "yesterday", 0: "today", 1: "tomorrow"}


def how_long(length: timedelta) -> str:
    """Say how long something took in its largest unit: "3 hours"; or "less than a minute"."""
    length = abs(length)
    if length < UNITS[-1][1]:
        return "less than a minute"
    name, unit = next(each for each in UNITS if length >= each[1])
    count = length // unit
    return f"{count} {name}{'' if count == 1 else 's'}"


def show_whole(moment: datetime) -> str:
    """As in "2026-11-03 14:02:09 CET"."""
    return date(timezone.localtime(moment, shown_zone()), "Y-m-d H:i:s T")


def show(moment: datetime, words: str) -> SafeString:
    """These words, as HTML that has the whole time for who points at them, and for programs."""
    utc = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return format_html('<time datetime="{}" title="{}">{}</time>', utc, show_whole(moment), words)


def told(moment: datetime) -> SafeString:
    """As HTML: "4 minutes ago", "today 14:02"."""
    return show(moment, tell(moment))


def since(moment: datetime) -> SafeString:
    """As HTML, for what began then and still is: "for 4 minutes", "since today 14:02", "since 3 November"."""
    length = timezone.now() - moment
    is_short = timedelta() <= length < timedelta(hours=1)
    return show(moment, f"for {how_long(length)}" if is_short else f"since {tell_date(moment)}")


def lasting(moment: datetime) -> SafeString:
    """As HTML, for what began then: "3 hours". Where the clock was set back meanwhile, less than a minute."""
    return show(moment, how_long(max(timezone.now() - moment, timedelta())))
