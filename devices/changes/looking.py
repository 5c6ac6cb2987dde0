"""What the page of a change shows: its items in one state, some at a time, each with what it makes of a text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.paginator import Page, Paginator
from django.utils import timezone

from devices.changes.kinds import changed_meanwhile, judge
from devices.changes.models import Change, ChangeItem, ItemState, Kind, State
from devices.models import DeviceConfig, DeviceType
from devices.writing import KEEP
from iotsupport.editing.differences import Row, difference
from iotsupport.times import how_long

# Each with its difference.
PAGE_ITEMS = 20

TONES = {
    ItemState.PLANNED: "good",
    ItemState.CHANGED: "good",
    ItemState.REFUSED: "bad",
    ItemState.FAILED: "bad",
    ItemState.SKIPPED: "behind",
    ItemState.UNCHANGED: "quiet",
}
# What one looks at first where nothing else was asked for.
FIRST = [ItemState.PLANNED, ItemState.CHANGED, ItemState.FAILED, ItemState.REFUSED, ItemState.SKIPPED]
WITH_DIFFERENCE = {ItemState.PLANNED, ItemState.CHANGED}


@dataclass
class Shown:
    """One configuration on the page."""

    mac_address: str
    name: str = ""
    pk: int | None = None
    """Of the configuration, where there is one."""
    reason: str = ""
    rows: list[Row] = field(default_factory=list)


def names_of(change: Change, state: str) -> str:
    """What the items in a state are called: "would change", or "were left out"."""
    if state == ItemState.PLANNED and change.applied_at:
        return "left to do"
    if state == ItemState.PLANNED and change.kind == Kind.ANNOUNCE:
        return "would be announced"
    if state == ItemState.CHANGED and change.kind == Kind.ANNOUNCE:
        return "announced"
    if state == ItemState.REFUSED and change.applied_at:
        return "left out"
    return str(ItemState(state).label)


def page_of(change: Change, state: str, number: Any, tally: Counter[str]) -> Page[ChangeItem]:
    pages = Paginator(change.items.filter(state=state).order_by("mac_address"), PAGE_ITEMS)
    pages.count = tally[state]  # which is known: 50,000 are counted once
    return pages.get_page(number)


def shown(change: Change, items: list[ChangeItem], user: User) -> list[Shown]:
    """Items as the page shows them: those that change, or did, with the difference."""
    addresses = [item.mac_address for item in items]
    configs = DeviceConfig.objects.filter(mac_address__in=addresses).values_list("mac_address", "pk", "device_name")
    known = {address: (pk, name) for address, pk, name in configs}
    found = {}
    for item in items:
        pk, name = known.get(item.mac_address, (None, ""))
        found[item.mac_address] = Shown(item.mac_address, name or "", pk, item.reason)
    if change.kind != Kind.ANNOUNCE:
        _compare_planned(change, [item for item in items if item.state == ItemState.PLANNED], found, user)
        _compare_written([item for item in items if item.state == ItemState.CHANGED], found)
    return list(found.values())


def _compare_planned(change: Change, items: list[ChangeItem], found: dict[str, Shown], user: User) -> None:
    planned = {item.mac_address: item for item in items}
    for judged in judge(change, {item.mac_address: item.given for item in items}, user):
        each = found[judged.mac_address]
        item = planned[judged.mac_address]
        if not judged.is_as(item.before, item.before_type):
            each.reason = f"{changed_meanwhile(judged.config)} It will be left alone."
        elif judged.state != ItemState.PLANNED or judged.proposal is None:
            each.reason = judged.reason
        else:
            content, type_ = judged.proposal
            each.rows = difference(judged.config.content if judged.config else "", content)
            if type_ is not KEEP:
                each.reason = _about_types(judged.config.type if judged.config else None, type_)


def _compare_written(items: list[ChangeItem], found: dict[str, Shown]) -> None:
    types = DeviceType.objects.in_bulk()
    versions = DeviceConfig.history.in_bulk([item.version for item in items if item.version is not None])
    for item in items:
        written = versions.get(item.version)
        if written is not None:
            earlier = written.prev_record if written.history_type == "~" else None
            found[item.mac_address].rows = difference(earlier.content if earlier else "", written.content)
            if earlier and earlier.type_id != written.type_id:
                found[item.mac_address].reason = _about_types(types.get(earlier.type_id), types.get(written.type_id))


def _about_types(old: DeviceType | None, new: DeviceType | None) -> str:
    return f"Type: {old.name if old else 'none'} → {new.name if new else 'none'}"


@dataclass(frozen=True)
class Progress:
    """How far the server is."""

    done: int
    total: int
    sentence: str

    @classmethod
    def of(cls, change: Change, tally: Counter[str]) -> Progress | None:
        """None where nothing is under way."""
        if change.state == State.PLANNING:
            done = tally.total()
            return cls(done, change.count, f"{done:,} of {change.count:,} planned")
        if change.state != State.APPLYING or change.applied_at is None:
            return None
        done = sum(tally[state] for state in [ItemState.CHANGED, ItemState.SKIPPED, ItemState.FAILED])
        total = done + tally[ItemState.PLANNED]
        sentence = f"{tally[ItemState.CHANGED]:,} of {total:,} {names_of(change, ItemState.CHANGED)}"
        if done:
            left = (timezone.now() - change.applied_at) * (total - done) / done
            about = "" if left < timedelta(minutes=1) else "about "
            sentence += f", {about}{how_long(left)} to go"
        return cls(done, total, sentence)
