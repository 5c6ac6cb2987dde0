"""What the first page of the admin shows above Django's index: how things stand, and what was done last.

Each app adds what it knows when it is ready. Whoever looks sees and has counted only what they may view.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

from django.contrib import admin
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models.functions import Cast, Substr
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from iotsupport.boards.models import HourlyCount
from iotsupport.editing.history import DELETED
from iotsupport.editing.versions import VersionsAdmin
from iotsupport.pictures import Count, Picture, draw, first_hour

MOST_CHANGES = 10

DONE = {"+": "added", "~": "changed", "-": "deleted"}
LOGGED = {ADDITION: "added", CHANGE: "changed", DELETION: "deleted"}


class Number(NamedTuple):
    """A number that leads to the list of what it counts."""

    value: int
    name: str
    url: str
    remark: str = ""
    """What it means, in a few words; may be HTML."""
    tone: str = "quiet"
    """One of ``good``, ``behind``, ``bad``, ``quiet``."""

    @property
    def shown_value(self) -> str:
        return f"{self.value:,}"


class Arrival(NamedTuple):
    """A board that asked for something."""

    name: str
    url: str
    what: str
    moment: datetime


class Change(NamedTuple):
    """A version that somebody saved, or a deletion."""

    name: str
    url: str
    what: str
    by: str
    moment: datetime


class _Parts:
    """What the apps have to show: functions of the request."""

    def __init__(self) -> None:
        self.numbers: list[Callable[[HttpRequest], Iterable[Number]]] = []
        self.arrivals: list[Callable[[HttpRequest], Iterable[Arrival]]] = []


parts = _Parts()


def context(request: HttpRequest) -> dict[str, Any]:
    """What the template of the first page needs."""
    with_versions, others = _viewable(request)
    return {
        "pictures": _pictures(with_versions),
        "numbers": [number for find in parts.numbers for number in find(request)],
        "arrivals": [arrival for find in parts.arrivals for arrival in find(request)],
        "changes": latest_changes(with_versions, others),
    }


def _viewable(request: HttpRequest) -> tuple[list[Any], list[Any]]:
    """What one may view: that whose versions are kept, and all else."""
    with_versions: list[Any] = []
    others: list[Any] = []
    for model_admin in admin.site._registry.values():
        if model_admin.has_view_or_change_permission(request):
            (with_versions if isinstance(model_admin, VersionsAdmin) else others).append(model_admin)
    return with_versions, others


def _pictures(with_versions: list[Any]) -> list[Picture]:
    """What was downloaded, by boards, and saved, by people: of all that one may view."""
    if not with_versions:
        return []
    now = timezone.now()
    since = first_hour(now)
    counts = [count for model_admin in with_versions for count in _saves(model_admin.model, since)]
    kinds = ["saves"]
    everything = [each for each in admin.site._registry.values() if isinstance(each, VersionsAdmin)]
    if len(with_versions) == len(everything):  # downloads are counted together
        kinds.insert(0, "downloads")
        downloads = HourlyCount.objects.since(HourlyCount.DOWNLOADS, since)
        counts += [Count("downloads", hour, count) for hour, count in downloads.items()]
    return draw(counts, kinds, now)


def _saves(model: Any, since: datetime) -> list[Count]:
    """How often rows of a model were saved, or deleted, in each hour, from its versions."""
    # As text, which both databases have in UTC: an index alone answers, and no row of it is made a time in Python.
    hour = Substr(Cast("history_date", models.CharField()), 1, len("2026-11-27 14"))
    versions = model.history.filter(history_date__gte=since).order_by()
    counts = versions.annotate(hour=hour).values("hour").annotate(saves=models.Count("pk")).values_list("hour", "saves")
    return [Count("saves", datetime.strptime(f"{text}+0000", "%Y-%m-%d %H%z"), count) for text, count in counts]


def latest_changes(with_versions: list[Any], others: list[Any]) -> list[Change]:
    """The last changes of all that may be viewed, the newest first."""
    by_source = [*map(_versions, with_versions), _logged(others)]
    # Of each as they were saved: the clock may have been set back meanwhile.
    return list(islice(heapq.merge(*by_source, key=attrgetter("moment"), reverse=True), MOST_CHANGES))


def _versions(model_admin: Any) -> list[Change]:
    """Of rows whose versions are kept."""
    model = model_admin.model
    versions = model.history.select_related("history_user").defer(*model_admin.large_fields)
    return [
        Change(
            name=model_admin.name_of(version),
            url=model_admin.versions_url(version)
            if version.history_type == DELETED
            else reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[version.id]),
            what=DONE[version.history_type],
            by=str(version.history_user or ""),
            moment=version.history_date,
        )
        for version in versions.order_by("-history_id")[:MOST_CHANGES]
    ]


def _logged(model_admins: list[Any]) -> list[Change]:
    """Of all others, what was done in the admin."""
    types = ContentType.objects.get_for_models(*(model_admin.model for model_admin in model_admins))
    entries = LogEntry.objects.filter(content_type__in=types.values()).select_related("user", "content_type")
    return [
        Change(
            name=entry.object_repr,
            url="" if entry.is_deletion() else entry.get_admin_url() or "",
            what=LOGGED.get(entry.action_flag, ""),
            by=str(entry.user),
            moment=entry.action_time,
        )
        for entry in entries.order_by("-pk")[:MOST_CHANGES]
    ]
