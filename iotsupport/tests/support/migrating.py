"""Going from the tables of one version to those of another, without rendering every model at each step."""

from __future__ import annotations

from django.db import connection
from django.db.migrations.executor import MigrationExecutor

# App label and name of a migration.
Node = tuple[str, str]


def go_to(*targets: Node) -> None:
    """Run the operations of all migrations on the way to these, forwards or back, and record them.

    As ``manage.py migrate`` does, but without its signals; and each migration sees no models but those of its own app,
    and of what that depends on: to render them again is what takes the time.
    """
    executor = MigrationExecutor(connection)
    for migration, backwards in executor.migration_plan(list(targets)):
        state = executor.loader.project_state((migration.app_label, migration.name), at_end=False)
        if backwards:
            executor.unapply_migration(state, migration)
        else:
            executor.apply_migration(state, migration)


def go_to_today(app_label: str | None = None) -> None:
    """Have the newest tables, or those of one app and of what it depends on."""
    go_to(*MigrationExecutor(connection).loader.graph.leaf_nodes(app_label))
