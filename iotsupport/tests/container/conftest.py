"""Of ``make container-test`` alone: these build an image, which takes minutes and programs that no other test needs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iotsupport.settings import BASE_DIR
from iotsupport.tests.container.engine import Container, Engine, make_base
from iotsupport.tests.support.ports import free_port

if not os.environ.get("CONTAINER_TEST"):
    collect_ignore_glob = ["test_*.py"]

IMAGE = "localhost/iotsupport:test"
VERSION = "1.2.3"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    engine = Engine(Path(tempfile.mkdtemp(prefix="iotsupport-container-", dir="/var/tmp")))  # noqa: S108
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def base_name() -> str:
    """The name that the Dockerfile builds on."""
    lines = (BASE_DIR / "deploy" / "Dockerfile").read_text().splitlines()
    [name] = [line.partition("=")[2] for line in lines if line.startswith("ARG PYTHON=")]
    return name


@pytest.fixture(scope="session")
def image(engine: Engine, base_name: str) -> str:
    """Built as a stranger builds it. ``CONTAINER_BASE`` names a file that keeps its base for the next run."""
    kept = os.environ.get("CONTAINER_BASE")
    base = Path(kept) if kept else engine.directory / "base.tar"
    if not base.exists():
        make_base(base)
    engine.import_image(base, base_name)
    engine.build(IMAGE, f"--build-arg=VERSION={VERSION}")
    return IMAGE


@pytest.fixture
def make_container(engine: Engine, image: str) -> Iterator[Callable[..., Container]]:
    """Make a container that is not started yet, with a volume of its own or the one that is named."""
    made: list[Container] = []

    def make(volume: str = "", **options: Any) -> Container:
        port = free_port()
        name = f"iot-{port}"
        made.append(Container(engine, image, name, port, volume or name, **options))
        return made[-1]

    yield make
    for container in made:
        engine.podman("rm", "--force", "--time=0", "--volumes", container.name, check=False)
        engine.podman("volume", "rm", "--force", container.volume, check=False)
