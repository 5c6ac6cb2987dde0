"""What is installed, and what its settings say: names of variables, never their values."""

from __future__ import annotations

import platform
import sqlite3
import ssl
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from django.conf import settings
from django.core import checks

import iotsupport
from iotsupport.checks import INSTALLATION
from iotsupport.state.findings import Finding, Level

# As people know them, and as they are installed.
PACKAGES = {"Django": "Django", "gunicorn": "gunicorn", "paho": "paho-mqtt", "psycopg": "psycopg"}


def look_at_settings() -> Iterator[Finding]:
    """What the system checks say of this process, and which variables were set for it."""
    found = checks.run_checks(tags=[*INSTALLATION, checks.Tags.security], include_deployment_checks=True)
    said = [each for each in found if not each.is_silenced()]
    for each in said:
        level = Level.WRONG if each.is_serious() else Level.LOOK
        yield Finding(str(each.id), level, str(each.msg), str(each.hint or ""))
    if not said:
        yield Finding("System checks", Level.FINE, "'manage.py check --deploy' finds nothing")
    names = ", ".join(sorted(settings.GIVEN_VARIABLES))
    yield Finding("Set for this server", Level.FACT, names or "nothing: all is as it comes")


def look_at_versions() -> Iterator[Finding]:
    """Versions, for who asks somebody for help."""
    if ours := getattr(iotsupport, "__version__", ""):
        yield Finding("IoT Support", Level.FACT, str(ours))
    yield Finding("Python", Level.FACT, f"{platform.python_version()} on {platform.system()} {platform.release()}")
    for name, package in PACKAGES.items():
        try:
            yield Finding(name, Level.FACT, version(package))
        except PackageNotFoundError:
            continue
    yield Finding("SQLite", Level.FACT, sqlite3.sqlite_version)
    yield Finding("OpenSSL", Level.FACT, ssl.OPENSSL_VERSION.removeprefix("OpenSSL "))
