"""The content of one mirrored file, whatever its name is by the time that it is sent: opened, known, hashed once."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from io import FileIO
from typing import NamedTuple

CHUNK_BYTES = 64 * 1024

# Some 700 bytes each, in every process.
CACHED_DIGESTS = 16384

# What the system says where there is no file to serve. Anything else, such as too many open files, is our trouble:
# a device must not be told that its file is gone.
NO_SUCH_FILE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,  # a symbolic link
    errno.ENXIO,  # a socket
    errno.EACCES,
    errno.ENAMETOOLONG,
}


@dataclass(frozen=True, slots=True)
class Content:
    """The content of an open file, known by what changes with it: mirrored files are replaced, never written to."""

    device: int
    inode: int
    modified_ns: int
    # A replaced file's inode may be used again at once.
    changed_ns: int
    size: int
    descriptor: int = field(compare=False)
    # What else it says of its row. Whatever changes that changes ``changed_ns``.
    mode: int = field(default=0, compare=False)

    @property
    def modified(self) -> int:
        """In seconds, as HTTP tells it."""
        return self.modified_ns // 10**9


class Digests(NamedTuple):
    """Of one content, as header values."""

    etag: str
    md5: str
    sha256: str
    repr_digest: str


@lru_cache(maxsize=CACHED_DIGESTS)
def digests_of(content: Content) -> Digests:
    """Hash a file without moving its position."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    position = 0
    while chunk := os.pread(content.descriptor, CHUNK_BYTES, position):
        sha256.update(chunk)
        md5.update(chunk)
        position += len(chunk)
    encoded = base64.b64encode(sha256.digest()).decode()
    return Digests(f'"{sha256.hexdigest()}"', md5.hexdigest(), sha256.hexdigest(), f"sha-256=:{encoded}:")


@contextmanager
def open_content(path: str) -> Iterator[Content]:
    """Open what :func:`respond` would answer with. Raises as that does."""
    with open_file(path) as file:
        yield content_of(file)


def open_file(path: str) -> FileIO:
    """Raises ``FileNotFoundError`` where there is nothing to serve."""
    try:
        return FileIO(path, "r", opener=_open_descriptor)
    except ValueError as error:  # a null character
        raise FileNotFoundError(path) from error
    except OSError as error:
        if error.errno in NO_SUCH_FILE:
            raise FileNotFoundError(path) from error
        raise


def _open_descriptor(path: str, flags: int) -> int:
    # Not blocking: nobody might ever write to a named pipe.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def content_of(file: FileIO) -> Content:
    """Raises ``FileNotFoundError`` for anything but a regular file that everybody may read."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_IROTH:
        raise FileNotFoundError(file.name)
    return Content(
        device=status.st_dev,
        inode=status.st_ino,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
        size=status.st_size,
        descriptor=file.fileno(),
        mode=status.st_mode,
    )
