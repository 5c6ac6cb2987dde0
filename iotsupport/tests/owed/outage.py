"""The broker is away for a while: what is saved meanwhile is announced soon afterwards, and not again and again."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from iotsupport.tests.owed.fleet import FILENAMES, hear_all, heard_until_the_end, save_all
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.server import NEW, Server
from iotsupport.tests.support.wiretap import Missed

# All of what an outage left owed is out before so many seconds after the broker's return have passed.
BOUND_SECONDS = 5

# A machine that is busy with something else may be late once. What waits for longer than it should is late each time.
TRIES = 3

# More than the messages that a file may have, so that it shows if each worker sends one of its own.
WORKERS = 3


class Outage(NamedTuple):
    seconds: float
    heard: Counter[str]
    """How often each file was announced."""
    seconds_to_last: int
    """From the broker's return to the last announcement, rounded down or up."""
    attempts: Counter[int]
    """How often each worker tried to connect, while it lasted and after the saves."""

    def assert_announced(self) -> None:
        """All of it, and not again and again."""
        assert self.heard.keys() == FILENAMES, self
        assert max(self.heard.values()) <= 2, self

    @property
    def is_made_good_soon(self) -> bool:
        """Whether it was announced in time, and every worker had tried often enough for that."""
        return (
            self.seconds_to_last < BOUND_SECONDS
            and len(self.attempts) == WORKERS
            and min(self.attempts.values()) >= self.seconds / BOUND_SECONDS
        )


def assert_that_an_outage_is_made_good(
    server: Server, broker: Mosquitto, subscriber: Subscriber, seconds: float
) -> None:
    outages: list[Outage] = []
    while not outages or not outages[-1].is_made_good_soon:
        assert len(outages) < TRIES, outages
        outages.append(go_through_an_outage(server, broker, subscriber, seconds))
        outages[-1].assert_announced()


def go_through_an_outage(server: Server, broker: Mosquitto, subscriber: Subscriber, seconds: float) -> Outage:
    """Save each of 20 files three times without a broker, which comes back so many seconds later."""
    server.environ["WEB_CONCURRENCY"] = str(WORKERS)
    server.start_connected(broker, *NEW)
    broker.stop()
    save_all(server, times=3)
    with Missed(broker.port) as missed:
        attempts = missed.attempts_until(time.monotonic() + seconds)
    after = len(broker.lines)

    broker.start()

    heard = hear_all(server, subscriber) + heard_until_the_end(server, subscriber)
    return Outage(seconds, heard, _seconds_from_return_to_last(broker, after), attempts)


def _seconds_from_return_to_last(broker: Mosquitto, after: int) -> int:
    # By the broker's own clock, which has whole seconds.
    [began] = broker.wait_for_log("mosquitto version .* running", after=after)
    published = broker.wait_for_log("Received PUBLISH from iotsupport-", after=after)
    return int(published[-1].split(":")[0]) - int(began.split(":")[0])
