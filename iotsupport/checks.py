"""Values of the environment that cannot be right, each with an id and a hint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks

from iotsupport import metrics_directory

# Variable to id and hint. The sentences on what is wrong come from reading the environment.
VARIABLES = {
    "DEBUG": ("iotsupport.E001", "Set DEBUG=false, or leave it out."),
    "ALLOWED_HOSTS": ("iotsupport.E002", "Write ALLOWED_HOSTS=iot.example.com,192.168.1.10 with your names."),
    "CSRF_TRUSTED_ORIGINS": (
        "iotsupport.E003",
        "Write CSRF_TRUSTED_ORIGINS=https://iot.example.com with your address.",
    ),
    "DATABASE_URL": ("iotsupport.E004", "Leave DATABASE_URL out for SQLite in DATA_DIR, or correct it."),
    "CONFIG_MAX_BYTES": ("iotsupport.E005", "Set CONFIG_MAX_BYTES=65536, or leave it out."),
    "ASSET_MAX_BYTES": ("iotsupport.E006", "Set ASSET_MAX_BYTES=67108864, or leave it out."),
    "HOST": ("iotsupport.E007", "Set HOST=127.0.0.1 for this machine alone, or HOST=0.0.0.0 for the network."),
    "PORT": ("iotsupport.E008", "Set PORT=8000, or leave it out."),
    "WEB_CONCURRENCY": ("iotsupport.E009", "Set WEB_CONCURRENCY=2, or leave it out."),
    "MQTT_PUBLISH_RATE": ("iotsupport.E014", "Set MQTT_PUBLISH_RATE=200, or leave it out."),
}

DIRECTORIES = {
    "DATA_DIR": "iotsupport.E010",
    "ESP32_CONFIGS_DIR": "iotsupport.E011",
    "ASSETS_DIR": "iotsupport.E012",
}

METRICS_HINT = "Set METRICS_DIR to a directory in memory that the server's user can write, such as /run/iotsupport."

SECRET_KEY_MIN_LENGTH = 32


def check_environment(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Every variable has a value of its kind."""
    return [
        checks.Error(settings.ENVIRONMENT_PROBLEMS[name], hint=hint, id=id)
        for name, (id, hint) in VARIABLES.items()
        if name in settings.ENVIRONMENT_PROBLEMS
    ]


def check_directories(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Every directory exists and can be written by this process."""
    problems = {name: _directory_problem(name, Path(getattr(settings, name))) for name in DIRECTORIES}
    hint = "Create it and give it to the user that runs the server, or name another directory."
    return [checks.Error(problem, hint=hint, id=DIRECTORIES[name]) for name, problem in problems.items() if problem]


def check_metrics_directory(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """The workers of a server can add up their metrics. A warning: everything else works without."""
    directory = settings.METRICS_DIR
    if directory is None:
        message = "No place for metrics is found outside the disk of DATA_DIR: /metrics leaves out what workers count."
        return [checks.Warning(message, hint=METRICS_HINT, id="iotsupport.W021")]
    problem = metrics_directory.problem(directory)
    if problem is None:
        return []
    message = f"METRICS_DIR {directory} cannot be written ({problem}): metrics are off."
    return [checks.Warning(message, hint=METRICS_HINT, id="iotsupport.W020")]


def check_secret_key(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Sessions cannot be forged by guessing the key."""
    if len(settings.SECRET_KEY) >= SECRET_KEY_MIN_LENGTH:
        return []
    message = f"SECRET_KEY is shorter than {SECRET_KEY_MIN_LENGTH} characters, so it can be guessed."
    hint = "Leave SECRET_KEY out: one is made and kept in DATA_DIR. Or set 50 random characters."
    return [checks.Warning(message, hint=hint, id="iotsupport.W013")]


def _directory_problem(name: str, path: Path) -> str | None:
    if name in settings.ENVIRONMENT_PROBLEMS:
        return str(settings.ENVIRONMENT_PROBLEMS[name])
    if not path.is_dir():
        return f"{name} '{path}' is not a directory."
    if not os.access(path, os.W_OK | os.X_OK):
        return f"{name} '{path}' cannot be written."
    return None
