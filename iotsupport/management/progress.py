"""How far a long command has come, in the last line of a terminal."""

from __future__ import annotations

import shutil
import time

from django.core.management.base import OutputWrapper

# Between two looks of whoever watches.
PAUSE_SECONDS = 0.1

CLEAR = "\r\x1b[K"  # ECMA-48, "EL": erase in line
MOST_BAR_COLUMNS = 30


class Progress:
    """A bar below what a command writes to a terminal; elsewhere, nothing."""

    def __init__(self, output: OutputWrapper, total: int) -> None:
        self._output, self._total = output, total
        self._began = self._shown_at = time.monotonic()
        self._is_shown = False

    def show(self, done: int) -> None:
        """Say that so many of all are done; now and then, it is written."""
        now = time.monotonic()
        if not self._output.isatty() or now - self._shown_at < PAUSE_SECONDS or done == 0:
            return
        seconds_left = (now - self._began) / done * (self._total - done)
        facts = f" {done} of {self._total}, {_lasting(seconds_left)} left"
        columns = min(MOST_BAR_COLUMNS, shutil.get_terminal_size().columns - len(facts) - 3)
        full = columns * done // self._total
        bar = f"[{'#' * full}{'.' * (columns - full)}]" if columns > 0 else ""
        self._write(f"{CLEAR}{bar}{facts}")
        self._is_shown, self._shown_at = True, now

    def clear(self) -> None:
        """Make room for a line of the command's."""
        if self._is_shown:
            self._write(CLEAR)
            self._is_shown, self._shown_at = False, 0.0

    def _write(self, text: str) -> None:
        self._output.write(text, ending="")
        self._output.flush()


def _lasting(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
