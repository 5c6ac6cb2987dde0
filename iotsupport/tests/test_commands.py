"""What all commands of ours have in common: starting is most of what they do, so they start with what they need."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import get_commands, load_command_class

import manage
from iotsupport import __version__
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.server import clean_environ
from iotsupport.tests.support.waiting import LIMIT

APPS = ["iotsupport", "devices", "assets", "notifications"]
COMMANDS = sorted((app, name) for name, app in get_commands().items() if app in APPS)


@pytest.mark.parametrize(("app", "name"), COMMANDS)
def test_they_check_the_installation_and_not_the_code(app: str, name: str) -> None:
    assert load_command_class(app, name).requires_system_checks == ["environment", "notifications"]


@pytest.mark.processes
def test_they_load_neither_the_api_nor_the_admin_of_an_app_nor_another_database_nor_schemas(tmp_path: Path) -> None:
    environ = clean_environ({"DATA_DIR": str(tmp_path / "data")})
    command = [sys.executable, "-X", "importtime", "manage.py", "import_configs", str(tmp_path)]

    done = subprocess.run(command, cwd=BASE_DIR, env=environ, capture_output=True, text=True, timeout=LIMIT)

    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert "iotsupport.management.importing" in imported, done.stderr
    libraries = {name.partition(".")[0] for name in imported}
    assert not libraries & {"jsonschema", "ninja", "psycopg", "pydantic", "pydantic_core"}
    assert not {f"{app}.admin" for app in ["devices", "devices.changes", "devices.types", "assets"]} & set(imported)


@pytest.mark.processes
def test_the_admin_that_they_do_without_is_checked_all_the_same(tmp_path: Path) -> None:
    code = (
        "import django; django.setup(); from django.contrib import admin; from django.core import checks;"
        "from devices.models import DeviceConfig; before = admin.site.is_registered(DeviceConfig);"
        "admin.autodiscover = lambda found=admin.autodiscover: (found(), spoil());"
        "spoil = lambda: setattr(admin.site.get_model_admin(DeviceConfig), 'list_display', 'all');"
        "print(before, [message.id for message in checks.run_checks(tags=['admin'])])"
    )
    environ = clean_environ({"DATA_DIR": str(tmp_path / "data"), "DJANGO_SETTINGS_MODULE": "iotsupport.settings"})

    done = subprocess.run([sys.executable, "-c", code], cwd=BASE_DIR, env=environ, capture_output=True, text=True)

    assert done.stdout == "False ['admin.E107']\n", done.stderr


def test_garbage_is_looked_for_in_what_they_make_and_not_in_what_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[bool] = []
    # What this process has made so far is the tests'.
    monkeypatch.setattr(gc, "freeze", lambda: loaded.append(apps.ready and not gc.isenabled()))
    monkeypatch.setattr(sys, "argv", ["manage.py", "help", "--commands"])

    manage.main()

    assert loaded == [True]
    assert gc.isenabled()
    assert "sync_mirror\n" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["version", "--version"])
def test_the_version_is_ours_and_alone(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["manage.py", word])

    manage.main()

    assert capsys.readouterr().out == f"{__version__}\n"


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())

    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "iotsupport.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", __version__)
