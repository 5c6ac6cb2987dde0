"""Has the thread of this process, if there is one, look at once for what is to be done."""

from __future__ import annotations

import threading

woken = threading.Event()


def wake() -> None:
    woken.set()
