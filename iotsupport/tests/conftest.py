from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iotsupport.tests.support.first_version import updated  # noqa: F401
from iotsupport.tests.support.fixtures import *  # noqa: F403
from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.server import Installation, Server


@pytest.fixture
def make_server(template: Installation, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Make a server that is not started yet, from the variables of its environment."""
    servers: list[Server] = []

    def make(data_dir: Path | None = None, **environ: str) -> Server:
        servers.append(Server(template, data_dir or tmp_path / f"server-{len(servers)}", **environ))
        return servers[-1]

    yield make
    for server in servers:
        server.remove()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path).start()
    yield broker
    broker.stop()
