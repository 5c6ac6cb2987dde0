"""An nginx for all tests of a module that imports it, in front of the module's own ``server``.

A module that is about how many processes nginx has says so: ``NGINX_WORKERS = "1"``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iotsupport.tests.support.nginx import Nginx, directory_for_nginx
from iotsupport.tests.support.server import Server

__all__ = ["asking", "directory", "nginx"]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Where server and nginx keep their files: nginx's user may enter it."""
    with directory_for_nginx() as path:
        yield path


@pytest.fixture(scope="module")
def nginx(request: pytest.FixtureRequest, server: Server, directory: Path) -> Iterator[Nginx]:
    workers = getattr(request.module, "NGINX_WORKERS", "auto")
    nginx = Nginx(directory / "nginx", server, workers=workers).start()
    yield nginx
    nginx.stop()


@pytest.fixture(scope="module")
def asking(server: Server, directory: Path) -> Iterator[Nginx]:
    """nginx without the two lines, so that it asks the application."""
    nginx = Nginx(directory / "nginx-asking", server, is_asking=True).start()
    yield nginx
    nginx.stop()
