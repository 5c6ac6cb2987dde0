"""``prepare``: what has to be done before the server starts, in one process, since starting it takes the time."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from iotsupport.checks import INSTALLATION
from iotsupport.errors import DATABASE_ERRORS


class Command(BaseCommand):
    help = "Migrate, collect static files and make a first administrator, as far as it is not done yet."
    requires_system_checks = INSTALLATION

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--demo", action="store_true", help="make sample data, too")

    def handle(self, *, demo: bool, **options: Any) -> None:
        try:
            call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
        except DATABASE_ERRORS as error:
            call_command("check")  # ends with the name of the variable that is wrong, if it is one
            raise CommandError(f"The database cannot be migrated: {error}") from error
        call_command("collectstatic", interactive=False, verbosity=0, skip_checks=True)
        call_command("create_first_admin", stdout=self.stdout)
        if demo:
            call_command("create_demo_configs", stdout=self.stdout)
            call_command("create_demo_assets", stdout=self.stdout)
            call_command("create_demo_boards", stdout=self.stdout)
