"""Whether a backup may be restored here: nobody else does so, no server runs, and nothing would be lost unasked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from iotsupport.backup.errors import BackupError
from iotsupport.backup.running import alone
from iotsupport.backup.tables import LEFT_OUT, migrations_here, nodes_of

# What a new installation has, or gets by itself while it is looked at.
COMES_BY_ITSELF = {
    *["contenttypes.contenttype", "auth.permission", "admin.logentry"],
    *["iotsupport.board", "iotsupport.hourlycount", "iotsupport.knownnetwork"],
}
# The first administrator is no reason to refuse.
USER_TABLE, USERS_OF_A_NEW_ONE = "auth.user", 1


@contextmanager
def ready_to_restore(*, replace: bool) -> Iterator[None]:
    """Have what is here to oneself while the block runs. Raises :class:`BackupError` where nothing may be restored."""
    with alone():
        if is_migrated() and not replace:
            require_empty()
        yield


def is_migrated() -> bool:
    """Whether the database has tables. Raises :class:`BackupError` where they are not those of this version."""
    applied = set(MigrationRecorder(connection).applied_migrations())
    if applied and set(nodes_of(migrations_here())) - applied:
        raise BackupError("The database is not migrated. Run 'manage.py migrate', then try again.")
    return bool(applied)


def require_empty() -> None:
    """Raise :class:`BackupError` where something is here that a restoration would replace."""
    there = []
    for model in all_models():
        label, count = model._meta.label_lower, model._base_manager.count()
        is_new_user = label == USER_TABLE and count <= USERS_OF_A_NEW_ONE
        if count and label not in LEFT_OUT | COMES_BY_ITSELF and not is_new_user:
            there.append(f"{count} {model._meta.verbose_name if count == 1 else model._meta.verbose_name_plural}")
    if there:
        raise BackupError(
            f"This installation is not empty: it has {', '.join(there)}. With --replace, all that is here is replaced"
            " by what the backup has."
        )


def all_models() -> list[Any]:
    """One for each table."""
    found = apps.get_models(include_auto_created=True)
    return [model for model in found if model._meta.managed and not model._meta.proxy]
