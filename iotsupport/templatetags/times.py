"""Filters for what shows a time: nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django import template

from iotsupport import times

register = template.Library()


def _or_nothing(say: Callable[[datetime], str]) -> Callable[[datetime | None], str]:
    return lambda moment: say(moment) if moment else ""


for _say in [times.told, times.since, times.lasting]:
    register.filter(_say.__name__, _or_nothing(_say))
