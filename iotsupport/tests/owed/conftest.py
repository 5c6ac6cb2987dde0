from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from iotsupport.tests.support import chaos
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.server import Server
from iotsupport.tests.support.wiretap import Wiretap


@pytest.fixture
def server(make_server: Callable[..., Server], broker: Mosquitto) -> Server:
    """Not started yet; two workers, which may announce the same."""
    return make_server(MQTT_URL=broker.url, WEB_CONCURRENCY="2")


@pytest.fixture
def subscriber(broker: Mosquitto) -> Iterator[Subscriber]:
    """What is sent while it is away, waits for it: also when the broker is stopped and started."""
    with Subscriber(broker.port) as subscriber:
        yield subscriber


@pytest.fixture
def tap(server: Server, broker: Mosquitto) -> Iterator[Wiretap]:
    """Between the two."""
    with chaos.tap(server, broker) as tap:
        yield tap
