"""Applies a change that was planned: a step writes some configurations, and notes what became of each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import connection, transaction

from devices.changes.kinds import Judged, changed_meanwhile, judge, may_work
from devices.changes.models import TOGETHER, Change, ChangeItem, ItemState, Kind, State
from devices.models import DeviceConfig
from devices.writing import KEEP, Outcome, Write, Written, write_many
from iotsupport.editing.origins import Origin, Way, changing
from iotsupport.signals import announcing_again

# How long a step may take: whoever saves something meanwhile waits for no more than one.
STEP_SECONDS = 0.1
LEAST = 10

STATES = {
    Outcome.CREATED: ItemState.CHANGED,
    Outcome.CHANGED: ItemState.CHANGED,
    Outcome.BEHIND: ItemState.CHANGED,
    Outcome.UNCHANGED: ItemState.UNCHANGED,
    Outcome.SKIPPED: ItemState.SKIPPED,
    Outcome.REFUSED: ItemState.FAILED,
}


@dataclass(slots=True)
class Result:
    """What became of one item."""

    state: ItemState
    reason: str = ""
    version: int | None = None


class Applying:
    """Applies one change that is claimed, in steps that are as large as the time allows."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._size = LEAST

    def step(self) -> None:
        """Write the next, or say that all are written. Raises :class:`Lost`, and ``MirrorError`` as a save does."""
        change = self._change
        user = change.applied_by and User.objects.filter(pk=change.applied_by.pk).first()
        if user is None or not may_work(user, change):
            change.leave(State.STOPPED, f"{user or 'Who began it'} may not change configurations any more.")
            return
        items = list(change.items.filter(state=ItemState.PLANNED).order_by("mac_address")[: self._size])
        if not items:
            change.leave(State.APPLIED)
            return
        began = time.monotonic()
        with changing(Origin(Way.BULK, user, change.token, change.reason, f"change {change.pk}")):
            self._write(items, user)
        seconds = time.monotonic() - began
        self._size = min(TOGETHER, max(LEAST, int(len(items) * STEP_SECONDS / seconds)))

    def _write(self, items: list[ChangeItem], user: User) -> None:
        change, by_address = self._change, {item.mac_address: item for item in items}
        results: dict[str, Result] = {}
        ready: list[Judged] = []
        given = {item.mac_address: item.given for item in items}
        for judged in judge(change, given, user, checks=False):
            item = by_address[judged.mac_address]
            if not judged.is_as(item.before, item.before_type):
                results[judged.mac_address] = Result(ItemState.SKIPPED, changed_meanwhile(judged.config))
            elif judged.state == ItemState.PLANNED:
                ready.append(judged)
            else:
                is_refused = judged.state == ItemState.REFUSED
                results[judged.mac_address] = Result(ItemState.FAILED if is_refused else judged.state, judged.reason)

        def note(written: Iterable[Written]) -> None:
            change.keep()
            results.update({each.mac_address: _result_of(each) for each in written})
            _save((by_address[mac_address], result) for mac_address, result in results.items())

        if change.kind == Kind.ANNOUNCE or not ready:
            with transaction.atomic():
                results.update(self._announce(ready))
                note([])
            return
        written = write_many([_write_of(judged) for judged in ready], note)
        behind = [each for each in written if each.outcome is Outcome.BEHIND]
        if behind:  # which was not known before the commit
            _save((by_address[each.mac_address], _result_of(each)) for each in behind)

    def _announce(self, ready: list[Judged]) -> dict[str, Result]:
        filenames = [judged.config.filename for judged in ready if judged.config is not None]
        answers = announcing_again.send(DeviceConfig, filenames=filenames) if filenames else []
        if any(answer for _, answer in answers):
            result = Result(ItemState.CHANGED)
        else:
            result = Result(ItemState.FAILED, "Notifications are off. Set MQTT_URL, then restart the server.")
        return {judged.mac_address: result for judged in ready}


def _write_of(judged: Judged) -> Write:
    proposal = judged.proposal
    assert proposal is not None  # noqa: S101 - for mypy: whatever is planned has one
    before_type = KEEP if proposal.type is KEEP else judged.before_type
    return Write(judged.mac_address, judged.before, proposal.content, proposal.type, before_type)


def _result_of(written: Written) -> Result:
    return Result(STATES[written.outcome], written.reason, written.version)


def _save(results: Iterable[tuple[ChangeItem, Result]]) -> None:
    """Note what became of items. Given texts are kept no longer: they are versions now, or of no use."""
    table = ChangeItem._meta.db_table
    values = [(result.state.value, result.reason, result.version, item.pk) for item, result in results]
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {table} SET state = %s, reason = %s, version = %s, given = NULL WHERE id = %s",  # noqa: S608
            values,
        )
