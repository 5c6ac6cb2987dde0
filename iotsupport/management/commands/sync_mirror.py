from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS

from iotsupport.backup.following import how_to_follow
from iotsupport.boards import configurations
from iotsupport.bulk import bulk_change
from iotsupport.checks import INSTALLATION
from iotsupport.errors import DATABASE_ERRORS, explain_database
from iotsupport.mirror import compared
from iotsupport.mirror.comparison import Differences, Write, reconcile
from iotsupport.mirror.files import mirror_storage
from iotsupport.mirror.rows import MirroredModel, mirrored_models


class Command(BaseCommand):
    help = "Make the files on disk equal to the database, and what it knows of boards to their configurations."
    requires_system_checks = INSTALLATION

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="only report; exit with 1 on a difference")
        parser.add_argument(
            "--delete-unknown",
            action="store_true",
            help="also remove files that the database does not know; without this they stay, but are not served",
        )

    def handle(self, *, check: bool, delete_unknown: bool, **options: Any) -> None:
        if check and delete_unknown:
            raise CommandError("--check changes nothing, so --delete-unknown does not go with it.")
        write, note_followed = how_to_follow()
        try:
            found = [self._reconcile(model, check, delete_unknown, write) for model in mirrored_models()]
            boards = self._compare_boards(check)
        except DATABASE_ERRORS as error:
            hint = "Check DATABASE_URL, then run 'manage.py migrate'."
            unknown = f"The database does not answer, or is not migrated: {error}. {hint}"
            raise CommandError(explain_database(error) or unknown) from error
        if not check:
            _note(found)
        if check and any([*found, boards]):
            raise CommandError("Files and database differ. 'manage.py sync_mirror' makes them equal.")
        if any(differences.failed for differences in found):
            raise CommandError("Not everything could be made equal; see above.")
        if not check:
            note_followed()
        if not any([*found, boards]):
            self.stdout.write("Files and database are equal.")

    def _reconcile(self, model: type[MirroredModel], check: bool, delete_unknown: bool, write: Write) -> Differences:
        with bulk_change():
            differences = reconcile(
                model, DEFAULT_DB_ALIAS, repair=not check, delete_unknown=delete_unknown, write=write
            )
        label = mirror_storage(model.storage_alias).label
        for names, said in [
            (differences.written, "differs from its row" if check else "written"),
            (differences.removed, "has no row" if check else "removed"),
            (differences.unknown, "is not known to the database; not served, and removed only by --delete-unknown"),
            (differences.leftovers, "was left by a killed process" if check else "removed: left by a killed process"),
        ]:
            for name in names:
                self.stdout.write(f"{label}: {name}: {said}")
        for sentence in differences.failed:
            self.stderr.write(f"{label}: {sentence}")
        return differences

    def _compare_boards(self, check: bool) -> list[str]:
        differing = configurations.compare(DEFAULT_DB_ALIAS, repair=not check)
        for mac_address in differing:
            said = "contradicts its configuration" if check else "is in step with its configuration again"
            self.stdout.write(f"boards: the row of {mac_address} {said}")
        return differing


def _note(found: list[Differences]) -> None:
    repaired = sum(len(each.written) + len(each.removed) + len(each.unknown) for each in found)
    compared.note(repaired, sum(len(each.failed) for each in found))
