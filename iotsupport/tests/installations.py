"""Fixtures of all tests that have processes of an installation; the root ``conftest.py`` names this as a plugin."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from iotsupport.tests.databases import Database, make_database, open_database
from iotsupport.tests.server import Installation


@pytest.fixture(scope="session")
def new_database() -> Callable[[Path], Database]:
    """Make an empty database for an installation, from the path of its data directory."""
    return make_database


@pytest.fixture(scope="session")
def template(new_database: Callable[[Path], Database], tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation with an administrator, to be copied.

    Made once for all of pytest-xdist's workers: migrating is what takes the time.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    data_dir, facts = shared / "template", shared / "template.json"
    with (shared / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not facts.exists():
            made = Installation.make(data_dir, new_database(data_dir))
            facts.write_text(json.dumps([made.database.url, made.token]))
    url, token = json.loads(facts.read_text())
    return Installation(data_dir, open_database(url), token)
