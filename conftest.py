"""Keep the tests away from the checkout's own data and from any broker, and give them a database to run on.

All of it is set before Django reads its settings; those that are named in ``pyproject.toml`` would be read before this
file. ``TEST_DATABASE=postgresql`` runs what uses a database on a PostgreSQL that is started for it, and ended with it.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from pathlib import Path

import django
import pytest
from django.conf import settings

from iotsupport.tests.databases import SERVER_VARIABLE
from iotsupport.tests.postgresql import PostgreSQL

os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="iotsupport-tests-")
# Empty, so that .env does not set them either.
os.environ |= dict.fromkeys(["ASSETS_DIR", "DATABASE_URL", "ESP32_CONFIGS_DIR", "MQTT_URL"], "")
os.environ["DJANGO_SETTINGS_MODULE"] = "iotsupport.settings"

DATABASE = os.environ.get("TEST_DATABASE") or "sqlite"
if DATABASE not in {"sqlite", "postgresql"}:
    raise pytest.UsageError(f"TEST_DATABASE is {DATABASE!r}, but it must be sqlite or postgresql.")

if DATABASE == "postgresql":
    # pytest-xdist's workers share the server of the process that started them.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        server = PostgreSQL().start()
        atexit.register(server.close)
        os.environ[SERVER_VARIABLE] = server.url
    # Not made: each process of the run makes its own beside it, called test_….
    os.environ["DATABASE_URL"] = f"{os.environ[SERVER_VARIABLE]}/iotsupport"
else:
    os.environ.pop(SERVER_VARIABLE, None)

django.setup()

pytest_plugins = ["iotsupport.tests.installations"]

# Each test client would look through some 800 static files; what needs them runs a server.
settings.WHITENOISE_USE_FINDERS = False
# The right one takes a fifth of a second on purpose, for each password that is tried.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Threads of one process share a database file as processes do; an in-memory database locks whole tables for them.
if DATABASE == "sqlite":
    settings.DATABASES["default"]["TEST"]["NAME"] = f"{os.environ['DATA_DIR']}/test.sqlite3"

# Whoever asks for one of these, or is marked with django_db, uses a database.
DATABASE_FIXTURES = {"db", "transactional_db", "new_database"}


# They come first: at the end, one of them would go on alone.
TESTS = Path(__file__).parent / "iotsupport" / "tests"
LONG_TESTS = [TESTS / "test_crash.py", TESTS / "owed", TESTS / "test_concurrency.py", TESTS / "test_checks.py"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the other database and, on PostgreSQL, what uses none: the run on SQLite has it."""
    here = [item for item in items if _belongs_here(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(here)])
    items[:] = sorted(here, key=lambda item: not any(item.path.is_relative_to(path) for path in LONG_TESTS))


def _belongs_here(item: pytest.Item) -> bool:
    about = {marker.name for marker in item.iter_markers()}
    if about & {"sqlite", "postgresql"}:
        return DATABASE in about
    is_using_one = "django_db" in about or DATABASE_FIXTURES & set(getattr(item, "fixturenames", []))
    return DATABASE == "sqlite" or bool(is_using_one)
