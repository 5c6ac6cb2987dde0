"""Rows as neither database has them: a line of JSON for each, with every value as it was.

Tables are those of the migrations that a database says it has, not those of the code: so one can be backed up before it
is migrated, and an archive of an earlier version is read as it was written.
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache, partial
from itertools import islice
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connections, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from iotsupport.backup.errors import BackupError
from iotsupport.database.keys import last_key, set_last_key

# App label to names of migrations, sorted.
Migrations = dict[str, list[str]]
# The values of a row in the order of its table's columns.
Row = list[Any]

# What ends with the server that has it, or can be made anew.
LEFT_OUT = {
    "sessions.session",  # whoever has one signs in again
    # Sign-ins that failed.
    *["axes.accessattempt", "axes.accessattemptexpiration", "axes.accessfailurelog", "axes.accesslog"],
    "iotsupport.throttle",  # when which process is to do what
    "iotsupport.backuprecord",
    "assets.pendingupload",  # bytes about which somebody is asked just now
    "assets.sharedchunk",  # the bytes of assets, which an archive has as files
    "devices.part",  # of a plan that is not made yet
}

# Rows are read and written so many at a time.
CHUNK_ROWS = 100
# No line is longer: a row is some times as long as the largest configuration.
MOST_LINE_BYTES = 64 * 1024 * 1024

INTEGERS = range(-(2**63), 2**63)


class Table:
    """One table: how its rows are read, written, and told in an archive."""

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model
        self.label = model._meta.label_lower
        self._fields = [field for field in model._meta.local_fields if field.concrete]
        self.columns = [str(field.column) for field in self._fields]
        key = model._meta.pk
        # The table and its key, where the database gives one to each row.
        self._key = (model._meta.db_table, str(key.column)) if isinstance(key, models.AutoField) else None
        self._parsers = [_parser_of(field) for field in self._fields]

    def count(self, using: str) -> int:
        return int(self._rows(using).count())

    def select(self, using: str) -> Iterator[Row]:
        """All rows by their keys, some at a time."""
        names = [field.attname for field in self._fields]
        rows = self._rows(using).order_by("pk").values_list(*names)
        return map(list, rows.iterator(chunk_size=CHUNK_ROWS))

    def clear(self, using: str) -> None:
        """Delete all rows. What refers to them is looked at when the transaction ends."""
        connection = connections[using]
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(self.model._meta.db_table)}")  # noqa: S608

    def insert(self, using: str, rows: Iterable[Row]) -> int:
        """Write rows as they are; return how many. Call in a transaction."""
        connection, count, left = connections[using], 0, iter(rows)
        quoted = [connection.ops.quote_name(name) for name in [self.model._meta.db_table, *self.columns]]
        marks = ", ".join(["%s"] * len(self.columns))
        statement = f"INSERT INTO {quoted[0]} ({', '.join(quoted[1:])}) VALUES ({marks})"  # noqa: S608
        with connection.cursor() as cursor:
            while some := list(islice(left, CHUNK_ROWS)):
                cursor.executemany(statement, [self._prepare(row, connection) for row in some])
                count += len(some)
        return count

    def last_key(self, using: str) -> int:
        """The last key that was given to a row; 0 where the database gives none."""
        return last_key(connections[using], *self._key) if self._key else 0

    def set_last_key(self, using: str, key: int) -> None:
        if self._key:
            set_last_key(connections[using], *self._key, key)

    def encode(self, row: Row) -> bytes:
        """A line for an archive. Raises :class:`BackupError` for one that is too long."""
        values = dict(zip(self.columns, map(_tell, row), strict=True))
        line = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        if len(line) > MOST_LINE_BYTES:
            raise BackupError(
                f"A row of {self.label} has {len(line)} bytes; {MOST_LINE_BYTES} are allowed in a backup. Shorten it."
            )
        return line

    def decode(self, line: bytes) -> Row:
        """Return the row of a line. Raises ``ValueError``, also for what cannot be a value of its column."""
        values = json.loads(line, parse_constant=_refuse)
        if not isinstance(values, dict) or list(values) != self.columns:
            raise ValueError("other columns")
        return [
            None if value is None else parse(value) for value, parse in zip(values.values(), self._parsers, strict=True)
        ]

    def index_of(self, column: str) -> int:
        return self.columns.index(column)

    def _rows(self, using: str) -> Any:
        return self.model._base_manager.using(using)

    def _prepare(self, row: Row, connection: Any) -> Row:
        if connection.features.prohibits_null_characters_in_text_exception:
            row = [_without_null(value) for value in row]
        return [field.get_db_prep_save(value, connection) for field, value in zip(self._fields, row, strict=True)]


def migrations_of(using: str) -> Migrations:
    """Return which migrations a database has. Raises :class:`BackupError` where some are not known here."""
    applied = MigrationRecorder(connections[using]).applied_migrations()
    known = _here().disk_migrations
    unknown = sorted(node for node in applied if node not in known)
    if unknown:
        names = ", ".join(map(".".join, unknown))
        raise BackupError(
            f"The database was migrated by a newer version of IoT Support, which has {names}. Use that version."
        )
    return group(applied)


def migrations_here() -> Migrations:
    """Return the migrations that there are in this version."""
    return group(_here().disk_migrations)


def group(nodes: Iterable[tuple[str, str]]) -> Migrations:
    grouped: Migrations = {}
    for app, name in sorted(nodes):
        grouped.setdefault(app, []).append(name)
    return grouped


def nodes_of(migrations: Migrations) -> list[tuple[str, str]]:
    return [(app, name) for app, names in migrations.items() for name in names]


def tables_of(migrations: Migrations) -> dict[str, Table]:
    """Return the tables that there are after these migrations, but for those that no backup has, by their labels."""
    return dict(_tables_of(tuple(nodes_of(migrations))))


@cache
def _tables_of(nodes: tuple[tuple[str, str], ...]) -> dict[str, Table]:
    """To work them out takes a third of a second."""
    found = _here().project_state(list(nodes)).apps.get_models(include_auto_created=True)
    tables = [Table(model) for model in found if not model._meta.proxy and model._meta.managed]
    return {table.label: table for table in sorted(tables, key=lambda each: each.label) if table.label not in LEFT_OUT}


@cache
def _here() -> MigrationLoader:
    return MigrationLoader(None)


def _tell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, (bytes, memoryview)):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, (bool, int, float, str, list, dict)):
        return value
    return str(value)


def _parser_of(field: Any) -> Callable[[Any], Any]:
    while field.remote_field:
        field = field.target_field
    kind = field.get_internal_type()
    if kind.endswith(("IntegerField", "AutoField")):
        return _integer
    return PARSERS.get(kind) or partial(_by_field, field)


def _by_field(field: Any, value: Any) -> Any:
    """Of a kind that no table of ours has, but perhaps one of a library: as forms read it."""
    try:
        return field.to_python(_text(value))
    except ValidationError as error:
        raise ValueError(" ".join(error.messages)) from error


def _integer(value: Any) -> int:
    if type(value) is not int or value not in INTEGERS:
        raise ValueError("no integer")
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("neither true nor false")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("no text")
    value.encode()  # half a character is none
    return value


def _number(value: Any) -> float:
    if type(value) not in {int, float} or not math.isfinite(value):
        raise ValueError("no number")
    return float(value)


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment


def _json(value: Any) -> Any:
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


PARSERS: dict[str, Callable[[Any], Any]] = {
    "BinaryField": lambda value: base64.b64decode(_text(value), validate=True),
    "BooleanField": _boolean,
    "CharField": _text,
    "DateTimeField": _moment,
    "FloatField": _number,
    "GenericIPAddressField": _text,
    "JSONField": _json,
    "SlugField": _text,
    "TextField": _text,
    "UUIDField": lambda value: uuid.UUID(_text(value)),
}


def _without_null(value: Any) -> Any:
    """PostgreSQL cannot hold a null character: it gets what a save puts there instead."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [_without_null(each) for each in value]
    if isinstance(value, dict):
        return {_without_null(key): _without_null(each) for key, each in value.items()}
    return value
