"""Threads that work beside the requests of a process."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Background(ABC):
    """Works in a thread of its own, while its process lives. A server need not stop it: it ends with the process."""

    def __init__(self, name: str) -> None:
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish what is under way, then do no more."""
        self._is_stopping.set()
        self._thread.join()

    @abstractmethod
    def _run(self) -> None:
        """Work until ``_is_stopping`` is set."""
