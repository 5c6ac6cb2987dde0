"""Twenty devices, what is saved for them, and what they hear."""

from __future__ import annotations

import json
from collections import Counter

from iotsupport.tests.support.mosquitto import Received, Subscriber
from iotsupport.tests.support.server import Server
from iotsupport.tests.support.waiting import poll

DEVICES = [f"aa-bb-cc-dd-ee-{number:02x}" for number in range(20)]
FILENAMES = {f"{mac_address}.json" for mac_address in DEVICES}

OWED = "SELECT filename, last_error FROM notifications_debt WHERE owed_since IS NOT NULL"


def save_all(server: Server, times: int = 1, first: int = 0) -> None:
    """Save the configuration of every device, each time with another number."""
    with server.client() as client:
        for number in range(first, first + times):
            for mac_address in DEVICES:
                assert client.save_config(mac_address, b'{"number": %d}' % number).status_code == 200


def filename_of(message: Received) -> str:
    return str(json.loads(message.payload)["filename"])


def hear_all(server: Server, subscriber: Subscriber) -> Counter[str]:
    """Wait until every device has heard, and nothing is owed any more. Return how often each heard."""
    heard: Counter[str] = Counter()
    while heard.keys() != FILENAMES:
        heard[filename_of(subscriber.next())] += 1
    wait_until_announced(server)
    return heard


def heard_until_the_end(server: Server, subscriber: Subscriber) -> Counter[str]:
    """End the server, so that nothing more can come. Return how often each device heard since it was asked last."""
    server.stop()
    subscriber.publish("iotsupport/updates/configs", b"that was all")
    return Counter(map(filename_of, subscriber.before(b"that was all")))


def wait_until_announced(server: Server) -> None:
    poll(lambda: server.query(OWED), lambda owed: not owed)
