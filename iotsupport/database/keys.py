"""The last primary key that a database gave: it gives no key twice, also not that of a row that was deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iotsupport.database import is_shared

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper


def last_key(connection: BaseDatabaseWrapper, table: str, column: str) -> int:
    """Return it; 0 where none was given, or the database gives none for this table."""
    with connection.cursor() as cursor:
        if not is_shared(connection):
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
            found = cursor.fetchone()
            return int(found[0]) if found else 0
        sequence = _sequence(connection, table, column)
        if sequence is None:
            return 0
        cursor.execute(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")  # noqa: S608
        return int(cursor.fetchone()[0])


def set_last_key(connection: BaseDatabaseWrapper, table: str, column: str, key: int) -> None:
    """Have the next one be greater than this, and than all that there are."""
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COALESCE(MAX({quote(column)}), 0) FROM {quote(table)}")  # noqa: S608
        key = max(key, cursor.fetchone()[0])
        if not is_shared(connection):
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
            cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table, key])
        elif (sequence := _sequence(connection, table, column)) is not None:
            cursor.execute("SELECT setval(%s, %s, %s)", [sequence, max(key, 1), key > 0])


def _sequence(connection: BaseDatabaseWrapper, table: str, column: str) -> str | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_serial_sequence(%s, %s)", [connection.ops.quote_name(table), column])
        (name,) = cursor.fetchone()
    return None if name is None else str(name)
