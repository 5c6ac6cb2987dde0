"""Rows of an earlier version become those of today in a database of their own, which is migrated and then read.

So what is restored into has today's tables all the time, of whichever kind it is, and gets all rows in one transaction.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.db import connections, transaction
from django.db.migrations.executor import MigrationExecutor

from iotsupport.backup.checking import Checked
from iotsupport.backup.errors import BackupError
from iotsupport.backup.tables import Migrations, Row, migrations_of, nodes_of, tables_of

# Of the database in between, in a directory of its own below DATA_DIR.
ALIAS, PREFIX = "upgrading", ".upgrading-"

# Given the label of a table, its rows.
Source = Callable[[str], Iterator[Row]]


@contextmanager
def rows_of_today(checked: Checked, today: Migrations) -> Iterator[Source]:
    """Yield what gives the rows of each table as today's version has them. Raises :class:`BackupError`."""
    if not checked.is_earlier:
        yield checked.rows
        return
    with _database() as alias:
        earlier = checked.archive.manifest.migrations
        _migrate(alias, earlier)
        if migrations_of(alias) != earlier:
            raise BackupError("The backup has some migrations without those before them. Use another backup.")
        with transaction.atomic(using=alias):
            for table in checked.tables.values():
                table.clear(alias)  # some migrations make rows
                table.insert(alias, checked.rows(table.label))
        _migrate(alias, today)
        tables = tables_of(today)
        yield lambda label: tables[label].select(alias)


def _migrate(alias: str, migrations: Migrations) -> None:
    executor, nodes = MigrationExecutor(connections[alias]), set(nodes_of(migrations))
    after = {node: {child.key for child in executor.loader.graph.node_map[node].children} & nodes for node in nodes}
    # The last of each app: one before it would be taken for where to go back to.
    executor.migrate([node for node in sorted(nodes) if not any(app == node[0] for app, _ in after[node])])


@contextmanager
def _database() -> Iterator[str]:
    """An SQLite database that goes with the block; what a killed process left of one goes first."""
    for left in Path(settings.DATA_DIR).glob(f"{PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=settings.DATA_DIR) as directory:
        connections.settings[ALIAS] = {
            **connections["default"].settings_dict,
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(Path(directory, "db.sqlite3")),
            # It is gone after a crash, whatever of it was on the disk.
            "OPTIONS": {"init_command": "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF;"},
        }
        try:
            yield ALIAS
        finally:
            connections[ALIAS].close()
            del connections[ALIAS]
            del connections.settings[ALIAS]
