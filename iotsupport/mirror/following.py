"""Files that devices may have got old bytes of: made equal to their rows, and announced once more."""

from __future__ import annotations

from typing import Any

from iotsupport.mirror.after_commit import make_equal
from iotsupport.mirror.files import StagedFile, mirror_storage
from iotsupport.mirror.rows import MirroredModel
from iotsupport.signals import following


def follow(model: type[MirroredModel], filename: str, using: str) -> None:
    """Make a file equal to its row here, too, and have it announced once more. Raises :class:`MirrorError`.

    A device that heard of the new bytes may have got the old ones here: another node announced them, or the power was
    cut before the new name was on the disk, and a web server was quicker to start than we are. The new bytes are staged
    first: nothing is announced for a disk that cannot take them. Then it is noted that they must be announced, and
    only then the file changes: a crash in between does not lose it.
    """
    while (row := model.with_filename(filename, using)) is not None:
        if row.has_bytes_mirrored():
            if not row.has_marks_mirrored():  # which is no news
                make_equal(model, filename, using)
            return
        staged = row.stage()
        try:
            calls: list[Any] = [call for _, call in following.send(model, filename=filename)]
            if _replace(model, filename, using, staged):
                for call in filter(None, calls):
                    call([filename])
                return
        finally:
            staged.close()
    make_equal(model, filename, using)


def follow_at_start(model: type[MirroredModel], filename: str, using: str) -> None:
    """As :func:`follow`, of a node that did not run: a file that it did not have is no news.

    Devices ask again for what they did not get; and a new node would announce everything.
    """
    (follow if mirror_storage(model.storage_alias).exists(filename) else make_equal)(model, filename, using)


def _replace(model: type[MirroredModel], filename: str, using: str, staged: StagedFile) -> bool:
    """Put staged bytes in place, unless the row changed: what was noted may be paid before newer bytes are here."""
    storage = mirror_storage(model.storage_alias)
    with storage.explained(), storage.lock():
        row = model.with_filename(filename, using)
        if row is None or row.wanted_file != (staged.sha256, staged.mode):
            return False
        storage.replace(filename, staged)
        return True
