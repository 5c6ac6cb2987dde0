from __future__ import annotations

import argparse
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from iotsupport.checks import INSTALLATION
from iotsupport.errors import DATABASE_ERRORS, explain_database
from iotsupport.housekeeping import kinds, remove
from iotsupport.mirror.files import MirrorError


class Command(BaseCommand):
    help = "Remove what nobody needs any more, such as old versions and ended sessions. A server does so once a day."
    requires_system_checks = INSTALLATION

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        try:
            removed = _count() if dry_run else remove(time.sleep)
        except DATABASE_ERRORS as error:
            hint = "Check DATABASE_URL, then run 'manage.py migrate'."
            unknown = f"The database does not answer, or is not migrated: {error}. {hint}"
            raise CommandError(explain_database(error) or unknown) from error
        except MirrorError as error:
            raise CommandError(str(error)) from error
        for name, count in removed.items():
            self.stdout.write(f"{name}: {count} {'would be removed' if dry_run else 'removed'}")
        if not removed:
            self.stdout.write("Nothing is to be removed.")


def _count() -> dict[str, int]:
    counts = {kind.name: kind.known() for kind in kinds() if kind.known is not None}
    return {name: count for name, count in counts.items() if count}
