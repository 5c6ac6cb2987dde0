"""What the log holds, whatever strangers send: lines of bounded length, at a bounded rate.

Warnings and errors alone: nothing else tells of what strangers do. Needs nothing of Django: gunicorn logs with it, too.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

# Of a whole line, with its time and level.
LINE_CHARS = 200

# So many lines of one kind are logged one after the other, and afterwards one in so many seconds.
BURST_LINES = 10
SECONDS_FOR_A_LINE = 10.0

# Of the end of a traceback, where the error is.
TRACEBACK_LINES = 40


class RateLimit(logging.Filter):
    """Lets through what :data:`BURST_LINES` and :data:`SECONDS_FOR_A_LINE` allow for each kind of line.

    Of one kind is what one place in the code logs with one type of exception: a flood of one kind hides no other. A
    line that gets through knows how many did not since the one before (``left_out``), and only the first one after a
    calm has its traceback.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[tuple[Any, ...], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        exception = record.exc_info[0] if record.exc_info else None
        kind = record.name, record.levelno, record.pathname, record.lineno, exception
        with self._lock:
            return self._kinds.setdefault(kind, _Kind(self._clock())).take(record, self._clock())


class _Kind:
    def __init__(self, now: float) -> None:
        self._lines_left = float(BURST_LINES)
        self._counted_at = now
        self._left_out = 0

    def take(self, record: logging.LogRecord, now: float) -> bool:
        grown = self._lines_left + (now - self._counted_at) / SECONDS_FOR_A_LINE
        self._lines_left, self._counted_at = min(grown, float(BURST_LINES)), now
        if self._lines_left < 1:
            self._left_out += 1
            return False
        record.has_traceback = self._lines_left == BURST_LINES
        record.left_out, self._left_out = self._left_out, 0
        self._lines_left -= 1
        return True


class LineFormatter(logging.Formatter):
    """Makes one line of a warning or error, of at most ``most_chars`` characters; so is each line of a traceback."""

    def __init__(self, *args: Any, most_chars: int = LINE_CHARS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most_chars = most_chars

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno < logging.WARNING:
            return super().format(record)
        record.message = record.getMessage()
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return self._one_line(record, line)
        if not getattr(record, "has_traceback", True):
            return self._one_line(record, f"{line}: {type(error).__name__}: {error}")
        text = "".join(traceback.format_exception(error))
        lines = [shorten(each, self._most_chars) for each in text.splitlines()[-TRACEBACK_LINES:]]
        return "\n".join([self._one_line(record, line), *lines])

    def _one_line(self, record: logging.LogRecord, line: str) -> str:
        left_out = getattr(record, "left_out", 0)
        end = f" (and {left_out} more like it)" if left_out else ""
        return shorten(line, self._most_chars - len(end)) + end


def shorten(text: str, most_chars: int) -> str:
    """Return the beginning of a text as part of a line: whatever would move a cursor or end a line is spelled out."""
    # More could not be seen; a character may need ten to be spelled.
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: most_chars + 1])
    return text if len(text) <= most_chars else f"{text[: most_chars - 1]}…"


def bound(logger: logging.Logger) -> None:
    """Bound what the handlers of a logger write that was not configured here."""
    for handler in logger.handlers:
        formatter = handler.formatter or logging.Formatter()
        handler.setFormatter(LineFormatter(formatter._fmt, formatter.datefmt))
        handler.addFilter(RateLimit())
