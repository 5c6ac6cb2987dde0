"""A broker for all tests of a module that imports it, and a server; the broker is as every test leaves it.

In place of one for each test. A module that is about several workers says how many: ``WORKERS = 4``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.server import NEW, Installation, Server

__all__ = ["broker", "running_server"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def running_server(
    request: pytest.FixtureRequest,
    broker: Mosquitto,
    template: Installation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Connected with each of its workers."""
    workers = str(getattr(request.module, "WORKERS", 1))
    server = Server(template, tmp_path_factory.mktemp("server"), MQTT_URL=broker.url, WEB_CONCURRENCY=workers)
    server.start_connected(broker, *NEW)
    yield server
    server.remove()
