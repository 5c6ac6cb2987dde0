"""The few statements that every save makes, written once for each model.

A query set works each of them out anew, which takes several times as long as the database does. They are made of what
the model says of its fields, and give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections, models

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

M = TypeVar("M", bound=models.Model)
Fields = tuple["models.Field[Any, Any]", ...]


def lock_row(model: type[M], name: str, value: Any, using: str) -> M | None:
    """Return the row whose field of this name, which is unique, has this value, locked until the transaction ends."""
    connection, fields = connections[using], model._meta.concrete_fields
    with connection.cursor() as cursor:
        cursor.execute(_select_for_update(model, name, using), [value])
        row = cursor.fetchone()
    if row is None:
        return None
    values = list(row)
    for place in _converted(model, using):
        expression = fields[place].cached_col
        for convert in [*connection.ops.get_db_converters(expression), *expression.get_db_converters(connection)]:
            values[place] = convert(values[place], expression, connection)
    return model.from_db(using, [field.attname for field in fields], values)


def update_row(model: type[models.Model], key: Any, fields: Fields, values: Sequence[Any], using: str) -> bool:
    """Set these fields of the row that has this primary key; return whether there is one."""
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(_update(model, fields, using), [*_prepared(fields, values, connection), key])
        return bool(cursor.rowcount > 0)


class InsertedRow(models.Model):
    """A row that is inserted as part of saving another one: it sends no signals of its own."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._state.adding and self.pk is None:
            insert_row(self, kwargs.get("using") or DEFAULT_DB_ALIAS)
        else:
            super().save(*args, **kwargs)


def insert_row(row: models.Model, using: str) -> None:
    """Insert a row to which the database gives its primary key."""
    connection = connections[using]
    fields, statement = _insert(type(row), using)
    values = [field.pre_save(row, add=True) for field in fields]
    with connection.cursor() as cursor:
        cursor.execute(statement, _prepared(fields, values, connection))
        row.pk = cursor.fetchone()[0] if connection.features.can_return_columns_from_insert else cursor.lastrowid
    row._state.adding, row._state.db = False, using


def _prepared(fields: Fields, values: Sequence[Any], connection: BaseDatabaseWrapper) -> list[Any]:
    return [field.get_db_prep_save(value, connection) for field, value in zip(fields, values, strict=True)]


def _quote(using: str) -> Callable[[Any], str]:
    quote_name = connections[using].ops.quote_name
    return lambda what: quote_name(getattr(what, "column", what))


# A database's alias says which kind it is, for as long as the process lives.


@cache
def _select_for_update(model: type[models.Model], name: str, using: str) -> str:
    connection, meta, quote = connections[using], model._meta, _quote(using)
    columns, key = ", ".join(quote(field) for field in meta.concrete_fields), quote(meta.get_field(name))
    statement = f"SELECT {columns} FROM {quote(meta.db_table)} WHERE {key} = %s"  # noqa: S608
    # SQLite has none, and locks all there is when the transaction begins.
    locks = connection.features.has_select_for_update
    return f"{statement} {connection.ops.for_update_sql()}" if locks else statement


@cache
def _converted(model: type[models.Model], using: str) -> list[int]:
    """The places of those columns that do not come out of the database as the model has them."""
    connection = connections[using]
    columns = [field.cached_col for field in model._meta.concrete_fields]
    return [
        place
        for place, column in enumerate(columns)
        if connection.ops.get_db_converters(column) or column.get_db_converters(connection)
    ]


@cache
def _update(model: type[models.Model], fields: Fields, using: str) -> str:
    quote, meta = _quote(using), model._meta
    changes = ", ".join(f"{quote(field)} = %s" for field in fields)
    return f"UPDATE {quote(meta.db_table)} SET {changes} WHERE {quote(meta.pk)} = %s"  # noqa: S608


@cache
def _insert(model: type[models.Model], using: str) -> tuple[Fields, str]:
    connection, meta, quote = connections[using], model._meta, _quote(using)
    fields = tuple(field for field in meta.local_concrete_fields if not field.primary_key)
    columns, marks = ", ".join(quote(field) for field in fields), ", ".join(["%s"] * len(fields))
    statement = f"INSERT INTO {quote(meta.db_table)} ({columns}) VALUES ({marks})"  # noqa: S608
    if connection.features.can_return_columns_from_insert:
        statement += f" RETURNING {quote(meta.pk)}"
    return fields, statement
