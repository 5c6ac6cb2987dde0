"""The directories: there, of this user, on which disk, and how much room is left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db import connection

from iotsupport import access
from iotsupport.database import is_shared
from iotsupport.state.file_systems import FileSystem, Room, file_system_of, room_at
from iotsupport.state.findings import Finding, Level

MAKE_IT = "Create it and give it to the user that runs the server, or name another directory."
PUT_BACK = "Put it back, from a backup if need be: without it, no earlier version of an asset can be restored."
GIVE_IT = "Give it to the user that runs the server: chown -R USER DIRECTORY."
COLLECT = "Run 'manage.py collectstatic', then restart the server: until then, it looks for each of these files."
MOVE_DATABASE = "Move the database to a local disk: its locks do not work on this one, and it can be damaged."
REMOUNT = "Mount it for writing. A disk that was found damaged is mounted so, too: see the system's log."
FREE_SOME = "Free some room there, or move the directory to a larger disk: a full one stops changes, never downloads."


def look() -> Iterator[Finding]:
    """Each directory that the settings name."""
    yield _judge("DATA_DIR", Path(settings.DATA_DIR))
    yield _judge("Configurations", Path(settings.ESP32_CONFIGS_DIR))
    yield _judge("Assets", Path(settings.ASSETS_DIR))
    yield _judge("Bytes of asset versions", Path(settings.BLOBS_DIR), PUT_BACK)
    if (database := database_directory()) and database != Path(settings.DATA_DIR):
        yield _judge("Database", database)
    static = Path(settings.STATIC_ROOT)
    if (static / "admin").is_dir():
        yield Finding("Static files", Level.FINE, f"{static}")
    else:
        yield Finding("Static files", Level.LOOK, f"{static} holds none.", COLLECT)
    if settings.METRICS_DIR is None:
        advice = "Set METRICS_DIR to a directory in memory that the server's user can write, such as /run/iotsupport."
        yield Finding("Metrics", Level.LOOK, "There is no place for them outside the disk of DATA_DIR.", advice)
    else:
        yield _judge("Metrics", Path(settings.METRICS_DIR))


def database_directory() -> Path | None:
    """Where an SQLite database lies; None for any other."""
    name = str(settings.DATABASES["default"].get("NAME", ""))
    is_file = connection.vendor == "sqlite" and name != ":memory:" and not name.startswith("file:")
    return Path(name).absolute().parent if is_file else None


def _judge(name: str, path: Path, advice: str = MAKE_IT) -> Finding:
    """``advice`` is for where it is not there."""
    if not os.path.isdir(path):
        return Finding(name, Level.WRONG, f"{path} is not there, or no directory.", advice)
    file_system = file_system_of(path)
    if (problem := access.problem(path)) and not room_at(path).is_read_only:
        return Finding(name, Level.WRONG, problem, GIVE_IT)
    room = room_at(path)
    says = f"{path}, {room}{_on(file_system)}"
    if room.is_read_only:
        return Finding(name, Level.WRONG, f"{says}, which is mounted for reading alone", REMOUNT)
    if (
        file_system.is_of_network
        and not is_shared(connection)
        and path in {Path(settings.DATA_DIR), database_directory()}
    ):
        return Finding(name, Level.WRONG, f"{says}, which is reached over the network", MOVE_DATABASE)
    return Finding(name, _level_of(room, file_system), says, FREE_SOME if _is_short(room, file_system) else "")


def _level_of(room: Room, file_system: FileSystem) -> Level:
    if not _is_short(room, file_system):
        return Level.FINE
    return Level.WRONG if room.is_scarce else Level.LOOK


def _is_short(room: Room, file_system: FileSystem) -> bool:
    # In memory lie metrics, which need little.
    return room.is_scarce if file_system.is_of_memory else room.is_low


def _on(file_system: FileSystem) -> str:
    if not file_system.kind:
        return ""
    return f" on {file_system.mount} ({file_system.kind})"
