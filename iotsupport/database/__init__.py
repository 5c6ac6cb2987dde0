"""What is particular about each database: SQLite's files, and a PostgreSQL that may be slow, frozen or away."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # gunicorn's master reads the settings, and must not load it
    from django.db.backends.base.base import BaseDatabaseWrapper


def is_shared(connection: BaseDatabaseWrapper) -> bool:
    """Whether several nodes may use this database: PostgreSQL's is; SQLite's is a file of one machine.

    Everything that several nodes change asks this.
    """
    return connection.vendor == "postgresql"
