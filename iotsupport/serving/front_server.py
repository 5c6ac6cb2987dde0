"""What nginx finds in ``DATA_DIR`` of who may download: ``deploy/nginx.conf`` names these files.

It answers by itself whom it knows, and everybody while there is the file that says so; all others it asks us about. So
it opens nothing that the settings close, whatever it has not been told yet.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from pathlib import Path

from django.conf import settings

from iotsupport.durable import sync_directory
from iotsupport.serving import credentials

logger = logging.getLogger(__name__)

OPEN = "downloads_are_open"
KNOWN_DEVICES = "known_devices.map"


def note_openness() -> None:
    """Say by a file whether everybody may download: for a process that begins to serve."""
    path = Path(settings.DATA_DIR) / OPEN
    try:
        if settings.DEVICE_USERNAME or settings.DEVICE_PASSWORD:
            path.unlink(missing_ok=True)
        else:
            path.touch(mode=0o644)
    except OSError as error:
        logger.error("nginx cannot be told whether devices have to sign in: '%s': %s", path, error.strerror)


def known_devices() -> str:
    """Return the lines of nginx's ``map`` that name what a device may send. Raises ``ValueError`` with a sentence.

    Of all that base64 has, a plus sign alone means something in an expression.
    """
    lines = ["# Written by manage.py write_device_passwords: whoever reads it can sign in as a device."]
    for each in credentials.credentials_of_devices() or []:
        # As is_device() compares: the scheme in any case, then blanks.
        lines.append(f'"~^[Bb][Aa][Ss][Ii][Cc] +{re.escape(each)}\\z" "";')
    return "\n".join([*lines, ""])


def replace_privately(path: Path, text: str) -> None:
    """Write a file that its owner alone can read, in place of what is there. Raises ``OSError``."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
