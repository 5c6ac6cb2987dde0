"""The database: which, how large, whether it answers in time and is migrated; and the files that mirror it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, cast

from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.template.defaultfilters import filesizeformat

from iotsupport.database import is_shared
from iotsupport.database.sqlite import files_of, patience
from iotsupport.errors import DATABASE_ERRORS, explain_database
from iotsupport.mirror import compared
from iotsupport.mirror.files import mirror_storage
from iotsupport.mirror.rows import MirroredModel, mirrored_models
from iotsupport.state.findings import Finding, Level
from iotsupport.times import tell

# A save needs less between its commit and its file.
SAVING_SECONDS = 0.2

# How long it may take to answer before somebody has to look, and how long a change may have to wait for others here.
SLOW_SECONDS = 0.25
BUSY_SECONDS = 0.75

# So many rows that were saved last are compared with their files, byte for byte.
MOST_ROWS = 10
MOST_NAMES = 3
# Of more, names are compared only where there are not as many files: that takes a second and more.
MANY_ROWS = 10_000

SEE_LOAD = "See what else works on it, and how busy its disk is."
WAIT_OR_END = "If it stays so, find the process that holds it, such as a backup or an open sqlite3 shell, and end that."
SYNC = "Run 'manage.py sync_mirror': it makes the files equal to the database."


class Differing(NamedTuple):
    """How many rows there are, and names of files that are missing, have other bytes, or have no row."""

    rows: int
    missing: set[str]
    behind: set[str]
    unknown: set[str]


def look() -> Iterator[Finding]:
    """Whether it answers, and what it says of itself."""
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    seconds = time.monotonic() - began
    yield from (_postgresql() if is_shared(connection) else _sqlite())
    level, advice = (Level.LOOK, SEE_LOAD) if seconds > SLOW_SECONDS else (Level.FINE, "")
    yield Finding("Answers", level, f"within {seconds * 1000:.0f} ms", advice)
    yield from _lock()
    yield from migrations()


def _postgresql() -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version'), pg_database_size(current_database())")
        version, size = cursor.fetchone()
        cursor.execute("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
        is_durable = "off" not in cursor.fetchone()
    yield Finding("PostgreSQL", Level.FINE, f"version {version}, {filesizeformat(size)}")
    if not is_durable:
        says = "fsync or synchronous_commit is off: a power cut takes back what was answered."
        yield Finding("Kept for good", Level.WRONG, says, "Turn both on in PostgreSQL's configuration.")


def _sqlite() -> Iterator[Finding]:
    size = 0
    for path in files_of(str(connection.settings_dict["NAME"])):
        with suppress(OSError):
            size += os.stat(path).st_size
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        (mode,) = cursor.fetchone()
    yield Finding("SQLite", Level.FINE, f"version {sqlite3.sqlite_version}, {filesizeformat(size)}")
    if mode != "wal":
        says = f"Its journal is {mode}, not wal: whoever reads waits for whoever writes."
        advice = "Put it on a local disk: SQLite could not begin a write-ahead log where it is."
        yield Finding("Journal", Level.LOOK, says, advice)


def _lock() -> Iterator[Finding]:
    """Whether a change could begin now. Nothing is written."""
    if is_shared(connection):
        return
    began = time.monotonic()
    try:
        with patience(connection, BUSY_SECONDS), transaction.atomic():
            pass
    except DATABASE_ERRORS as error:
        says = explain_database(error) or f"A change cannot begin: {error}"
        yield Finding("Changes", Level.WRONG, says, WAIT_OR_END)
        return
    seconds = time.monotonic() - began
    level, advice = (Level.LOOK, SEE_LOAD) if seconds > SLOW_SECONDS else (Level.FINE, "")
    yield Finding("Changes", level, f"waited {seconds * 1000:.0f} ms for their turn", advice)


def migrations() -> Iterator[Finding]:
    """Whether its tables are those of this version."""
    applied = set(MigrationRecorder(connection).applied_migrations())
    known = known_migrations()
    missing = sorted(known - applied)
    apps = {app for app, _ in known}
    newer = sorted(each for each in applied - known if each[0] in apps)
    if missing:
        says = f"{len(missing)} of them are not applied: {_names(missing)}."
        yield Finding("Migrations", Level.WRONG, says, "Run 'manage.py migrate', then restart the server.")
    elif newer:
        says = f"{len(newer)} of them are not known to this version: {_names(newer)}."
        advice = "A newer version has migrated this database: install that one, or restore a backup from before."
        yield Finding("Migrations", Level.WRONG, says, advice)
    else:
        yield Finding("Migrations", Level.FINE, "all are applied")


@cache
def known_migrations() -> frozenset[tuple[str, str]]:
    """Those of this version: app and name."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)


