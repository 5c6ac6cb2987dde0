"""System checks: variables, directories and files that cannot be right, each with an id and a hint."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.http.request import validate_host

from iotsupport import access
from iotsupport.database.sqlite import files_of
from iotsupport.environment import SQLITE
from iotsupport.monitoring import metrics_directory
from iotsupport.serving import credentials

# Tags of the checks that our commands run first: those of this installation. The others are for developers, and load
# every page and the API, which takes as long as a command itself. ``manage.py check`` and ``migrate`` run all of them.
INSTALLATION = ["environment", "notifications"]

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
    "HTTPS_ONLY": ("iotsupport.E061", "Set HTTPS_ONLY=true where people come over HTTPS, or leave it out."),
    "TRUSTED_PROXIES": (
        "iotsupport.E062",
        "Write TRUSTED_PROXIES=127.0.0.1 or 10.0.0.0/24, with where your proxies are.",
    ),
    "REMOTE_USER_HEADER": ("iotsupport.E063", "Write REMOTE_USER_HEADER=X-Remote-User, with the name your proxy uses."),
    "REMOTE_GROUPS_HEADER": (
        "iotsupport.E064",
        "Write REMOTE_GROUPS_HEADER=X-Remote-Groups. Until then, no header signs in.",
    ),
    "OIDC_ISSUER": ("iotsupport.E065", "Write OIDC_ISSUER=https://login.example.com with your provider's own name."),
    "SESSION_HOURS": ("iotsupport.E022", "Set SESSION_HOURS=336, or leave it out."),
    "SILENT_AFTER": ("iotsupport.E035", "Set SILENT_AFTER=24, or leave it out; 0 turns it off."),
    "HISTORY_DAYS": ("iotsupport.E041", "Set HISTORY_DAYS=365, or leave it out; 0 keeps all versions."),
    "HISTORY_KEEP": ("iotsupport.E042", "Set HISTORY_KEEP=10, or leave it out."),
    "TIME_ZONE": ("iotsupport.E040", "Set TIME_ZONE=Europe/Amsterdam, or leave it out for UTC."),
    "LOG_FORMAT": ("iotsupport.E077", "Set LOG_FORMAT=lines or LOG_FORMAT=json, or leave it out for lines."),
    "MQTT_PUBLISH_RATE": ("iotsupport.E014", "Set MQTT_PUBLISH_RATE=200, or leave it out."),
}

DIRECTORIES = {
    "DATA_DIR": "iotsupport.E010",
    "ESP32_CONFIGS_DIR": "iotsupport.E011",
    "ASSETS_DIR": "iotsupport.E012",
}

KEY_FILE_HINT = (
    "Give the file to the user that runs the server, with mode 0600; or remove it, so that a new one is made."
)
KEY_HINT = "Leave SECRET_KEY out: one is made and kept in DATA_DIR. Or set 50 random characters."
OWNER_HINT = "Give it to the user that runs the server: chown USER FILE. Commands, too, are run as that user."

METRICS_HINT = "Set METRICS_DIR to a directory in memory that the server's user can write, such as /run/iotsupport."

SOCKET_HINT = "Leave CHECKINS_SOCKET out, or name a file in a directory that the server's user can write."
# See unix(7): 108 bytes, the last of which ends it.
SOCKET_PATH_BYTES = 107

SECRET_KEY_MIN_LENGTH = 32

DEVICES_HINT = (
    "Set both DEVICE_USERNAME and DEVICE_PASSWORD: a name without a colon, and one password, or two with a comma"
    " between them. Or set neither: then devices download without signing in."
)
READING_HINT = "Set METRICS_TOKEN to a long random one, such as 'openssl rand -hex 32' prints; or leave it out."
# Nobody is locked out for guessing these: a device that was given a wrong one asks all day.
GUESSED_LENGTH = 12


def check_environment(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Every variable has a value of its kind."""
    return [
        checks.Error(settings.ENVIRONMENT_PROBLEMS[name], hint=hint, id=id)
        for name, (id, hint) in VARIABLES.items()
        if name in settings.ENVIRONMENT_PROBLEMS
    ]


