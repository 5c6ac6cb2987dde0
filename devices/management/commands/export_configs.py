from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import ClassVar

from devices.models import DeviceConfig
from devices.transfer.exporting import files_of
from devices.transfer.types import DIRECTORY, LIST
from iotsupport.boards.mac_addresses import MAC_ADDRESS
from iotsupport.management.exporting import ExportCommand
from iotsupport.transfer.zipping import ZippedFile


class Command(ExportCommand):
    help = "Write all configurations as <mac>.json files, byte for byte, with their types."
    directories: ClassVar[list[str]] = [DIRECTORY]

    def count(self) -> int:
        return DeviceConfig.objects.count()

    def files(self) -> Iterator[ZippedFile]:
        return files_of(DeviceConfig.objects.all())

    def is_ours(self, name: str) -> bool:
        path = PurePath(name)
        if path.suffix != ".json":
            return False
        return (
            name == LIST
            or path.parent == PurePath(DIRECTORY)
            or MAC_ADDRESS.fullmatch(name[: -len(".json")]) is not None
        )
