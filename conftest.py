"""Keep the tests away from the checkout's own data and from any broker, and give them a database to run on.

All of it is set before Django reads its settings; those that are named in ``pyproject.toml`` would be read before this
file. With ``TEST_DATABASE=postgresql``, that is a PostgreSQL that is started for the run, and ended with it.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import shutil
import tempfile
import traceback
from typing import Any

import django
import pytest
from django.conf import settings
from django.contrib import admin

from iotsupport.tests.support import memory
from iotsupport.tests.support.databases import DATABASE, SERVER_VARIABLE
from iotsupport.tests.support.postgresql import KEPT_VARIABLE, PostgreSQL

if settings.configured:
    raise pytest.UsageError("Unset DJANGO_SETTINGS_MODULE: with it, settings are read before the tests have set them.")

# What is loaded from here on stays: selection.py looks for garbage again when all tests are read.
gc.disable()

os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="iotsupport-tests-")
atexit.register(shutil.rmtree, os.environ["DATA_DIR"], ignore_errors=True)
# Empty, so that .env does not set them either.
os.environ |= dict.fromkeys(
    [
        "ASSETS_DIR",
        "DATABASE_URL",
        "DEVICE_PASSWORD",
        "DEVICE_USERNAME",
        "ESP32_CONFIGS_DIR",
        "METRICS_TOKEN",
        "MQTT_URL",
    ],
    "",
)
os.environ["DJANGO_SETTINGS_MODULE"] = "iotsupport.settings"
# Each save waits for the disk, twice. What is about disks makes some of its own.
if memory.directory():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", memory.SHARED_MEMORY)

if DATABASE == "postgresql":
    # pytest-xdist's workers share the server of the process that started them.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        server = PostgreSQL()
        os.environ[KEPT_VARIABLE] = str(server.keep())
        server.start()
        atexit.register(server.close)
        os.environ[SERVER_VARIABLE] = server.url
    # Not made: each process of the run makes its own beside it, called test_….
    os.environ["DATABASE_URL"] = f"{os.environ[SERVER_VARIABLE]}/iotsupport"
else:
    os.environ.pop(SERVER_VARIABLE, None)

django.setup()
# Tests are made of what apps register, in whatever order they are read and run.
admin.autodiscover()

pytest_plugins = [
    "iotsupport.tests.support.covered",
    "iotsupport.tests.support.installations",
    "iotsupport.tests.support.selection",
]

# Each test client would look through some 800 static files; what needs them runs a server.
settings.WHITENOISE_USE_FINDERS = False
# The right one takes a fifth of a second on purpose, for each password that is tried.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Let each worker read the settings itself: with this in its environment, it would share our ``DATA_DIR``."""
    del os.environ["DJANGO_SETTINGS_MODULE"]


def format_last_frames(self: logging.Formatter, ei: Any) -> str:
    return "".join(traceback.format_exception(*ei, limit=-10)).rstrip("\n")


# A request is below a hundred frames of pytest and middleware: to write them takes longer than what the request does.
logging.Formatter.formatException = format_last_frames  # type: ignore[method-assign]
