"""The broker is away for a while: what is saved meanwhile is announced when it is back, whatever else dies."""

from __future__ import annotations

import signal

from iotsupport.tests.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.owed.fleet import FILENAMES, hear_all, heard_until_the_end, save_all, wait_until_settled
from iotsupport.tests.owed.outage import BOUND_SECONDS, WORKERS, go_through_an_outage
from iotsupport.tests.server import Server


def test_a_server_that_starts_without_its_broker_announces_all_20_saves_when_it_comes(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    broker.stop()
    server.start()
    save_all(server)

    broker.start()

    assert hear_all(subscriber).keys() == FILENAMES
    wait_until_settled(server)


def test_60_saves_of_20_files_in_an_outage_of_5_seconds_are_announced_in_less_than_5(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    outage = go_through_an_outage(server, broker, subscriber, seconds=5)

    assert outage.heard.keys() == FILENAMES
    assert max(outage.heard.values()) <= 2
    assert outage.seconds_to_last < BOUND_SECONDS
    assert len(outage.attempts) == WORKERS
    assert min(outage.attempts.values()) >= 5 / BOUND_SECONDS


def test_20_saves_of_an_outage_are_announced_after_every_process_was_killed(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    server.start()
    server.wait_until_connected(broker)
    broker.stop()
    save_all(server)
    server.kill()

    server.start()
    broker.start()

    assert hear_all(subscriber).keys() == FILENAMES
    wait_until_settled(server)


def test_a_server_that_owes_nothing_sends_nothing_when_it_is_started_again(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    server.start()
    server.wait_until_connected(broker)
    save_all(server)
    hear_all(subscriber)
    wait_until_settled(server)
    server.stop()
    after = len(broker.lines)

    server.start()
    server.wait_until_connected(broker, after=after)
    server.signal(signal.SIGHUP)
    server.wait_for_log("Worker exiting", count=4)

    assert not heard_until_the_end(server, subscriber)


def test_a_server_that_owes_nothing_sends_nothing_when_the_broker_is_started_again(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    server.start()
    server.wait_until_connected(broker)
    save_all(server)
    hear_all(subscriber)
    wait_until_settled(server)
    after = len(broker.lines)

    broker.restart()
    server.wait_until_connected(broker, after=after)

    assert not heard_until_the_end(server, subscriber)
