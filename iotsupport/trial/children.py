"""Processes that end with the one that started them. It reads no settings: the tests need it before there are any."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with(parent: int, number: signal.Signals) -> Callable[[], None]:
    """Return what a child does first, so that not even SIGKILL of its parent leaves it behind (on Linux).

    ``number`` is the signal that the child gets then.
    """
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def bind() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, number)
            if os.getppid() != parent:  # it died meanwhile
                os._exit(1)

    return bind
