"""A plan says of each configuration what would become of it, and writes to none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from devices.changes import models, planning
from devices.changes.models import CannotBegin, Change, Kind, Lost, Part, State
from devices.changes.planning import begin, begin_undo, plan_step
from devices.models import DeviceConfig
from devices.tests.changes.fleet import Fleet, mac, reasons, states
from iotsupport.housekeeping import remove
from iotsupport.tests.support.api_client import nothing_changed

pytestmark = pytest.mark.both_databases


def test_says_what_would_change_what_would_not_and_what_would_be_refused(fleet: Fleet, settings: Any):
    fleet.save(3, '{"pin": 7}')
    fleet.save(4, '{"pin": 1, "x": "' + "y" * 300 + '"}')
    settings.CONFIG_MAX_BYTES = 310

    with nothing_changed():
        change = fleet.plan('{"pin": 7, "new": null, "z": null}', numbers=[1, 2, 3, 4, 99])

    assert change.state == State.REFUSED
    assert states(change) == {"planned": 2, "unchanged": 1, "refused": 2}
    refused = reasons(change, "refused")
    assert refused[mac(99)] == "No configuration has this MAC address."
    assert "310 are allowed" in refused[mac(4)]
    assert change.count == 5


def test_a_plan_of_which_nothing_would_be_refused_is_planned(fleet: Fleet):
    change = fleet.plan(numbers=[1, 2])

    assert change.state == State.PLANNED
    assert {item.before for item in change.items.all()} == {
        config.content_sha256 for config in DeviceConfig.objects.filter(mac_address__in=[mac(1), mac(2)])
    }


def test_more_than_a_few_are_planned_behind_the_request(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    for module in [models, planning]:
        monkeypatch.setattr(module, "TOGETHER", 10)

    change = begin(dict.fromkeys(map(mac, range(24))), kind=Kind.PATCH, patch='{"pin": 7}', created_by=fleet.user)

    assert change.state == State.PLANNING
    assert not change.items.exists()
    assert [len(part.given) for part in change.parts.all()] == [10, 10, 4]
    fleet.work()
    change.refresh_from_db()
    assert change.state == State.PLANNED
    assert states(change) == {"planned": 24}
    assert not Part.objects.exists()


def test_another_process_goes_on_where_one_died_and_plans_each_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    for module in [models, planning]:
        monkeypatch.setattr(module, "TOGETHER", 10)
    begin(dict.fromkeys(map(mac, range(24))), kind=Kind.PATCH, patch='{"pin": 7}', created_by=fleet.user)
    dead = Change.objects.claim("dead")
    assert dead is not None
    plan_step(dead)

    assert Change.objects.claim("other") is None  # the lease holds
    Change.objects.update(worked_until=dead.created_at)
    fleet.work()

    assert states(dead) == {"planned": 24}
    with pytest.raises(Lost):
        dead.keep()


def test_each_step_renews_the_lease(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning, "TOGETHER", 10)
    begin(dict.fromkeys(map(mac, range(24))), kind=Kind.PATCH, patch='{"pin": 7}', created_by=fleet.user)
    working = Change.objects.claim("one")
    assert working is not None
    Change.objects.update(worked_until=working.created_at)

    plan_step(working)

    assert Change.objects.claim("another") is None


def test_what_two_processes_plan_at_once_is_there_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    for module in [models, planning]:
        monkeypatch.setattr(module, "TOGETHER", 10)
    begin(dict.fromkeys(map(mac, range(24))), kind=Kind.PATCH, patch='{"pin": 7}', created_by=fleet.user)
    first = Change.objects.claim("same")
    assert first is not None

    def judge_late(change: Change, given: Any, user: Any) -> Any:
        monkeypatch.undo()
        plan_step(change)  # the other process, while this one thinks
        return planning.judge(change, given, user)

    monkeypatch.setattr(planning, "judge", judge_late)
    with pytest.raises(Lost):
        plan_step(first)

    assert states(first) == {"planned": 10}


def test_who_may_not_change_any_more_plans_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning, "TOGETHER", 10)
    change = begin(dict.fromkeys(map(mac, range(24))), kind=Kind.PATCH, patch='{"pin": 7}', created_by=fleet.user)
    fleet.user.user_permissions.clear()

    fleet.work()

    change.refresh_from_db()
    assert change.state == State.STOPPED
    assert change.remark == "anna may not change configurations any more."
    with pytest.raises(CannotBegin, match="Its planning was stopped"):
        change.apply(fleet.user, token=None, leave_out=True)


def test_a_plan_that_is_stopped_ends(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning, "TOGETHER", 10)
    change = begin(dict.fromkeys(map(mac, range(24))), kind=Kind.PATCH, patch='{"pin": 7}', created_by=fleet.user)
    working = Change.objects.claim("other")
    assert working is not None

    change.stop(fleet.user)

    with pytest.raises(Lost), transaction.atomic():
        plan_step(working)
    assert not change.items.exists()
    assert not Part.objects.exists()
    assert change.remark == "anna stopped it."


def test_a_plan_that_is_stopped_when_all_is_planned_ends_too(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning, "TOGETHER", 10)
    change = begin(dict.fromkeys(map(mac, range(24))), kind=Kind.PATCH, patch='{"pin": 7}', created_by=fleet.user)
    working = Change.objects.claim("other")
    assert working is not None
    plan_step(working)
    assert not Part.objects.exists()

    change.stop(fleet.user)

    with pytest.raises(Lost):
        plan_step(working)
    change.refresh_from_db()
    assert change.state == State.STOPPED


def test_old_changes_are_forgotten_as_old_versions_are(fleet: Fleet, settings: Any):
    old, undone, young, going_on = (fleet.plan(numbers=numbers) for numbers in [[1, 2], [4], [3], [5]])
    Change.objects.filter(pk=young.pk).update(undoes=undone)
    Change.objects.exclude(pk=young.pk).update(created_at=old.created_at - timedelta(days=366))
    Change.objects.filter(pk=going_on.pk).update(state=State.APPLYING)
    settings.HISTORY_DAYS = 0
    assert "changes of many" not in remove(lambda seconds: None)
    settings.HISTORY_DAYS = 365

    removed = remove(lambda seconds: None)

    # What was undone stays, since what undid it leads there.
    assert (removed["items of changes of many"], removed["changes of many"]) == (3, 1)
    assert {change.pk: change.items.count() for change in Change.objects.all()} == {
        undone.pk: 0,
        young.pk: 1,
        going_on.pk: 1,
    }


def test_an_import_is_planned_for_texts_of_their_own_also_where_there_is_none(fleet: Fleet):
    texts = {1: '{"pin": 1}', 2: fleet.text(2), 3: "{", 99: "{}"}
    given: dict[str, dict[str, Any]] = {mac(number): {"content": text} for number, text in texts.items()}
    given[mac(4)] = {"content": "{}", "type": "gone"}

    change = begin(given, kind=Kind.IMPORT, created_by=fleet.user)

    assert states(change) == {"planned": 1, "unchanged": 1, "refused": 3}
    refused = reasons(change, "refused")
    assert refused[mac(99)] == "anna may not add configurations. Ask an administrator for it."
    assert refused[mac(4)] == "There is no type “gone”. Add it first, or leave the type out."
    assert change.items.get(state="planned").given == {"content": '{"pin": 1}'}


@pytest.mark.parametrize("together", [10, 200])
def test_what_is_to_go_on_by_itself_is_applied_unless_some_would_be_refused(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, together: int
):
    for module in [models, planning]:
        monkeypatch.setattr(module, "TOGETHER", together)

    change = fleet.plan(goes_on=True)
    refused = fleet.plan('{"pin": 8}', numbers=[*range(12), 99], goes_on=True)

    assert (change.state, change.applied_by) == (State.APPLIED, fleet.user)
    assert states(change) == {"changed": 24}
    assert refused.state == State.REFUSED


def test_what_was_taken_in_by_half_is_never_planned(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    class Ends(dict[str, None]):
        """As if the server was killed while it reads the eleventh."""

        def __getitem__(self, key: str) -> None:
            if key == mac(10):
                raise KeyboardInterrupt
            return super().__getitem__(key)

    for module, name in [(models, "TOGETHER"), (planning, "TOGETHER"), (models, "TAKEN_TOGETHER")]:
        monkeypatch.setattr(module, name, 10)
    with pytest.raises(KeyboardInterrupt):
        begin(Ends.fromkeys(map(mac, range(24))), kind=Kind.PATCH, patch='{"pin": 7}', created_by=fleet.user)
    fleet.work()
    change = Change.objects.get()
    assert change.state == State.PLANNING  # its lease holds

    Change.objects.update(worked_until=change.created_at)
    fleet.work()

    change.refresh_from_db()
    assert (change.state, states(change)) == (State.STOPPED, {})
    assert change.remark == "The server was ended while it took this in. Begin it anew."


def test_what_is_under_way_or_changed_nothing_is_not_undone(fleet: Fleet):
    change = fleet.plan(numbers=[1])
    with pytest.raises(CannotBegin, match="nothing to undo"):
        begin_undo(change, fleet.user, None)
    change.apply(fleet.user, token=None, leave_out=False)

    with pytest.raises(CannotBegin, match="Stop it first"):
        begin_undo(change, fleet.user, None)