def _names(migrations: list[tuple[str, str]]) -> str:
    more = ", …" if len(migrations) > MOST_NAMES else ""
    return ", ".join(f"{app} {name}" for app, name in migrations[:MOST_NAMES]) + more


def look_at_files() -> Iterator[Finding]:
    """Whether the files equal the rows: by their names, and the last ones by their bytes."""
    for model in mirrored_models():
        yield _compare(model)
    found = compared.last()
    if found is None:
        says = "That is not known: the server has not started here, or could not write it into DATA_DIR."
        yield Finding("Compared whole", Level.LOOK, says, SYNC)
    elif found.failed:
        says = f"{tell(found.at)}; {found.failed} could not be made equal"
        yield Finding("Compared whole", Level.WRONG, says, "Run 'manage.py sync_mirror': it says which, and why.")
    else:
        repaired = f"; {found.repaired} were made equal" if found.repaired else "; all were equal"
        yield Finding("Compared whole", Level.FINE, f"{tell(found.at)}{repaired}")


def _compare(model: type[MirroredModel]) -> Finding:
    name = str(model._meta.verbose_name_plural).capitalize()
    differing = _differing(model)
    if any(differing[1:]):
        # Of what is saved just now, the row comes first, then the file.
        time.sleep(SAVING_SECONDS)
        again = _differing(model)
        differing = Differing(again.rows, *(a & b for a, b in zip(differing[1:], again[1:], strict=True)))
    if differing.missing or differing.behind:
        sentences = [f"No file is there of {_some(differing.missing)}."] if differing.missing else []
        sentences += [f"Other bytes are in {_some(differing.behind)}."] if differing.behind else []
        return Finding(name, Level.WRONG, " ".join(sentences), SYNC)
    if differing.unknown:
        says = f"No row knows {_some(differing.unknown)}: kept, and not served."
        advice = "Import them, or remove them with 'manage.py sync_mirror --delete-unknown'."
        return Finding(name, Level.LOOK, says, advice)
    if not differing.rows:
        return Finding(name, Level.FINE, "none yet")
    says = f"{differing.rows:,}, and as many files; the {MOST_ROWS} that were saved last were compared byte for byte"
    return Finding(name, Level.FINE, says)


def _differing(model: type[MirroredModel]) -> Differing:
    storage = mirror_storage(model.storage_alias)
    storage.check_there()
    count = model._base_manager.count()
    if count > MANY_ROWS and count == sum(not name.startswith(".") for name in os.listdir(storage.directory)):
        expected = there = set[str]()
    else:
        rows = model._base_manager.values_list(model.name_field, flat=True).order_by()
        expected = {model.filename_of(each) for each in rows.iterator(chunk_size=5000)}
        there = set(storage.names())
    latest = cast(Any, model).history.order_by("-history_id").values_list(model.name_field, flat=True)[:MOST_ROWS]
    saved = model._base_manager.filter(**{f"{model.name_field}__in": list(latest)})
    behind = {row.filename for row in saved if row.filename not in expected - there and not row.is_mirrored()}
    return Differing(count, expected - there, behind, there - expected)


def _some(names: set[str]) -> str:
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(sorted(names)[:MOST_NAMES]) + more
