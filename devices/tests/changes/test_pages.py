"""Choose, patch, look, apply: in the admin, by somebody without scripts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from devices.changes import looking, models, planning
from devices.changes.models import Change, State
from devices.models import DeviceConfig, DeviceType
from devices.tests.changes.fleet import Fleet, mac, states
from iotsupport.boards.models import Board
from iotsupport.tests.support.api_client import make_user, nothing_changed, session_client

LIST = "/admin/devices/deviceconfig/"
NEW = "/admin/devices/change/new/"


@pytest.fixture
def anna(fleet: Fleet) -> Client:
    return session_client(fleet.user)


def page_of(change: Change, query: str = "") -> str:
    return f"/admin/devices/change/{change.pk}/change/{query}"


def choose(client: Client, numbers: Any, query: str = "", **fields: str) -> Any:
    configs = DeviceConfig.objects.filter(mac_address__in=[mac(number) for number in numbers])
    rows = list(configs.values_list("pk", flat=True))
    return client.post(f"{LIST}{query}", {"action": "change_many", "_selected_action": rows, **fields})


def hidden(html: str) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(mac_addresses|query)" value="([^"]*)"', html))


def test_what_is_selected_in_the_list_is_asked_about(fleet: Fleet, anna: Client):
    page = choose(anna, [1, 2])

    assert page.status_code == 200
    assert hidden(page.text) == {"mac_addresses": f"{mac(1)} {mac(2)}"}
    assert "<strong>2</strong> chosen" in page.text


@pytest.mark.both_databases
def test_all_that_the_list_found_is_planned_for_and_what_matches_later_is_not(fleet: Fleet, anna: Client):
    query = "?q=%22Lamp+1%22&state=never_fetched"
    Board.objects.filter(mac_address=mac(12)).update(state="behind")
    chosen = choose(anna, [1], query, select_across="1")
    assert hidden(chosen.text) == {"query": "q=%22Lamp+1%22&amp;state=never_fetched"}

    answer = anna.post(NEW, {"kind": "patch", "patch": '{"pin": 7}', "query": query[1:]})

    change = Change.objects.get()
    assert answer.headers["Location"] == page_of(change)
    assert change.count == 10  # 1, and 10 to 19 without 12
    assert change.chosen_by == '“"Lamp 1"”, state: Never fetched'
    assert not change.items.filter(mac_address=mac(12)).exists()


def test_a_mistake_in_the_patch_is_told_with_its_place_and_nothing_is_lost(fleet: Fleet, anna: Client):
    typed = '{\n  "pin": 7\n  "x": 1\n}'

    page = anna.post(NEW, {"kind": "patch", "patch": typed, "reason": "Because", "mac_addresses": mac(1)})

    assert "Line 3, column 3: a comma or a closing bracket is missing here." in page.text
    assert "&quot;pin&quot;: 7\n  &quot;x&quot;" in page.text
    assert "Because" in page.text
    assert hidden(page.text) == {"mac_addresses": mac(1)}
    assert not Change.objects.exists()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"patch": "{}"}, "This patch changes nothing."),
        ({"mac_addresses": ""}, "No configuration is chosen."),
        ({"mac_addresses": "kitchen"}, "This is not a MAC address"),
        ({"query": "q=nothing", "mac_addresses": ""}, "No configuration is found any more."),
        ({"query": "id__regex=x", "mac_addresses": ""}, "cannot be understood any more"),
    ],
)
def test_what_cannot_be_planned_is_refused(fleet: Fleet, anna: Client, fields: dict[str, str], sentence: str):
    page = anna.post(NEW, {"kind": "patch", "patch": '{"pin": 7}', "mac_addresses": mac(1), **fields})

    assert sentence in page.text
    assert not Change.objects.exists()


def test_every_difference_is_shown_before_anything_is_written(fleet: Fleet, anna: Client, monkeypatch: Any):
    monkeypatch.setattr(looking, "PAGE_ITEMS", 3)
    fleet.save(2, '{"pin": 7}')
    change = fleet.plan(numbers=[1, 2, 3, 4, 5, 99], reason="Pins & <b>needles</b>")

    with nothing_changed():
        first, second = anna.get(page_of(change)).text, anna.get(page_of(change, "?show=planned&p=2")).text

    assert "<title>Pins &amp; &lt;b&gt;needles&lt;/b&gt; | " in first
    assert "<strong>4</strong> would change" in first
    assert "<strong>1</strong> stay as they are" in first
    assert "1 would be refused: nothing begins while there are any" in first
    assert "No configuration has this MAC address." in first
    assert first.index("No configuration has") < first.index("Lamp 1")
    assert '"pin": <mark>1.0</mark>' in first.replace("&quot;", '"')
    assert "Leave out the 1, and apply to 4" in first
    assert "1 to 3 of 4 that would change" in first
    assert "Lamp 5" not in first
    assert "Lamp 5" in second
    assert mac(2) in anna.get(page_of(change, "?show=unchanged")).text


def test_what_the_button_says_is_what_happens(fleet: Fleet, anna: Client):
    change = fleet.plan(numbers=[1, 2, 99])
    assert anna.get(f"/admin/devices/change/{change.pk}/apply/").status_code == 405

    refused = anna.post(f"/admin/devices/change/{change.pk}/apply/", follow=True)
    assert "Some would be refused." in refused.text
    anna.post(f"/admin/devices/change/{change.pk}/apply/", {"leave_out": "on"})
    fleet.work()

    page = anna.get(page_of(change)).text
    assert states(change) == {"changed": 2, "refused": 1}
    assert "<strong>2</strong> changed" in page
    assert "1 left out" in page
    assert "is applied" in page


@pytest.mark.both_databases
def test_while_it_is_applied_the_page_says_how_far_it_is_and_stops_it(fleet: Fleet, anna: Client):
    change = fleet.plan()
    change.apply(fleet.user, token=None, leave_out=False)

    page = anna.get(page_of(change)).text
    assert "0 of 24 changed" in page
    assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in page
    stopped = anna.post(f"/admin/devices/change/{change.pk}/stop/", follow=True).text

    assert "anna stopped it." in stopped
    assert "Go on with the 24 that are left" in stopped
    assert 'http-equiv="refresh"' not in stopped
    assert "Nothing is under way" in anna.post(f"/admin/devices/change/{change.pk}/stop/", follow=True).text


def test_while_it_is_planned_the_page_says_so(fleet: Fleet, anna: Client, monkeypatch: pytest.MonkeyPatch):
    for module in [models, planning]:
        monkeypatch.setattr(module, "TOGETHER", 10)
    answer = anna.post(NEW, {"kind": "patch", "patch": '{"pin": 7}', "query": ""}, follow=True)
    assert "0 of 24 planned" in answer.text

    fleet.work()
    assert "Apply to 24" in anna.get(page_of(Change.objects.get())).text


@pytest.mark.both_databases
def test_what_was_changed_is_shown_afterwards_and_undone(fleet: Fleet, anna: Client):
    change = fleet.change(numbers=[1, 2], reason="Pins")
    page = anna.get(page_of(change)).text
    assert '"pin": <mark>7</mark>' in page.replace("&quot;", '"')

    look = anna.post(f"/admin/devices/change/{change.pk}/undo/", follow=True).text

    undo = Change.objects.first()
    assert undo is not None and undo.undoes == change
    assert "Undo of “Pins”" in look
    assert "Apply to 2" in look
    assert fleet.text(1) != '{"pin": 1.0}'
    assert f'<a href="{page_of(undo)}">Undo of “Pins”</a> is planned.' in anna.get(page_of(change)).text


def test_the_type_is_set_and_told(fleet: Fleet, anna: Client):
    DeviceType.objects.create(name="lamp", schema='{"required": ["pin"]}')
    fleet.save(3, "{}")
    post = {"kind": "type", "patch": "{\n  \n}\n", "type": str(DeviceType.objects.get().pk)}

    page = anna.post(NEW, {**post, "mac_addresses": f"{mac(1)} {mac(3)}"}, follow=True).text

    change = Change.objects.get()
    assert states(change) == {"planned": 1, "refused": 1}
    assert "Type: none → lamp" in page
    assert "This does not fit the type “lamp”." in page
    fleet.apply(change, leave_out=True)
    assert list(DeviceConfig.objects.exclude(type=None).values_list("mac_address", "type__name")) == [(mac(1), "lamp")]


@pytest.mark.both_databases
def test_the_list_has_the_latest_first_with_who_when_what_and_state(fleet: Fleet, anna: Client):
    fleet.plan(numbers=[1], reason="First")
    fleet.change(numbers=[1, 2], reason="Second")

    page = anna.get("/admin/devices/change/").text

    assert page.index("Second") < page.index("First")
    assert "is applied" in page
    assert "anna" in page
    assert "/admin/devices/change/" in anna.get("/admin/").text


def test_who_may_only_look_sees_changes_and_begins_none(fleet: Fleet):
    change = fleet.plan(numbers=[1])
    viewer = session_client(make_user("devices.view_deviceconfig", username="vera", is_staff=True))

    page = viewer.get(page_of(change))
    assert page.status_code == 200
    assert "Apply to" not in page.text
    assert "change_many" not in viewer.get(LIST).text
    for name in ["apply", "stop", "undo"]:
        assert viewer.post(f"/admin/devices/change/{change.pk}/{name}/").status_code == 403
    assert viewer.post(NEW, {"kind": "patch", "patch": "{}", "mac_addresses": mac(1)}).status_code == 403
    change.refresh_from_db()
    assert change.state == State.PLANNED


def test_who_may_not_look_sees_none(fleet: Fleet):
    change = fleet.plan(numbers=[1])
    nobody = session_client(make_user("assets.view_asset", username="nobody", is_staff=True))

    assert nobody.get(page_of(change)).status_code == 403
    assert nobody.get("/admin/devices/change/").status_code == 403


def test_what_is_not_there_is_not_found(anna: Client):
    assert anna.get("/admin/devices/change/7/change/").status_code == 404
    assert anna.post("/admin/devices/change/7/apply/").status_code == 404


def test_who_comes_without_a_choice_is_sent_to_make_one(anna: Client):
    page = anna.get(NEW, follow=True)

    assert page.redirect_chain[-1][0] == LIST
    assert "Choose configurations first" in page.text
