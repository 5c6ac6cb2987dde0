"""The broker is away for a while: what is saved meanwhile is announced when it is back, whatever else dies."""

from __future__ import annotations

import signal

import pytest

from iotsupport.tests.owed.fleet import (
    FILENAMES,
    filename_of,
    hear_all,
    heard_until_the_end,
    save_all,
    wait_until_announced,
)
from iotsupport.tests.owed.outage import assert_that_an_outage_is_made_good
from iotsupport.tests.support.marathons import OUTAGE_SECONDS, marathon
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.server import NEW, Server

# Of another device.
LATER = "aa-bb-cc-dd-ff-00.json"


@marathon
def test_60_saves_of_20_files_in_an_outage_are_announced_soon_after_it(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    assert_that_an_outage_is_made_good(server, broker, subscriber, seconds=OUTAGE_SECONDS)


@pytest.mark.both_databases
def test_saves_of_an_outage_are_announced_after_every_process_was_killed_and_those_of_a_server_that_starts_in_it(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    server.start_connected(broker, *NEW)
    broker.stop()
    save_all(server)
    server.kill()

    server.start()
    with server.client() as client:
        assert client.save_config(LATER.removesuffix(".json"), b"{}").status_code == 200
    broker.start()

    heard: set[str] = set()
    while heard != FILENAMES | {LATER}:
        heard.add(filename_of(subscriber.next()))
    wait_until_announced(server)


def owe_nothing(server: Server, broker: Mosquitto, subscriber: Subscriber) -> None:
    """Start the server, and save; return when all of it is announced, and heard as often as it was announced."""
    server.start_connected(broker, *NEW)
    save_all(server)
    hear_all(server, subscriber)
    subscriber.publish("iotsupport/updates/configs", b"so far")
    subscriber.before(b"so far")


def test_a_server_that_owes_nothing_sends_nothing_when_the_broker_or_it_is_started_again(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    owe_nothing(server, broker, subscriber)
    after = len(broker.lines)

    broker.restart()
    server.wait_until_connected(broker, after=after)

    assert not heard_until_the_end(server, subscriber)

    server.environ["WEB_CONCURRENCY"] = "1"  # it knows nothing of those before
    server.start_connected(broker)
    server.signal(signal.SIGHUP)
    server.wait_for_log("Worker exiting", count=3)

    assert not heard_until_the_end(server, subscriber)
