"""What becomes of files after a restoration: each node makes them equal to the restored rows, and announces none.

Else, a start announces a file that had other bytes than its row (:mod:`iotsupport.mirror.following`). Each node notes
which restoration its files follow: so also one whose process was killed in between, and one that did not run meanwhile.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.db import Error

from iotsupport.backup.models import BackupRecord
from iotsupport.durable import sync_directory
from iotsupport.mirror.after_commit import make_equal
from iotsupport.mirror.comparison import Write
from iotsupport.mirror.following import follow_at_start


def how_to_follow() -> tuple[Write, Callable[[], None]]:
    """Return how a start makes files equal to their rows, and what to call when all of them are."""
    restored_as = _restored_as()
    if not restored_as or _noted() == restored_as:
        return follow_at_start, lambda: None
    return make_equal, lambda: note_followed(restored_as)


def note_followed(restored_as: str) -> None:
    """The files of this node are equal to the rows of this restoration. Raises ``OSError``."""
    replace_private(_path(), restored_as)


def replace_private(path: Path, text: str) -> None:
    """Give a file this text, at once and for good, and let no other user read it. Raises ``OSError``."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def _restored_as() -> str:
    try:
        row = BackupRecord.objects.first()
    except Error:  # not migrated yet, or away: which the next question says
        return ""
    return row.restored_as if row is not None else ""


def _noted() -> str:
    try:
        return _path().read_text(errors="replace")
    except OSError:
        return ""


def _path() -> Path:
    return Path(settings.DATA_DIR, "restored")
