from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from django.core.exceptions import ValidationError

from devices.models import DeviceType
from devices.transfer.importing import Types, take_files
from devices.transfer.types import DIRECTORY, LIST, compare_type, read_list, read_type
from devices.writing import TOGETHER
from iotsupport.management.importing import ImportCommand, Taken, refused


class Command(ImportCommand):
    help = "Take over a directory of <mac>.json files, byte for byte; with their types, as export_configs writes them."
    has_same_name = "is for the same device"
    together = TOGETHER

    def name_of(self, path: Path) -> str:
        return re.sub("[-:]", "", path.name.lower())

    def take(self, paths: Sequence[Path], *, dry_run: bool) -> list[Taken]:
        return take_files(paths, self._types, dry_run=dry_run)

    def read_beside(self, directory: Path, *, dry_run: bool) -> set[str]:
        self._types = None
        types = {each.folded: each for each in DeviceType.objects.all()}
        for path in sorted((directory / DIRECTORY).glob("*.json")):
            try:
                incoming = read_type(path.read_bytes())
                taken = compare_type(incoming, types.get(incoming.folded))
                if taken.outcome == "taken" and not dry_run:
                    incoming.save()
                types.setdefault(incoming.folded, incoming)
            except (ValidationError, OSError) as error:
                taken = refused(error)
            self.report(f"{DIRECTORY}/{path.name}", taken)
        found = {DIRECTORY} if (directory / DIRECTORY).is_dir() else set()
        if not (directory / LIST).is_file():
            return found
        try:
            self._types = Types(read_list((directory / LIST).read_bytes()), types.values())
        except (ValidationError, OSError) as error:
            self.report(LIST, refused(error))
        return {*found, LIST}
