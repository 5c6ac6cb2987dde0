"""System checks of what is around this installation: room, disks, the clock, who can read what; and the database."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import connection
from django.utils import timezone

from iotsupport.database import is_shared
from iotsupport.errors import DATABASE_ERRORS, explain_database
from iotsupport.state import clock, directories
from iotsupport.state.file_systems import file_system_of, room_at
from iotsupport.state.findings import Level

# Of their own: our commands do not look at the database before they begin.
DATABASE_TAG = "database-state"

PRIVATE_HINT = "Let the server's user alone read it: chmod 600 FILE. If others may have, remove it: a new one is made."
OPEN_HINT = "Let the server's user alone write there: chmod go-w DIRECTORY."
DATABASE_HINT = "See that it runs and that DATABASE_URL names it."
MIGRATE_HINT = "Run 'manage.py migrate', then restart the server."


def check_room(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """There is room for changes on each disk. A warning: downloads go on without."""
    messages: list[checks.CheckMessage] = []
    for mount, path in _disks().items():
        room = room_at(path)
        if room.is_low:
            where = f"the disk of '{path}' (mounted at {mount})" if mount else f"the disk of '{path}'"
            message = f"There is {room} on {where}."
            messages.append(checks.Warning(message, hint=directories.FREE_SOME, id="iotsupport.W070"))
    return messages


def check_file_system(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """SQLite has a local disk."""
    directory = directories.database_directory()
    if directory is None or not (file_system := file_system_of(directory)).is_of_network:
        return []
    message = f"The SQLite database lies in '{directory}', which is reached over the network ({file_system.kind})."
    return [checks.Warning(message, hint=directories.MOVE_DATABASE, id="iotsupport.W071")]


def check_clock(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """It is not earlier than when this program was put here."""
    now, installed_at = timezone.now(), clock.installed_at()
    if now >= installed_at:
        return []
    message = f"This machine's clock says {now:%Y-%m-%d}, but this program was installed on {installed_at:%Y-%m-%d}."
    return [checks.Warning(message, hint=clock.SYNCHRONIZE, id="iotsupport.W072")]


def check_private(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """No other user of this machine can read the secret key, or put files among ours."""
    messages: list[checks.CheckMessage] = []
    key, data_dir = Path(settings.DATA_DIR, "secret_key"), Path(settings.DATA_DIR)
    if _mode(key) & 0o077:
        message = f"'{key}', with which sessions are signed, can be read by other users of this machine."
        messages.append(checks.Warning(message, hint=PRIVATE_HINT, id="iotsupport.W073"))
    if _mode(data_dir) & stat.S_IWOTH:
        message = f"Every user of this machine can put files into DATA_DIR '{data_dir}', and take ours away."
        messages.append(checks.Warning(message, hint=OPEN_HINT, id="iotsupport.W074"))
    return messages


def check_database(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """For ``check --deploy``: the database answers, and its tables are those of this version."""
    from iotsupport.state import database  # which no command needs that does not ask this

    if not is_shared(connection) and not Path(str(connection.settings_dict["NAME"])).is_file():
        return []  # nothing was installed here yet
    try:
        found = [each for each in database.migrations() if each.level == Level.WRONG]
    except DATABASE_ERRORS as error:
        message = explain_database(error) or f"The database does not answer: {error}"
        return [checks.Error(message, hint=DATABASE_HINT, id="iotsupport.E075")]
    return [checks.Warning(f"Migrations: {each.says}", hint=each.advice, id="iotsupport.W076") for each in found]


def _disks() -> dict[str, Path]:
    """Where the disks are mounted that hold what changes, and one directory on each."""
    disks: dict[str, Path] = {}
    for path in _directories():
        disks.setdefault(file_system_of(path).mount, path)
    return disks


def _directories() -> Iterator[Path]:
    paths = [settings.DATA_DIR, settings.ESP32_CONFIGS_DIR, settings.ASSETS_DIR, directories.database_directory()]
    yield from (Path(path) for path in paths if path is not None and Path(path).is_dir())


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0
