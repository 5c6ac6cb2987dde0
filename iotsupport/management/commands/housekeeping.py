from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
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
            removed: Mapping[str, int | None] = _count() if dry_run else remove(time.sleep)
        except DATABASE_ERRORS as error:
            hint = "Check DATABASE_URL, then run 'manage.py migrate'."
            unknown = f"The database does not answer, or is not migrated: {error}. {hint}"
            raise CommandError(explain_database(error) or unknown) from error
        except MirrorError as error:
            raise CommandError(str(error)) from error
        # Those of which there is nothing, too: one who looks for a kind sees that it was looked at.
        for name, count in removed.items():
            told = "to be seen when it is done" if count is None else count
            self.stdout.write(f"{name}: {told}")
        if dry_run:
            self.stdout.write("Nothing was removed.")


def _count() -> dict[str, int | None]:
    return {kind.name: None if kind.known is None else kind.known() for kind in kinds()}
