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

# Of one that has AT_LENGTH among its ``extra``: it may say at length what to do, for nothing in it is a stranger's.
LONG_LINE_CHARS = 1000
AT_LENGTH = {"is_at_length": True}

# So many lines of one kind are logged one after the other, and afterwards one in so many seconds.
BURST_LINES = 10
SECONDS_FOR_A_LINE = 10.0

# A trouble that every request meets while it lasts has LASTING among its ``extra``: one line, afterwards one in so many
# seconds. Its traceback comes again when nothing was heard of it for so long.
LASTING = {"is_lasting": True}
SECONDS_FOR_A_LASTING_LINE = 60.0
CALM_SECONDS = 600.0

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
        make = _LastingKind if getattr(record, "is_lasting", False) else _Kind
        with self._lock:
            now = self._clock()
            if kind not in self._kinds:
                self._kinds[kind] = make(now)
            return self._kinds[kind].take(record, now)


class _Kind:
    burst_lines, seconds_for_a_line = BURST_LINES, SECONDS_FOR_A_LINE

    def __init__(self, now: float) -> None:
        self._lines_left = float(self.burst_lines)
        self._counted_at = now
        self._left_out = 0

    def take(self, record: logging.LogRecord, now: float) -> bool:
        grown = self._lines_left + (now - self._counted_at) / self.seconds_for_a_line
        self._lines_left, self._counted_at = min(grown, float(self.burst_lines)), now
        if self._lines_left < 1:
            self._left_out += 1
            return False
        record.has_traceback = self._lines_left == self.burst_lines
        record.left_out, self._left_out = self._left_out, 0
        self._lines_left -= 1
        return True


class _LastingKind(_Kind):
    burst_lines, seconds_for_a_line = 1, SECONDS_FOR_A_LASTING_LINE

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self._seen_at = float("-inf")

    def take(self, record: logging.LogRecord, now: float) -> bool:
        is_taken = super().take(record, now)
        record.has_traceback = now - self._seen_at >= CALM_SECONDS
        self._seen_at = now
        return is_taken


class RefusalsForNow(logging.Filter):
    """Leaves out what Django says of each answer 503: whoever refuses says why, and not for each request."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != 503


class LineFormatter(logging.Formatter):
    """Makes one line of a warning or error, of at most :data:`LINE_CHARS`; so is each line of a traceback."""

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
        # The error may be a stranger's, whoever tells of it.
        lines = [shorten(each, LINE_CHARS) for each in text.splitlines()[-TRACEBACK_LINES:]]
        return "\n".join([self._one_line(record, line), *lines])

    def _one_line(self, record: logging.LogRecord, line: str) -> str:
        left_out = getattr(record, "left_out", 0)
        end = f" (and {left_out} more like it)" if left_out else ""
        most_chars = LONG_LINE_CHARS if getattr(record, "is_at_length", False) else LINE_CHARS
        return shorten(line, most_chars - len(end)) + end


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
