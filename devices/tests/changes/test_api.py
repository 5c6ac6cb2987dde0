"""Changes of many, through the API."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from devices.changes import models, planning
from devices.changes.models import Change
from devices.models import DeviceConfig, DeviceType
from devices.tests.changes.fleet import Fleet, mac
from iotsupport.boards.models import Board
from iotsupport.tests.support.api_client import make_user, refusal, token_client


@pytest.fixture
def ci(fleet: Fleet) -> Client:
    return token_client(fleet.user)


def post(client: Client, body: Any, path: str = "/changes") -> Any:
    return client.post(path, body, content_type="application/json")


@pytest.mark.both_databases(once=True)
def test_a_patch_is_planned_looked_at_applied_and_undone(fleet: Fleet, ci: Client, root: str):
    text = fleet.text(1)
    planned = post(
        ci, '{"patch": {"pin": 10e0}, "where": {"macs": ["02:00:00:00:00:01", "02-00-00-00-00-63"]}, "reason": "Why"}'
    )
    assert planned.status_code == 202
    change = planned.json()
    assert change["state"] == "refused"
    assert (change["kind"], change["reason"], change["created_by"], change["chosen"]) == ("patch", "Why", "anna", 2)
    assert change["counts"] == {
        "planned": 1,
        "unchanged": 0,
        "refused": 1,
        "changed": 0,
        "skipped": 0,
        "failed": 0,
    }
    assert change["not_changed"] == [
        {"mac_address": mac(99), "state": "refused", "reason": "No configuration has this MAC address."}
    ]
    path = f"{root}/changes/{change['id']}"
    assert ci.get(path).json() == change

    assert refusal(post(ci, {}, f"{path}/apply")) == (409, "WOULD_BE_REFUSED")
    applied = post(ci, {"leave_out_refused": True}, f"{path}/apply")
    assert (applied.status_code, applied.json()["state"]) == (202, "applying")
    fleet.work()
    assert ci.get(path).json()["state"] == "applied"
    assert fleet.text(1) == text.replace("1.0", "10e0")
    version = DeviceConfig.history.filter(mac_address=mac(1)).first()
    assert (version.history_way, version.history_token, version.history_change_reason) == ("bulk", "", "Why")

    undo = post(ci, {}, f"{path}/undo")
    assert undo.status_code == 202
    assert undo.json()["undoes"] == change["id"]
    assert post(ci, "", f"{root}/changes/{undo.json()['id']}/apply").status_code == 202
    fleet.work()
    assert fleet.text(1) == text
    listed = ci.get(f"{root}/changes").json()
    assert [each["id"] for each in listed["changes"]] == [undo.json()["id"], change["id"]]
    assert listed["count"] == 2


@pytest.mark.both_databases
def test_what_a_search_finds_is_changed(fleet: Fleet, ci: Client):
    lamps = DeviceType.objects.create(name="Lamp", schema="{}")
    DeviceConfig.objects.filter(mac_address__in=[mac(1), mac(10), mac(11)]).update(type=lamps, fits=True)
    Board.objects.filter(mac_address=mac(10)).update(state="behind")

    by_type = post(ci, {"patch": {"pin": 7}, "where": {"type": "lamp", "search": "Lamp"}}).json()
    by_state = post(ci, {"announce": True, "where": {"type": "lamp", "state": "behind"}}).json()

    assert by_type["chosen"] == 3
    assert (by_state["chosen"], by_state["kind"]) == (1, "announce")
    assert Change.objects.get(pk=by_type["id"]).chosen_by == "“Lamp”, type: lamp"


@pytest.mark.both_databases
def test_the_type_is_set_and_taken_away(fleet: Fleet, ci: Client):
    DeviceType.objects.create(name="Lamp", schema="{}")
    for name, expected in [("lamp", "Lamp"), (None, None)]:
        change = post(ci, {"type": name, "where": {"macs": [mac(1)]}}).json()
        post(ci, {}, f"/changes/{change['id']}/apply")
        fleet.work()

        config = DeviceConfig.objects.get(mac_address=mac(1))
        assert (config.type and config.type.name) == expected


@pytest.mark.both_databases
def test_a_large_one_is_planned_behind_the_answer_and_can_be_stopped(
    fleet: Fleet, ci: Client, monkeypatch: pytest.MonkeyPatch
):
    for module in [models, planning]:
        monkeypatch.setattr(module, "TOGETHER", 10)

    change = post(ci, {"patch": {"pin": 7}, "where": {"search": ""}}).json()

    assert (change["state"], change["chosen"]) == ("planning", 24)
    stopped = post(ci, {}, f"/changes/{change['id']}/stop")
    assert (stopped.status_code, stopped.json()["state"]) == (202, "stopped")
    assert refusal(post(ci, {}, f"/changes/{change['id']}/stop")) == (409, "NOT_RUNNING")
    assert refusal(post(ci, {}, f"/changes/{change['id']}/apply")) == (409, "NOT_PLANNED")
    assert refusal(post(ci, {}, f"/changes/{change['id']}/undo")) == (409, "NOTHING_CHANGED")


WHERE = f'{{"macs": ["{mac(1)}"]}}'


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"patch": {"pin": 1}}', "INVALID_BODY"),
        ('{"patch": {"pin": 1}, "where": {}}', "INVALID_BODY"),
        ('{"patch": {"pin": 1}, "where": []}', "INVALID_BODY"),
        ('{"patch": {"pin": 1}, "where": {"mac": []}}', "INVALID_BODY"),
        ('{"patch": {"pin": 1}, "where": {"macs": "all"}}', "INVALID_BODY"),
        ('{"patch": {"pin": 1}, "where": {"macs": ["x"]}}', "INVALID_MAC_ADDRESS"),
        ('{"patch": {"pin": 1}, "where": {"macs": [], "search": ""}}', "INVALID_BODY"),
        ('{"patch": {"pin": 1}, "where": {"macs": []}}', "NOTHING_FOUND"),
        ('{"patch": {"pin": 1}, "where": {"search": "nothing of this"}}', "NOTHING_FOUND"),
        ('{"patch": {"pin": 1}, "where": {"search": 1}}', "INVALID_FILTER"),
        ('{"patch": {"pin": 1}, "where": {"state": "waiting"}}', "INVALID_FILTER"),
        ('{"patch": {"pin": 1}, "where": {"type": "lamp"}}', "UNKNOWN_TYPE"),
        (f'{{"patch": {{"pin": 1}}, "where": {{"search": "{"a " * 101}"}}}}', "INVALID_FILTER"),
        (f'{{"where": {WHERE}}}', "INVALID_BODY"),
        (f'{{"patch": [], "where": {WHERE}}}', "INVALID_BODY"),
        (f'{{"patch": {{}}, "announce": true, "where": {WHERE}}}', "INVALID_BODY"),
        (f'{{"announce": 1, "where": {WHERE}}}', "INVALID_BODY"),
        (f'{{"type": "lamp", "where": {WHERE}}}', "UNKNOWN_TYPE"),
        (f'{{"patch": {{"a": 1, "a": 2}}, "where": {WHERE}}}', "DUPLICATE_KEY"),
        (f'{{"patch": {{}}, "where": {WHERE}, "reason": 1}}', "INVALID_BODY"),
        (f'{{"patch": {{}}, "where": {WHERE}, "wave": 1}}', "INVALID_BODY"),
        ("[]", "NOT_AN_OBJECT"),
    ],
)
def test_what_cannot_be_understood_is_refused(fleet: Fleet, ci: Client, body: str, code: str):
    assert refusal(post(ci, body)) == (404 if code == "NOTHING_FOUND" else 400, code)
    assert not Change.objects.exists()


def test_how_it_is_applied_must_be_understood(fleet: Fleet, ci: Client):
    change = fleet.plan(numbers=[1])

    for body in ['{"leave_out_refused": 1}', '{"leave_out": true}']:
        assert refusal(post(ci, body, f"/changes/{change.pk}/apply")) == (400, "INVALID_BODY")
    assert refusal(ci.get("/changes/999")) == (404, "NOT_FOUND")


def test_who_may_not_change_configurations_plans_applies_stops_and_undoes_none(fleet: Fleet):
    change = fleet.plan(numbers=[1])
    viewer = token_client(make_user("devices.view_deviceconfig", username="vera"))

    assert viewer.get(f"/changes/{change.pk}").status_code == 200
    assert refusal(post(viewer, {"patch": {}, "where": {"macs": [mac(1)]}})) == (403, "FORBIDDEN")
    for name in ["apply", "stop", "undo"]:
        assert refusal(post(viewer, {}, f"/changes/{change.pk}/{name}")) == (403, "FORBIDDEN")
    assert refusal(token_client(make_user(username="nobody")).get(f"/changes/{change.pk}")) == (403, "FORBIDDEN")
    assert refusal(Client().get("/changes")) == (401, "NOT_AUTHENTICATED")