def check_dotenv(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Every line of ``.env`` is taken, and as it was meant."""
    return [
        checks.Warning(trouble.sentence, hint=trouble.hint, id="iotsupport.W031")
        if trouble.is_taken
        else checks.Error(trouble.sentence, hint=trouble.hint, id="iotsupport.E030")
        for trouble in settings.DOTENV_TROUBLES
    ]


def check_directories(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Every directory exists and can be written by this process."""
    problems = {name: _directory_problem(name, Path(getattr(settings, name))) for name in DIRECTORIES}
    hint = "Create it and give it to the user that runs the server, or name another directory."
    return [checks.Error(problem, hint=hint, id=DIRECTORIES[name]) for name, problem in problems.items() if problem]


def check_files(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """What this installation keeps, and no variable of its own names, can be read and written by this process."""
    data_dir = Path(settings.DATA_DIR)
    if _directory_problem("DATA_DIR", data_dir):
        return []  # which check_directories says
    database, locks = _database_file(), data_dir / "locks"
    if database and not os.path.isdir(database.parent):
        message = f"'{database.parent}', where DATABASE_URL has the database, is not a directory."
        hint = "Create it and give it to the user that runs the server, or correct DATABASE_URL."
        return [checks.Error(message, hint=hint, id="iotsupport.E034")]
    files = [Path(settings.BLOBS_DIR), locks, *_inside(locks)]
    if database:
        # SQLite puts files beside its own.
        files = [database.parent, *map(Path, files_of(str(database))), *files]
    problems = [problem for file in files if file != data_dir and (problem := access.problem(file))]
    return [checks.Error(problem, hint=OWNER_HINT, id="iotsupport.E033") for problem in problems]


def check_metrics_directory(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """The workers of a server can add up their metrics. A warning: everything else works without."""
    directory = settings.METRICS_DIR
    if "METRICS_DIR" in settings.ENVIRONMENT_PROBLEMS:
        message = settings.ENVIRONMENT_PROBLEMS["METRICS_DIR"]
        return [checks.Warning(message, hint=METRICS_HINT, id="iotsupport.W020")]
    if directory is None:
        message = "No place for metrics is found outside the disk of DATA_DIR: /metrics leaves out what workers count."
        return [checks.Warning(message, hint=METRICS_HINT, id="iotsupport.W021")]
    problem = metrics_directory.problem(directory)
    if problem is None:
        return []
    message = f"METRICS_DIR {directory} cannot be written ({problem}): metrics are off."
    return [checks.Warning(message, hint=METRICS_HINT, id="iotsupport.W020")]


def check_checkins_socket(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """nginx can tell of downloads. A warning: everything else works without."""
    path = Path(settings.CHECKINS_SOCKET)
    if _directory_problem("DATA_DIR", Path(settings.DATA_DIR)):
        return []  # which check_directories says
    problem = settings.ENVIRONMENT_PROBLEMS.get("CHECKINS_SOCKET") or _socket_problem(path)
    if problem is None:
        return []
    message = f"{problem} What boards download from nginx is not noted."
    return [checks.Warning(message, hint=SOCKET_HINT, id="iotsupport.W036")]


def check_secret_key(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Sessions cannot be forged by guessing the key, and survive a restart."""
    if problem := settings.ENVIRONMENT_PROBLEMS.get("SECRET_KEY"):
        if _directory_problem("DATA_DIR", Path(settings.DATA_DIR)):
            return []  # which check_directories says
        hint = KEY_HINT if problem.startswith("SECRET_KEY") else KEY_FILE_HINT
        return [checks.Error(problem, hint=hint, id="iotsupport.E032")]
    if len(settings.SECRET_KEY) >= SECRET_KEY_MIN_LENGTH:
        return []
    message = f"SECRET_KEY is shorter than {SECRET_KEY_MIN_LENGTH} characters, so it can be guessed."
    return [checks.Warning(message, hint=KEY_HINT, id="iotsupport.W013")]


def check_credentials(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """What devices and Prometheus are to say can be said, and not be guessed. What cannot be right lets nobody in."""
    messages: list[checks.CheckMessage] = []
    if problem := credentials.problem_of_devices():
        message = f"{problem} No device can download."
        messages.append(checks.Error(message, hint=DEVICES_HINT, id="iotsupport.E080"))
    elif any(len(each) < GUESSED_LENGTH for each in credentials.passwords_of_devices() or []):
        message = f"DEVICE_PASSWORD holds a password of less than {GUESSED_LENGTH} characters, so it can be guessed."
        hint = "Give devices a long one, such as 'openssl rand -hex 16' prints, beside the old one: docs/devices.md."
        messages.append(checks.Warning(message, hint=hint, id="iotsupport.W081"))
    if problem := credentials.problem_of_metrics():
        message = f"{problem} Nobody can read /metrics."
        messages.append(checks.Error(message, hint=READING_HINT, id="iotsupport.E082"))
    elif 0 < len(settings.METRICS_TOKEN.strip()) < GUESSED_LENGTH:
        message = f"METRICS_TOKEN is shorter than {GUESSED_LENGTH} characters, so it can be guessed."
        messages.append(checks.Warning(message, hint=READING_HINT, id="iotsupport.W083"))
    return messages


def check_https(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Where the settings say that people come over HTTPS, they can, and trust nothing that comes without."""
    origins = {urlsplit(origin) for origin in settings.CSRF_TRUSTED_ORIGINS}
    if not any(origin.scheme == "https" for origin in origins):
        return []
    messages: list[checks.CheckMessage] = []
    unknown = sorted(origin.geturl() for origin in origins if not _is_allowed(origin.hostname or ""))
    if unknown:
        message = f"CSRF_TRUSTED_ORIGINS names {', '.join(unknown)}, but ALLOWED_HOSTS does not have that name."
        hint = "Add it to ALLOWED_HOSTS: without, everything under that name is refused."
        messages.append(checks.Warning(message, hint=hint, id="iotsupport.W023"))
    plain = sorted(origin.geturl() for origin in origins if origin.scheme == "http")
    if plain:
        message = f"CSRF_TRUSTED_ORIGINS trusts forms that come without HTTPS, too: {', '.join(plain)}."
        hint = "Leave it out: whoever reads or changes what passes there can send forms as your administrators."
        messages.append(checks.Warning(message, hint=hint, id="iotsupport.W024"))
    return messages


def check_plain_http(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """For ``check --deploy``: nobody gets past the front server, and passwords do not travel readable."""
    if settings.HTTPS_ONLY:
        return []
    has_https = any(origin.startswith("https://") for origin in settings.CSRF_TRUSTED_ORIGINS)
    if has_https and _is_local(settings.HOST):
        message = "People come over HTTPS, but HTTPS_ONLY is false: who forgets the s in https sends what can be read."
        hint = "Set HTTPS_ONLY=true. Devices keep plain HTTP for what they fetch."
        return [checks.Warning(message, hint=hint, id="iotsupport.W060")]
    if _is_local(settings.HOST):
        return []
    if has_https:
        message = f"People come over HTTPS, but HOST={settings.HOST} lets everybody past the front server, without it."
        hint = "Set HTTPS_ONLY=true, which leaves plain HTTP to devices; or HOST to where the front server alone comes."
        return [checks.Warning(message, hint=hint, id="iotsupport.W025")]
    message = f"With HOST={settings.HOST}, people sign in over plain HTTP: who reads along has passwords and tokens."
    hint = "Put nginx in front (docs/nginx.md), name its address in CSRF_TRUSTED_ORIGINS, and set HOST=127.0.0.1."
    return [checks.Warning(message, hint=hint, id="iotsupport.W026")]


def _is_allowed(host: str) -> bool:
    # "*.example.com" stands for what ".example.com" does, and of IPv6 the brackets are gone.
    host = f"[{host}]" if ":" in host else host.removeprefix("*.")
    return validate_host(host, [name.lower() for name in settings.ALLOWED_HOSTS])


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _directory_problem(name: str, path: Path) -> str | None:
    if name in settings.ENVIRONMENT_PROBLEMS:
        return str(settings.ENVIRONMENT_PROBLEMS[name])
    missing = f"'{path}' is not a directory."
    if os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK):
        return None
    return f"{name} {access.problem(path) or missing}"


def _socket_problem(path: Path) -> str | None:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        return f"CHECKINS_SOCKET '{path}' is longer than {SOCKET_PATH_BYTES} bytes, which no socket's path may be."
    if path.is_socket():
        return None
    if os.path.lexists(path):
        return f"CHECKINS_SOCKET '{path}' is there, and no socket."
    return _directory_problem("CHECKINS_SOCKET", path.parent)


def _database_file() -> Path | None:
    database = settings.DATABASES["default"]
    is_file = database["ENGINE"] in {SQLITE, "iotsupport.database.sqlite"} and str(database["NAME"]) != ":memory:"
    return Path(database["NAME"]).absolute() if is_file else None


def _inside(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:  # missing, or said of the directory itself
        return []
