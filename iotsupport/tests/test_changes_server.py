"""A change of many survives whatever happens to the server, and changes each configuration once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests

from iotsupport.tests.owed.fleet import filename_of, wait_until_announced
from iotsupport.tests.support.marathons import CHANGED_TOGETHER, marathon
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.server import NEW as WITHOUT_COMPARING
from iotsupport.tests.support.server import Installation, Server
from iotsupport.tests.support.waiting import poll

MACS = [f"02-cc-00-00-{number // 256:02x}-{number % 256:02x}" for number in range(CHANGED_TOGETHER)]
# Of these, somebody else edits five after the plan, and five while it is stopped: the last to be changed.
EARLY, LATE = MACS[3:8], MACS[-5:]

OLD, NEW, THEIRS = '{"name": "Lamp", "pin": 1.0}', '{"name": "Lamp", "pin": 7}', '{"name": "Mine"}'

SOW = f"""
from devices.writing import TOGETHER, Write, write_many
macs = [f"02-cc-00-00-{{number // 256:02x}}-{{number % 256:02x}}" for number in range({CHANGED_TOGETHER})]
for start in range(0, len(macs), TOGETHER):
    write_many([Write(mac, None, '{OLD}') for mac in macs[start : start + TOGETHER]])
"""

END = b"that was all"


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    yield broker
    broker.stop()


@pytest.fixture
def server(broker: Mosquitto, template: Installation, tmp_path: Any) -> Iterator[Server]:
    environ = {"MQTT_URL": broker.url, "MQTT_PUBLISH_RATE": "5000", "WEB_CONCURRENCY": "2"}
    server = Server(template, tmp_path, **environ)
    server.manage("shell", "--verbosity=0", "-c", SOW, MQTT_URL="")
    server.start_connected(broker, *WITHOUT_COMPARING)  # what was sown is in its file
    yield server
    server.remove()


def items(server: Server, change: int) -> dict[str, str]:
    return dict(server.query(f"SELECT mac_address, state FROM devices_changeitem WHERE change_id = {change}"))  # noqa: S608


def rows(server: Server) -> dict[str, str]:
    return dict(server.query("SELECT mac_address, content FROM devices_deviceconfig"))


def versions(server: Server) -> Counter[int]:
    """How many configurations have so many versions."""
    counts = server.query("SELECT mac_address, count(*) FROM devices_historicaldeviceconfig GROUP BY mac_address")
    return Counter(count for _, count in counts)


def wait_until_changed(server: Server, change: int, at_least: int) -> None:
    """Until so many items say so; at each moment, each row is whole: old, new, or somebody else's."""

    def changed() -> int:
        assert set(rows(server).values()) <= {OLD, NEW, THEIRS}
        return Counter(items(server, change).values())["changed"]

    poll(changed, lambda count: count >= at_least)


def wait_for(server: Server, change: int, state: str) -> dict[str, int]:
    """Until it is so; return the counts. A worker that is killed takes its clients' connections with it."""

    def look() -> Any:
        with suppress(requests.ConnectionError), server.client() as client:
            return client.get(f"/changes/{change}").json()

    counts: dict[str, int] = poll(look, lambda found: found and found["state"] == state)["counts"]
    return counts


def post(server: Server, path: str, body: Any = None) -> Any:
    with server.client() as client:
        answer = client.post(path, json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def edit(server: Server, macs: list[str]) -> None:
    with server.client() as client:
        for mac in macs:
            assert client.save_config(mac, THEIRS.encode()).ok


def worker_of(server: Server, change: int) -> int:
    [(name,)] = server.query(f"SELECT worked_by FROM devices_change WHERE id = {change}")  # noqa: S608
    return int(name.partition("-")[0])


def heard(subscriber: Subscriber) -> Counter[str]:
    subscriber.publish("iotsupport/updates/configs", END)
    return Counter(filename_of(message).removesuffix(".json") for message in subscriber.before(END))


def assert_items_are_true(server: Server, change: int, new: str) -> int:
    """Whatever happened: an item that says so has changed its row, and no other has."""
    found = items(server, change)
    assert {mac for mac, content in rows(server).items() if content == new} == {
        mac for mac, state in found.items() if state == "changed"
    }
    return Counter(found.values())["changed"]


@marathon
@pytest.mark.both_databases
def test_stopped_killed_gone_on_with_and_undone_each_is_changed_once(server: Server, broker: Mosquitto):
    with Subscriber(broker.port) as devices:
        change = post(server, "/changes", {"patch": {"pin": 7}, "where": {"search": ""}, "reason": "Pins"})["id"]
        assert wait_for(server, change, "planned")["planned"] == CHANGED_TOGETHER
        edit(server, EARLY)
        wait_until_announced(server)
        assert heard(devices) == Counter(EARLY)

        # Stopped in the middle.
        post(server, f"/changes/{change}/apply")
        wait_until_changed(server, change, 10)
        assert post(server, f"/changes/{change}/stop")["state"] == "stopped"
        done = assert_items_are_true(server, change, NEW)
        assert 10 <= done < CHANGED_TOGETHER - len(LATE)
        wait_until_announced(server)
        told = heard(devices)
        assert (len(told), set(told.values())) == (done, {1})
        edit(server, LATE)

        # The process that does it is killed, and another goes on.
        post(server, f"/changes/{change}/apply")
        wait_until_changed(server, change, done + 10)
        os.kill(worker_of(server, change), signal.SIGKILL)
        counts = wait_for(server, change, "applied")
        assert (counts["changed"], counts["skipped"]) == (CHANGED_TOGETHER - 10, 10)
        assert assert_items_are_true(server, change, NEW) == CHANGED_TOGETHER - 10
        assert versions(server) == {2: CHANGED_TOGETHER}
        wait_until_announced(server)
        told |= heard(devices)
        assert set(told) == set(MACS) - set(EARLY)

        # It is undone; the whole server is killed meanwhile.
        undo = post(server, f"/changes/{change}/undo")["id"]
        wait_for(server, undo, "planned")
        post(server, f"/changes/{undo}/apply")
        wait_until_changed(server, undo, 10)
        server.kill()
        assert_items_are_true(server, undo, OLD)
        server.environ["WEB_CONCURRENCY"] = "1"
        server.start_connected(broker)
        wait_for(server, undo, "applied")
        wait_until_announced(server)
        assert set(heard(devices)) == set(MACS) - set(EARLY) - set(LATE)

    found = rows(server)
    assert {found[mac] for mac in EARLY + LATE} == {THEIRS}
    assert Counter(found.values()) == {OLD: CHANGED_TOGETHER - 10, THEIRS: 10}
    assert versions(server) == {2: 10, 3: CHANGED_TOGETHER - 10}
    poll(lambda: server.files("configs"), lambda files: files == server.configs())
