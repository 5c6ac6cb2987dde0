"""Plans a change: finds out what would become of each configuration, some at a time, and writes it down."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from devices.changes.kinds import judge, may_work
from devices.changes.models import TOGETHER, CannotBegin, Change, ChangeItem, ItemState, Kind, Lost, State
from devices.changes.waking import wake


def begin(given: Mapping[str, Any], **fields: Any) -> Change:
    """Begin a change. One of a few is planned at once, any other behind the request.

    ``given`` has the MAC addresses, and of each what the change's kind needs to know; ``fields`` are those of
    :class:`Change`.
    """
    change = Change.objects.begin(given, worked_by=secrets.token_hex(8), **fields)
    with suppress(Lost):
        while len(given) <= TOGETHER and change.state == State.PLANNING:
            plan_step(change)
    if change.is_running:
        change.release()
        transaction.on_commit(wake)
    return change


def begin_undo(change: Change, user: User, token: str | None) -> Change:
    """Begin a change that gives back what another one changed. Raises :class:`CannotBegin`."""
    if change.is_running:
        raise CannotBegin("It is under way. Stop it first.", code="RUNNING")
    changed = change.items.filter(state=ItemState.CHANGED, version__isnull=False)
    given = dict(changed.values_list("mac_address", "version"))
    if not given:
        raise CannotBegin("It has changed no configuration, so there is nothing to undo.", code="NOTHING_CHANGED")
    return begin(given, kind=Kind.UNDO, undoes=change, created_by=user, token=token, reason=f"Undo of “{change}”")


def plan_step(change: Change) -> None:
    """Plan the next of a change that is claimed, or say that all are planned. Raises :class:`Lost`."""
    user = change.created_by and User.objects.filter(pk=change.created_by.pk).first()
    if user is None or not may_work(user, change):
        change.leave(State.STOPPED, f"{user or 'Who began it'} may not change configurations any more.")
        return
    part = change.parts.order_by("pk").first()
    if change.taken < change.count:
        change.leave(State.STOPPED, "The server was ended while it took this in. Begin it anew.")
        return
    if part is None:
        _conclude(change)
        return
    judged = judge(change, part.given, user)
    items = [
        ChangeItem(
            change=change,
            mac_address=each.mac_address,
            state=each.state,
            before=each.before,
            before_type=each.before_type,
            reason=each.reason,
            given=part.given[each.mac_address] if each.state == ItemState.PLANNED else None,
        )
        for each in judged
    ]
    with transaction.atomic():
        change.keep()
        deleted, _ = part.delete()
        if not deleted:
            raise Lost
        ChangeItem.objects.bulk_create(items)


def _conclude(change: Change) -> None:
    """All are planned."""
    change.leave(State.REFUSED if change.tally()[ItemState.REFUSED] else State.PLANNED)
    if change.goes_on and change.state == State.PLANNED:
        change.apply(change.created_by, token=change.token, leave_out=False)
