"""What was planned is applied in steps, each configuration once; and undone where nobody has changed it since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devices.changes import applying
from devices.changes.applying import Applying
from devices.changes.models import CannotBegin, Change, Kind, Lost, State
from devices.changes.planning import begin, begin_undo
from devices.models import DeviceConfig, DeviceType
from devices.tests.changes.fleet import Fleet, mac, reasons, states
from devices.writing import Outcome
from iotsupport.mirror.files import MirrorError
from iotsupport.signals import announcing_again
from iotsupport.tests.support.api_client import make_user

pytestmark = pytest.mark.both_databases


def patched(number: int) -> str:
    return f'{{\n  "deviceName": "Lamp {number}",\n  "pin": 7\n}}\n'


def test_each_is_changed_in_place_and_its_version_says_why(fleet: Fleet, directories: Path):
    change = fleet.change(reason="The new board")

    assert states(change) == {"changed": 24}
    assert [fleet.text(number) for number in range(24)] == [patched(number) for number in range(24)]
    version = DeviceConfig.history.filter(mac_address=mac(5)).first()
    assert (version.history_way, version.history_change_reason, version.history_user) == (
        "bulk",
        "The new board",
        fleet.user,
    )
    assert change.items.get(mac_address=mac(5)).version == version.pk
    assert (directories / "configs" / f"{mac(5)}.json").read_text() == patched(5)
    assert change.finished_at is not None


def test_what_somebody_else_changed_since_the_plan_is_theirs(fleet: Fleet):
    bert = make_user(username="bert")
    change = fleet.plan(numbers=[1, 2, 3, 4])
    fleet.save(2, '{"pin": "bert\'s"}', bert)
    fleet.save(4, "{}")
    DeviceConfig.objects.get(mac_address=mac(3)).delete()

    fleet.apply(change)

    assert states(change) == {"changed": 1, "skipped": 3}
    assert reasons(change, "skipped") == {
        mac(2): "bert changed it meanwhile.",
        mac(3): "It was deleted meanwhile.",
        mac(4): "Somebody changed it meanwhile.",
    }
    assert fleet.text(2) == '{"pin": "bert\'s"}'


def test_what_is_saved_in_the_moment_of_the_step_is_left_alone_too(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    change = fleet.plan(numbers=[1, 2])
    write_many = applying.write_many

    def write_late(*args: Any) -> Any:
        fleet.save(2, '{"pin": "late"}')
        return write_many(*args)

    monkeypatch.setattr(applying, "write_many", write_late)
    fleet.apply(change)

    assert states(change) == {"changed": 1, "skipped": 1}
    assert fleet.text(2) == '{"pin": "late"}'


def test_nothing_begins_while_some_would_be_refused_unless_they_are_left_out(fleet: Fleet):
    change = fleet.plan(numbers=[1, 99])

    with pytest.raises(CannotBegin, match="leave them out"):
        change.apply(fleet.user, token=None, leave_out=False)
    assert fleet.text(1) != patched(1)
    fleet.apply(change, leave_out=True)

    assert change.state == State.APPLIED
    assert states(change) == {"changed": 1, "refused": 1}


def test_what_is_refused_only_now_has_failed_and_keeps_none_back(fleet: Fleet, settings: Any):
    change = fleet.plan('{"new": "a long text"}', numbers=[1, 2])
    settings.CONFIG_MAX_BYTES = 50

    fleet.apply(change)

    assert states(change) == {"failed": 2}
    assert "50 are allowed" in reasons(change, "failed")[mac(1)]


def test_it_is_stopped_between_two_steps_and_gone_on_with(fleet: Fleet):
    change = fleet.plan()
    change.apply(fleet.user, token=None, leave_out=False)
    claimed = Change.objects.claim("one")
    assert claimed is not None
    steps = Applying(claimed)
    steps.step()

    change.stop(fleet.user)

    with pytest.raises(Lost):
        steps.step()
    assert states(change) == {"changed": 10, "planned": 14}
    assert sum(fleet.text(number) == patched(number) for number in range(24)) == 10
    assert change.remark == "anna stopped it."
    fleet.apply(change)
    assert states(change) == {"changed": 24}
    assert DeviceConfig.history.filter(mac_address=mac(3)).count() == 2


def test_who_is_too_late_writes_nothing_that_another_process_has_taken(fleet: Fleet):
    change = fleet.plan()
    change.apply(fleet.user, token=None, leave_out=False)
    slow = Change.objects.claim("slow")
    assert slow is not None
    Change.objects.update(worked_until=slow.created_at)

    fleet.work()

    with pytest.raises(Lost):
        slow.keep()
    change.refresh_from_db()
    assert change.state == State.APPLIED
    assert DeviceConfig.history.filter(mac_address=mac(3)).count() == 2


def test_a_step_that_is_lost_while_it_writes_takes_everything_back(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    change = fleet.plan()
    change.apply(fleet.user, token=None, leave_out=False)
    slow = Change.objects.claim("slow")
    assert slow is not None
    write_many = applying.write_many

    def write_late(*args: Any) -> Any:
        Change.objects.update(worked_by="another")
        return write_many(*args)

    monkeypatch.setattr(applying, "write_many", write_late)
    with pytest.raises(Lost):
        Applying(slow).step()

    assert states(change) == {"planned": 24}
    assert fleet.text(1) != patched(1)


def test_it_stops_where_who_applies_it_may_not_any_more(fleet: Fleet):
    bert = make_user("devices.change_deviceconfig", username="bert")
    change = fleet.plan()
    change.apply(bert, token=None, leave_out=False)
    bert.user_permissions.clear()

    fleet.work()

    change.refresh_from_db()
    assert (change.state, change.remark) == (State.STOPPED, "bert may not change configurations any more.")
    assert states(change) == {"planned": 24}


def test_it_waits_for_the_disk_and_goes_on(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    change = fleet.plan(numbers=[1])
    change.apply(fleet.user, token=None, leave_out=False)
    write_many = applying.write_many

    def fail(*args: Any) -> Any:
        raise MirrorError("No room is left on the disk.")

    monkeypatch.setattr(applying, "write_many", fail)
    with pytest.raises(MirrorError):
        fleet.work()
    change.refresh_from_db()
    assert change.state == State.APPLYING
    assert change.remark == "It waits, and goes on by itself: No room is left on the disk."

    monkeypatch.setattr(applying, "write_many", write_many)
    fleet.work()
    change.refresh_from_db()
    assert (change.state, change.remark) == (State.APPLIED, "")


def test_what_is_saved_and_not_on_the_disk_yet_is_changed_and_says_so(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    change = fleet.plan(numbers=[1, 2])
    write_many = applying.write_many

    def write_behind(*args: Any) -> Any:
        written = write_many(*args)
        written[1].outcome, written[1].reason = Outcome.BEHIND, "Its file is not up to date."
        return written

    monkeypatch.setattr(applying, "write_many", write_behind)
    fleet.apply(change)

    assert reasons(change, "changed") == {mac(1): "", mac(2): "Its file is not up to date."}
    assert change.items.filter(version=None).count() == 0


def test_what_nobody_foresaw_stops_it_instead_of_being_tried_for_ever(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    change = fleet.plan(numbers=[1])
    change.apply(fleet.user, token=None, leave_out=False)

    def fail(*args: Any) -> Any:
        raise KeyError("oh")

    monkeypatch.setattr(applying, "write_many", fail)
    with pytest.raises(KeyError):
        fleet.work()

    change.refresh_from_db()
    assert change.state == State.STOPPED
    assert "the server's log says what" in change.remark


def test_undo_gives_each_its_earlier_text_but_where_somebody_changed_it_since(fleet: Fleet):
    texts = [fleet.text(number) for number in range(4)]
    change = fleet.change(numbers=range(4), reason="Pins")
    fleet.save(2, '{"pin": 8}')

    undo = begin_undo(change, fleet.user, None)
    assert (undo.state, undo.reason) == (State.PLANNED, "Undo of “Pins”")
    assert states(undo) == {"planned": 3, "skipped": 1}
    assert reasons(undo, "skipped") == {mac(2): "Somebody changed it since."}
    fleet.apply(undo)

    assert [fleet.text(number) for number in range(4)] == [texts[0], texts[1], '{"pin": 8}', texts[3]]
    again = begin_undo(undo, fleet.user, None)
    fleet.apply(again)
    assert [fleet.text(number) for number in [0, 1, 3]] == [patched(0), patched(1), patched(3)]


def test_undo_gives_back_types_too(fleet: Fleet):
    old, new = (DeviceType.objects.create(name=name, schema="{}") for name in ["old", "new"])
    for number in range(4):
        config = DeviceConfig.objects.get(mac_address=mac(number))
        config.type = old
        config.save()
    change = fleet.change("", range(5), kind=Kind.TYPE, type=new, type_name="new")
    fleet.save(1, "{}")
    DeviceConfig.objects.filter(mac_address=mac(2)).update(type=old)

    undo = fleet.apply(begin_undo(change, fleet.user, None))

    assert [DeviceConfig.objects.get(mac_address=mac(number)).type for number in range(5)] == [old, new, old, old, None]
    assert reasons(undo, "skipped") == {
        mac(1): "Somebody changed it since.",
        mac(2): "anna gave it another type since.",
    }


def test_a_type_that_is_gone_is_not_given_back(fleet: Fleet):
    old, new = (DeviceType.objects.create(name=name, schema="{}") for name in ["old", "new"])
    fleet.change("", [1], kind=Kind.TYPE, type=old, type_name="old")
    change = fleet.change("", [1], kind=Kind.TYPE, type=new, type_name="new")
    old.delete()

    undo = begin_undo(change, fleet.user, None)

    assert reasons(undo, "skipped") == {mac(1): "Its earlier type was deleted since."}


def test_a_type_that_is_deleted_meanwhile_is_not_taken_for_none(fleet: Fleet):
    new = DeviceType.objects.create(name="new", schema="{}")
    change = fleet.plan("", [1], kind=Kind.TYPE, type=new, type_name="new")
    new.delete()

    fleet.apply(change)

    assert reasons(change, "failed") == {mac(1): "The type “new” was deleted."}


def test_a_type_that_somebody_else_gave_meanwhile_stays(fleet: Fleet):
    new, other = (DeviceType.objects.create(name=name, schema="{}") for name in ["new", "other"])
    change = fleet.plan("", [1, 2], kind=Kind.TYPE, type=new, type_name="new")
    DeviceConfig.objects.filter(mac_address=mac(1)).update(type=other)

    fleet.apply(change)

    assert states(change) == {"changed": 1, "skipped": 1}
    assert DeviceConfig.objects.get(mac_address=mac(1)).type == other


def test_a_type_that_somebody_else_gives_in_the_moment_of_the_step_stays(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    new, other = (DeviceType.objects.create(name=name, schema="{}") for name in ["new", "other"])
    change = fleet.plan("", [1, 2], kind=Kind.TYPE, type=new, type_name="new")
    write_many = applying.write_many

    def write_late(*args: Any) -> Any:
        DeviceConfig.objects.filter(mac_address=mac(1)).update(type=other)
        return write_many(*args)

    monkeypatch.setattr(applying, "write_many", write_late)
    fleet.apply(change)

    assert states(change) == {"changed": 1, "skipped": 1}
    assert reasons(change, "skipped") == {mac(1): "It was given another type meanwhile."}
    assert DeviceConfig.objects.get(mac_address=mac(1)).type == other


def test_undo_leaves_alone_what_has_no_earlier_text(fleet: Fleet):
    given = dict.fromkeys([mac(98), mac(97), mac(3)], {"content": "{}"})
    fleet.user = make_user("devices.change_deviceconfig", "devices.add_deviceconfig", username="bert")
    change = fleet.apply(begin(given, kind=Kind.IMPORT, created_by=fleet.user))
    DeviceConfig.objects.get(mac_address=mac(97)).delete()
    DeviceConfig.history.filter(mac_address=mac(3)).last().delete()

    undo = begin_undo(change, fleet.user, None)

    assert states(undo) == {"skipped": 3}
    assert reasons(undo, "skipped") == {
        mac(98): "It was new then. Delete it, if it is to go.",
        mac(97): "It was deleted since.",
        mac(3): "Its earlier text is not kept any more.",
    }


def test_given_texts_are_kept_no_longer_than_they_are_needed(fleet: Fleet):
    change = fleet.apply(begin({mac(1): {"content": '{"pin": 1}'}}, kind=Kind.IMPORT, created_by=fleet.user))

    assert fleet.text(1) == '{"pin": 1}'
    assert change.items.get().given is None


def test_announcing_again_writes_nothing_and_tells_who_announces(fleet: Fleet):
    heard: list[str] = []

    def hear(filenames: list[str], **kwargs: Any) -> bool:
        heard.extend(filenames)
        return True

    announcing_again.connect(hear, sender=DeviceConfig)
    versions = DeviceConfig.history.count()
    change = fleet.change(numbers=[1, 2], kind=Kind.ANNOUNCE, patch="")
    announcing_again.disconnect(hear, sender=DeviceConfig)

    assert states(change) == {"changed": 2}
    assert heard == [f"{mac(1)}.json", f"{mac(2)}.json"]
    assert DeviceConfig.history.count() == versions
    with pytest.raises(CannotBegin, match="nothing to undo"):
        begin_undo(change, fleet.user, None)


def test_nothing_is_announced_again_where_nobody_announces(fleet: Fleet):
    change = fleet.change(numbers=[1], kind=Kind.ANNOUNCE, patch="")

    assert reasons(change, "failed") == {mac(1): "Notifications are off. Set MQTT_URL, then restart the server."}
