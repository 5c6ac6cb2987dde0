"""A file without a name, for what is looked at as a whole before anything is taken of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from django.conf import settings

from iotsupport.mirror.explaining import explain
from iotsupport.mirror.files import MirrorError


@contextmanager
def open_unnamed() -> Iterator[IO[bytes]]:
    """A file that nobody else finds, on the disk of ``DATA_DIR``; however the process ends, nothing of it is left."""
    try:
        file = tempfile.TemporaryFile(dir=settings.DATA_DIR)  # noqa: SIM115 - closed below
    except OSError as error:
        raise MirrorError(explain(error, "DATA_DIR")) from error
    with file:
        yield file


def write(file: IO[bytes], chunk: bytes) -> None:
    """Raises ``MirrorError``."""
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise MirrorError(explain(error, "DATA_DIR")) from error
