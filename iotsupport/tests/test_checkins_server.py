"""A server notes what boards do: with several workers, while its database is locked, and when it ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
import requests

from iotsupport.tests.support.databases import SQLiteDatabase
from iotsupport.tests.support.marathons import marathon
from iotsupport.tests.support.noting import assert_two_hundred_boards_are_where_they_are
from iotsupport.tests.support.server import NEW, Client, Server
from iotsupport.tests.support.waiting import LIMIT, poll

BOARDS = [f"02-00-00-00-00-{number:02x}" for number in range(20)]
STRANGER = "02-00-00-00-01-00"

pytestmark = pytest.mark.processes


def states(client: Client) -> dict[str, str]:
    devices = client.get("/devices").json()["devices"]
    return {device["mac_address"]: device["state"] for device in devices}


def wait_for_states(client: Client, expected: dict[str, str]) -> None:
    poll(lambda: states(client), lambda found: found == expected)


def fetch(server: Server, path: str, **headers: str) -> requests.Response:
    """On a connection of its own: whichever worker is faster answers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.get(f"{server.url}{path}", headers=named, timeout=LIMIT)


def metrics(server: Server) -> dict[str, float]:
    lines = fetch(server, "/metrics").text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@pytest.mark.both_databases
def test_what_boards_do_is_noted_by_each_worker_and_by_one_that_ends(make_server: Callable[..., Server]) -> None:
    server = make_server(WEB_CONCURRENCY="2").start(*NEW)
    with server.client() as client:
        for mac_address in BOARDS:
            assert client.save_config(mac_address, b'{"version": 1}').status_code == 200
        assert client.upload("firmware.bin", b"firmware").status_code == 200
        wait_for_states(client, dict.fromkeys(BOARDS, "never_fetched"))

        # As good firmware does, and one that spells it otherwise, and one that has no configuration.
        for mac_address in BOARDS:
            assert fetch(server, f"/configs/{mac_address}.json", user_agent="kitchen/1.4.2").status_code == 200
        assert fetch(server, f"/configs/{BOARDS[10].upper()}.json").status_code == 200
        assert fetch(server, f"/configs/{STRANGER}.json").status_code == 404
        mac_header = BOARDS[1].replace("-", ":").upper()
        assert fetch(server, "/assets/firmware.bin", x_ESP32_STA_MAC=mac_header, x_ESP32_version="1.5").ok
        everybody = dict.fromkeys(BOARDS, "current") | {STRANGER: "waiting"}
        wait_for_states(client, everybody)
        device = poll(lambda: client.get(f"/devices/{BOARDS[1]}").json(), lambda row: row["runs"]["version"] == "1.5")
        assert device["last_address"] == "127.0.0.1"
        # Each is counted a moment after it is written.
        expected = {
            "iot_waiting_devices": 1,
            'iot_devices{state="current"}': len(BOARDS),
            'iot_checkins_total{way="worker"}': len(BOARDS) + 1,
            'iot_checkins_total{way="view"}': 2,
        }
        counts = poll(lambda: metrics(server), lambda found: found.items() >= expected.items())
        assert counts['iot_checkins_total{way="nginx"}'] == 0
        assert counts["iot_checkins_dropped_total"] == 0

        assert client.save_config(BOARDS[2], b'{"version": 2}').status_code == 200
        assert states(client) == everybody | {BOARDS[2]: "behind"}
        assert fetch(server, f"/configs/{BOARDS[2]}.json").status_code == 200

    server.stop()

    assert server.query("SELECT state, COUNT(*) FROM iotsupport_board GROUP BY state ORDER BY state") == [
        ("current", len(BOARDS)),
        ("waiting", 1),
    ]


@marathon
def test_of_two_hundred_boards_each_is_where_it_is(make_server: Callable[..., Server]) -> None:
    server = make_server(WEB_CONCURRENCY="2").start(*NEW)

    with server.client() as client:
        assert_two_hundred_boards_are_where_they_are(server, server.url, client)


@contextmanager
def locked(server: Server) -> Iterator[None]:
    """Nobody else can write to the boards' rows; on SQLite, to anything."""
    connection: Any
    if isinstance(server.database, SQLiteDatabase):
        connection = sqlite3.connect(server.database.path, timeout=LIMIT, isolation_level=None)
        lock = "BEGIN IMMEDIATE"
    else:
        connection = psycopg.connect(server.database.url)
        lock = "LOCK TABLE iotsupport_board IN EXCLUSIVE MODE"
    with closing(connection):
        connection.execute(lock)
        yield
        connection.rollback()


@pytest.mark.both_databases
def test_while_the_database_is_locked_downloads_go_on_and_they_are_noted_afterwards(
    make_server: Callable[..., Server],
) -> None:
    server = make_server().start(*NEW)
    with server.client() as client:
        assert client.save_config(BOARDS[0], b"{}").status_code == 200
        with locked(server):
            for _ in range(2):
                assert fetch(server, f"/configs/{BOARDS[0]}.json").status_code == 200
                # By now, the thread has tried to write it: while it is locked, it says so once.
                server.wait_for_log("What boards did cannot be noted now; it is tried again each second")
            assert states(client) == {BOARDS[0]: "never_fetched"}

        wait_for_states(client, {BOARDS[0]: "current"})
        counts = poll(lambda: metrics(server), lambda found: found['iot_checkins_total{way="worker"}'] == 2)
        assert counts["iot_checkins_dropped_total"] == 0
