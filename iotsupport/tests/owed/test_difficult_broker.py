"""The broker is there, but does not answer, or not to everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from iotsupport.tests.owed.fleet import (
    DEVICES,
    FILENAMES,
    OWED,
    filename_of,
    hear_all,
    heard_until_the_end,
    save_all,
    wait_until_announced,
)
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.server import NEW, Server
from iotsupport.tests.support.waiting import LIMIT, poll
from iotsupport.tests.support.wiretap import Wiretap


@pytest.fixture
def server(make_server: Callable[..., Server], broker: Mosquitto) -> Server:
    """Not started yet; one worker."""
    return make_server(MQTT_URL=broker.url)


def save_all_while_frozen(server: Server, broker: Mosquitto) -> None:
    """Save when the broker has let in its workers, but answers no more."""
    server.start_connected(broker, *NEW)
    broker.freeze()
    save_all(server)


def test_saves_and_downloads_go_on_while_the_broker_is_frozen_and_it_hears_each_save_at_most_twice(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    server.environ["WEB_CONCURRENCY"] = "2"  # which may announce the same
    save_all_while_frozen(server, broker)

    contents = [requests.get(f"{server.url}/configs/{name}", timeout=LIMIT).content for name in FILENAMES]
    assert contents == [b'{"number": 0}'] * len(FILENAMES)
    assert len(server.query(OWED)) == len(FILENAMES)

    broker.thaw()
    assert hear_all(server, subscriber).keys() == FILENAMES
    subscriber.publish("iotsupport/updates/configs", b"so far")
    subscriber.before(b"so far")
    server.wait_until_connected(broker)  # should it have taken too long

    # For longer than the server waits.
    after = len(server.lines)
    broker.freeze()
    save_all(server, first=1)
    # Both workers gave up what they sent, and did not get in again.
    server.wait_for_log("does not acknowledge|lost the connection", after=after, count=2)
    server.wait_for_log("does not answer", after=after, count=2)

    broker.thaw()

    heard = hear_all(server, subscriber) + heard_until_the_end(server, subscriber)
    assert max(heard.values()) <= 2


def test_what_a_broker_was_sent_and_did_not_read_before_it_was_killed_is_announced_again(
    server: Server, broker: Mosquitto, tap: Wiretap
) -> None:
    save_all_while_frozen(server, broker)
    tap.wait_for(lambda: {announced.filename for announced in tap.passed} == FILENAMES)
    assert not tap.acknowledged

    broker.kill()
    broker.start()

    tap.wait_for(lambda: {filename for filename, _ in tap.told()} == FILENAMES)
    wait_until_announced(server)


def test_a_server_ends_in_time_while_the_broker_is_frozen_and_the_next_one_announces_what_it_left(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    save_all_while_frozen(server, broker)
    after = len(server.lines)

    server.stop()

    # In time, that is, before the master would have killed it: the worker came to its last step.
    server.wait_for_log(r"\d+ files are still to be announced", after=after)
    server.start()
    broker.thaw()
    assert hear_all(server, subscriber).keys() == FILENAMES


def test_what_the_broker_refuses_stays_owed_with_its_reason_and_holds_nothing_up(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    acl = "topic read iotsupport/#\ntopic write iotsupport/updates/assets\n"
    broker = Mosquitto(tmp_path, acl=acl).start()
    try:
        server = make_server(MQTT_URL=broker.url)
        server.start_connected(broker, *NEW)

        with Subscriber(broker.port) as subscriber, server.client() as client:
            for number, mac_address in enumerate(DEVICES):
                assert client.save_config(mac_address, b"{}").status_code == 200
                assert client.upload(f"{number}.bin", b"").status_code == 200
            explained = {(filename, "Not authorized") for filename in FILENAMES}
            poll(lambda: set(server.query(OWED)), lambda owed: owed == explained)
            subscriber.publish("iotsupport/updates/assets", b"that was all")
            heard = {filename_of(message) for message in subscriber.before(b"that was all")}

        assert heard == {f"{number}.bin" for number in range(len(DEVICES))}
    finally:
        broker.stop()
