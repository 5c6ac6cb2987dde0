"""An outage that is long enough for a client's usual pauses to grow to minutes. In a file of its own: it only waits."""

from __future__ import annotations

from iotsupport.tests.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.owed.outage import assert_that_an_outage_is_made_good
from iotsupport.tests.server import Server


def test_60_saves_of_20_files_in_an_outage_of_90_seconds_are_announced_in_less_than_5(
    server: Server, broker: Mosquitto, subscriber: Subscriber
) -> None:
    assert_that_an_outage_is_made_good(server, broker, subscriber, seconds=90)
