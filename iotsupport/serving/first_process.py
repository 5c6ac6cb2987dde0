"""Being told to end while a server still starts, as the first process of a container: see pid_namespaces(7).

The kernel drops what such a process has no handler for. gunicorn has one when it has read its configuration and made
the files equal to the database; until then, ``docker stop`` would wait for its whole patience, and kill.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

FIRST = 1


def heed_its_end() -> None:
    """From now on until somebody sets another handler, end at SIGTERM; also at one that was held."""
    if os.getpid() == FIRST and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def hold_its_end() -> None:
    """Keep a SIGTERM for the program that takes this process over: it calls :func:`heed_its_end`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
