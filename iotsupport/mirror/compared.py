"""When all files of this node were last made equal to the rows: noted for each node, which has files of its own."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from django.conf import settings
from django.utils import timezone

from iotsupport.mirror.locks import give_to_owner

FILE_NAME = "compared.json"


class Compared(NamedTuple):
    """What a comparison did."""

    at: datetime
    repaired: int
    """Files that were written, removed or withheld."""
    failed: int
    """What could not be made equal."""


def note(repaired: int, failed: int) -> None:
    """Note that all files were compared now. Where that cannot be written, it is not known."""
    path = settings.DATA_DIR / FILE_NAME
    draft = path.with_name(f".{FILE_NAME}.{secrets.token_hex(8)}")
    said = {"at": timezone.now().isoformat(), "repaired": repaired, "failed": failed}
    try:
        draft.write_text(json.dumps(said))
        give_to_owner(draft)
        os.replace(draft, path)
    except OSError:
        with suppress(OSError):
            draft.unlink()


def last() -> Compared | None:
    """The last comparison; None where it is not known."""
    try:
        said = json.loads((settings.DATA_DIR / FILE_NAME).read_text())
        return Compared(datetime.fromisoformat(said["at"]), int(said["repaired"]), int(said["failed"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
