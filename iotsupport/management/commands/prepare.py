"""``prepare``: what has to be done before the server starts, in one process, since starting it takes the time."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connection

from iotsupport.checks import INSTALLATION
from iotsupport.container import DATABASE_AWAY
from iotsupport.database import is_shared
from iotsupport.database.alone import alone
from iotsupport.errors import DATABASE_ERRORS

AGAIN_SECONDS = 2.0


class Command(BaseCommand):
    help = "Migrate, collect static files and make a first administrator, as far as it is not done yet."
    requires_system_checks = INSTALLATION

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--demo", action="store_true", help="make sample data, too")
        parser.add_argument("--wait", action="store_true", help="for a database that is away, as long as that takes")

    def handle(self, *, demo: bool, wait: bool = False, **options: Any) -> None:
        try:
            while (problem := _why_away()) is not None and wait:
                time.sleep(AGAIN_SECONDS)
            if problem is not None:
                raise CommandError(f"The database does not answer: {problem}", returncode=DATABASE_AWAY)
            # Several nodes may start at once.
            with alone(connection):
                call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
                call_command("create_first_admin", stdout=self.stdout, skip_checks=True)
        except DATABASE_ERRORS as error:
            call_command("check")  # ends with the name of the variable that is wrong, if it is one
            raise CommandError(f"The database cannot be migrated: {error}") from error
        if settings.STATIC_ROOT != settings.BUILT_STATIC_ROOT:
            call_command("collectstatic", interactive=False, verbosity=0, skip_checks=True)
        if demo:
            call_command("create_demo_configs", stdout=self.stdout)
            call_command("create_demo_assets", stdout=self.stdout)
            call_command("create_demo_boards", stdout=self.stdout)


def _why_away() -> str | None:
    """Return why a database of another machine cannot be reached, or None. A file is there, or is made."""
    if not is_shared(connection):
        return None
    try:
        connection.ensure_connection()
    except OperationalError as error:
        return str(error).strip()
    return None
