"""The database of one installation: SQLite in its data directory, or one of the test run's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, Self

from iotsupport.tests.support import postgresql
from iotsupport.tests.support.waiting import LIMIT

DATABASES = ["sqlite", "postgresql"]

# Which of them the tests run on.
DATABASE = os.environ.get("TEST_DATABASE") or "sqlite"

# Set by the root conftest.py for all processes of a run on PostgreSQL: where its server is, with the role's password.
SERVER_VARIABLE = "TEST_POSTGRESQL_URL"

SQLITE = "sqlite:///"


class Database(Protocol):
    """What processes of an installation are told of their database, and how a test looks into it."""

    url: str
    name: str
    environ: dict[str, str]

    def copy(self, data_dir: Path) -> Database:
        """A database of its own with the same content, for an installation with this data directory."""

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the database itself."""

    def change(self, statement: str) -> None:
        """Change a row, where starting a command for it would take seconds."""

    def wait_until_left(self) -> None:
        """Wait until nobody changes it any more: a server of its own may finish what a killed process began."""

    def drop(self) -> None: ...


class SQLiteDatabase:
    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "db.sqlite3"
        self.url, self.name = f"{SQLITE}{self.path}", str(self.path)
        # As an installation has it that sets nothing.
        self.environ = {"DATABASE_URL": ""}

    def copy(self, data_dir: Path) -> Self:
        shutil.copy2(self.path, data_dir)
        return type(self)(data_dir)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=LIMIT)) as connection:
            return connection.execute(statement).fetchall()

    def change(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path, timeout=LIMIT)) as connection, connection:
            connection.execute(statement)

    def wait_until_left(self) -> None:
        """Whoever was killed changes nothing here."""

    def drop(self) -> None:
        """It goes with its directory."""


class PostgreSQLDatabase:
    def __init__(self, url: str) -> None:
        self.url, self.name = url, url.rpartition("/")[2]
        self.environ = {"DATABASE_URL": url}

    def copy(self, data_dir: Path) -> Self:
        server_url = self.url.rpartition("/")[0]
        return type(self)(postgresql.create_database(server_url, template=self.url))

    def copy_to(self, server_url: str) -> Self:
        """As :meth:`copy`, but on another server."""
        return type(self)(postgresql.copy_database(self.url, server_url))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return postgresql.query(self.url, statement)

    def change(self, statement: str) -> None:
        postgresql.change(self.url, statement)

    def wait_until_left(self) -> None:
        postgresql.wait_until_left(self.url)

    def drop(self) -> None:
        postgresql.drop_database(self.url)


def is_on_postgresql() -> bool:
    return SERVER_VARIABLE in os.environ


def open_database(url: str) -> Database:
    """One that another process of the tests has made."""
    return SQLiteDatabase(Path(url.removeprefix(SQLITE)).parent) if url.startswith(SQLITE) else PostgreSQLDatabase(url)


def make_database(data_dir: Path) -> Database:
    """A new and empty database of the kind that the tests run on."""
    if is_on_postgresql():
        return PostgreSQLDatabase(postgresql.create_database(os.environ[SERVER_VARIABLE]))
    return SQLiteDatabase(data_dir)
