"""A broker for all tests of a module that imports it, in place of one for each; it is as every test leaves it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iotsupport.tests.support.mosquitto import Mosquitto

__all__ = ["broker"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    yield broker
    broker.stop()
