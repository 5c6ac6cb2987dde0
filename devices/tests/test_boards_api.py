"""What the boards did, through the API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices import boards_api
from devices.models import DeviceConfig
from iotsupport.boards.models import Board, State
from iotsupport.tests.support.api_client import make_user, read, refusal, token_client

pytestmark = pytest.mark.usefixtures("transactional_db")

MAC, WAITING, SILENT, GONE = "aa-bb-cc-dd-ee-ff", "aa-bb-cc-00-00-01", "aa-bb-cc-00-00-02", "aa-bb-cc-00-00-03"
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def boards() -> None:
    DeviceConfig.objects.put(MAC, '{"deviceName": "Kitchen"}')
    DeviceConfig.objects.put(SILENT, "{}")
    now = timezone.now()
    Board.objects.filter(mac_address=MAC).update(
        state=State.BEHIND,
        behind_since=NOON,
        holds_sha256="ab" * 32,
        last_seen=now,
        last_address="192.0.2.7",
        user_agent="kitchen/1.4.2",
        runs_version="1.4.2",
        runs_filename="kitchen.bin",
        runs_asset_sha256="cd" * 32,
    )
    Board.objects.filter(mac_address=SILENT).update(last_seen=now - timedelta(hours=25))
    Board.objects.create(mac_address=WAITING, state=State.WAITING, last_seen=NOON, asked=3)
    Board.objects.create(mac_address=GONE, state=State.GONE, last_seen=NOON)


def listed(script: Client, query: str = "") -> list[str]:
    answer = script.get(f"/devices{query}").json()
    macs = [device["mac_address"] for device in answer["devices"]]
    assert answer["count"] == len(macs)
    return macs


@pytest.mark.both_databases(once=True)
def test_says_what_a_board_did(boards: None, script: Client, root: str) -> None:
    response = script.get(f"{root}/devices/AA:BB:CC:DD:EE:FF")

    last_seen = Board.objects.get(mac_address=MAC).last_seen
    assert last_seen is not None
    assert response.json() == {
        "mac_address": MAC,
        "device_name": "Kitchen",
        "state": "behind",
        "behind_since": "2026-11-27T12:00:00Z",
        "last_seen": last_seen.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "last_address": "192.0.2.7",
        "silent": False,
        "holds_sha256": "ab" * 32,
        "runs": {"version": "1.4.2", "asset": "kitchen.bin", "sha256": "cd" * 32},
        "user_agent": "kitchen/1.4.2",
    }


def test_says_null_of_what_a_board_did_not_say(boards: None, script: Client) -> None:
    assert script.get(f"/devices/{WAITING}").json() == {
        "mac_address": WAITING,
        "device_name": None,
        "state": "waiting",
        "behind_since": None,
        "last_seen": "2026-11-27T12:00:00Z",
        "last_address": None,
        "silent": False,
        "holds_sha256": None,
        "runs": None,
        "user_agent": None,
    }


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [WAITING, SILENT, MAC]),
        ("?state=behind", [MAC]),
        ("?state=never_fetched", [SILENT]),
        ("?state=waiting", [WAITING]),
        ("?state=current", []),
        ("?silent=true", [SILENT]),
        ("?silent=false", [WAITING, MAC]),
        ("?silent=true&state=behind", []),
        ("?silent=true&state=never_fetched", [SILENT]),
    ],
)
def test_lists_by_mac_address_what_a_filter_lets_through(
    boards: None, script: Client, query: str, expected: list[str]
) -> None:
    assert listed(script, query) == expected


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?state=gone", "state is 'gone', but it must be current or behind or never_fetched or waiting."),
        ("?state=", "state is '', but it must be current or behind or never_fetched or waiting."),
        ("?silent=1", "silent is '1', but it must be true or false."),
        ("?stat=behind", "There is no filter 'stat'. Use state or silent or type."),
        ("?state=behind&state=current", "The filter state is there 2 times. Name it once."),
        ("?state=%00%1b" + "x" * 99, "state is '\\x00\\x1b" + "x" * 38 + "', but it must be"),
    ],
)
def test_a_filter_that_is_none_is_refused(boards: None, script: Client, query: str, sentence: str) -> None:
    response = script.get(f"/devices{query}")

    assert refusal(response) == (400, "INVALID_FILTER")
    assert response.json()["error"].startswith(sentence)


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize("mac_address", [GONE, "aa-bb-cc-00-00-04"])
def test_of_whom_there_is_no_sign_nothing_is_told(boards: None, script: Client, mac_address: str) -> None:
    assert refusal(script.get(f"/devices/{mac_address}")) == (404, "NOT_FOUND")


def test_what_is_no_mac_address_is_refused(script: Client) -> None:
    assert refusal(script.get("/devices/kitchen")) == (400, "INVALID_MAC_ADDRESS")


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize("path", ["/devices", f"/devices/{MAC}"])
def test_only_who_may_see_configurations_sees_it(boards: None, client: Client, path: str) -> None:
    assert refusal(client.get(path)) == (401, "NOT_AUTHENTICATED")
    assert refusal(token_client(make_user("assets.view_asset", username="other")).get(path)) == (403, "FORBIDDEN")
    assert token_client(make_user("devices.view_deviceconfig")).get(path).status_code == 200


@pytest.mark.both_databases
def test_a_long_list_is_streamed_and_asks_two_queries_a_page(script: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(boards_api, "PAGE_ROWS", 2)
    macs = [f"aa-bb-cc-00-00-{number:02x}" for number in range(5)]
    for mac_address in macs:
        DeviceConfig.objects.put(mac_address, f'{{"deviceName": "{mac_address}"}}')

    with CaptureQueriesContext(connection) as captured:
        response = script.get("/devices")
        answer = json.loads(read(response).body)

    assert response.streaming
    assert [device["device_name"] for device in answer["devices"]] == macs
    assert answer["count"] == 5
    assert len([query for query in captured if "iotsupport_board" in query["sql"]]) == 3
    assert len([query for query in captured if "devices_deviceconfig" in query["sql"]]) == 3
