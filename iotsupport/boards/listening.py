"""The socket to which nginx tells of downloads: one worker of a server reads it, the next one when that dies.

nginx waits for nobody: what cannot be taken at once, or has no reader, is not told, and the download goes on.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import stat
import struct
import time
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from iotsupport.boards import nginx
from iotsupport.boards.collector import collector
from iotsupport.boards.pending import Said
from iotsupport.serving import systemd
from iotsupport.threads import Background

logger = logging.getLogger(__name__)

# How often a socket that nobody writes to is looked after, and one that cannot be had is tried again.
LOOK_SECONDS = 1
# As in <sys/time.h>: socket.settimeout() would take a system call more for each datagram.
LOOK_TIMEVAL = struct.pack("@ll", LOOK_SECONDS, 0)

# Another user's nginx writes to it, whoever that is. It tells nothing that a board could not say itself; the directory
# around it keeps out who has no business here.
SOCKET_MODE = 0o666


# Lines that are known again; some hundred bytes each.
MOST_KNOWN = 10_000


class Known(NamedTuple):
    """What a line said."""

    said: Said
    is_download: bool


class Listener(Background):
    """The thread that reads it."""

    def __init__(self) -> None:
        super().__init__("check-ins of nginx")
        self._is_in_trouble = False
        self._has_complained = False
        self._known: dict[int, Known] = {}  # by the line's hash

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            try:
                with open(settings.DATA_DIR / "checkins.lock", "ab", opener=_open_privately) as lock:
                    # Held until the process ends; then another one gets it.
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    while not self._is_stopping.is_set():
                        self._listen()
            except OSError as error:
                if not self._is_in_trouble:
                    logger.warning("Downloads from nginx are not noted until that is repaired: %s", error)
                self._is_in_trouble = True
            except Exception:
                # Whatever it was: without this thread, nothing would be noted until the next start.
                logger.exception("Noting downloads from nginx was interrupted; it goes on")
            self._is_stopping.wait(LOOK_SECONDS)

    def _listen(self) -> None:
        """Take what comes, for as long as the socket is the one to which nginx writes."""
        inherited = systemd.datagram_socket()
        path = Path(settings.CHECKINS_SOCKET)
        with inherited or _bind(path) as sock:
            self._is_in_trouble = False
            sock.setblocking(True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, LOOK_TIMEVAL)
            bound = None if inherited else _identity(path)
            while not self._is_stopping.is_set():
                try:
                    self._take(sock.recv(nginx.MOST_BYTES + 1))
                except BlockingIOError:
                    if bound and bound != _identity(path):
                        return  # removed, or another server's now

    def _take(self, datagram: bytes) -> None:
        now, line = time.time(), hash(datagram[datagram.find(b"{") :])
        # To know a line again takes a tenth of reading it: boards that ask without pause slow nobody down.
        known = self._known.get(line)
        if known and collector.repeats("nginx", known.said, now, is_download=known.is_download):
            return
        try:
            check_in = nginx.read(datagram, now)
        except ValueError:
            collector.drop()
            if not self._has_complained:  # once: whoever may write to the socket may go on for ever
                logger.warning("What nginx tells of downloads cannot be read: see log_format in deploy/nginx.conf.")
            self._has_complained = True
            return
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[line] = Known(Said.of(check_in), check_in.is_download)
        collector.note(check_in)


def _bind(path: Path) -> socket.socket:
    """Make the socket, in place of one that a reader left. Raises ``OSError``."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"'{path}' is there, and no socket.")
        path.unlink()
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.bind(str(path))
        path.chmod(SOCKET_MODE)  # whatever the umask says
    except BaseException:
        sock.close()
        raise
    return sock


def _identity(path: Path) -> tuple[int, ...]:
    """Of the file that has this name now: an inode may be used again at once."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _open_privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
