"""What the log holds, whatever strangers send: lines of bounded length, at a bounded rate; for people, or as JSON.

Bounded are warnings and errors: nothing else tells of what strangers do. Needs nothing of Django: gunicorn logs with
it, too.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from iotsupport.monitoring import current_request

# What LOG_FORMAT may be.
LINES, JSON = "lines", "json"
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s%(of_request)s: %(message)s"

# Of a whole line, with its time and level.
LINE_CHARS = 200

# Of one that has AT_LENGTH among its ``extra``: it may say at length what to do, for nothing in it is a stranger's.
LONG_LINE_CHARS = 1000
AT_LENGTH = {"is_at_length": True}

# What a record has as ``extra={"fields": {…}}`` is said by its message, and in JSON also apart: name to text or number.
FIELDS = "fields"

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
        request_id = current_request.request_id()
        record.of_request = f" [{request_id}]" if request_id else ""
        if record.levelno < logging.WARNING:
            return super().format(record)
        record.message = _message_of(record)
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        line = self._one_line(record, self.formatMessage(record))
        return "\n".join([line, *_traceback_of(record)])

    def _one_line(self, record: logging.LogRecord, line: str) -> str:
        left_out = getattr(record, "left_out", 0)
        end = f" (and {left_out} more like it)" if left_out else ""
        return shorten(line, _most_chars(record) - len(end)) + end


class JsonFormatter(logging.Formatter):
    """Makes one JSON object of a record, in ASCII and on one line: whatever is logged, in whatever locale.

    ``time`` (RFC 3339, in UTC), ``level``, ``logger``, ``message``, ``request_id``; where there are any, ``left_out``
    (how many more were like it), ``traceback``, and its :data:`FIELDS`. Of a warning or error, the message is written
    with at most :data:`LINE_CHARS`, unless the log is not bounded.
    """

    def __init__(self, *, is_bounded: bool = True) -> None:
        super().__init__()
        self._is_bounded = is_bounded

    def format(self, record: logging.LogRecord) -> str:
        message = _message_of(record)
        if self._is_bounded and record.levelno >= logging.WARNING:
            message = _shorten_in_json(message, _most_chars(record))
        time_utc = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, Any] = {
            "time": time_utc.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _without_surrogates(message),
            "request_id": current_request.request_id(),
        }
        if left_out := getattr(record, "left_out", 0):
            said["left_out"] = left_out
        for name, value in getattr(record, FIELDS, {}).items():
            said[name] = _without_surrogates(value) if isinstance(value, str) else value
        if lines := _traceback_of(record):
            said["traceback"] = "\n".join(lines)
        return json.dumps(said, default=str)


def _message_of(record: logging.LogRecord) -> str:
    """What a record says; where its traceback is left out, with the error."""
    message = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    if error is None or getattr(record, "has_traceback", True):
        return message
    return f"{message}: {type(error).__name__}: {error}"


def _traceback_of(record: logging.LogRecord) -> list[str]:
    error = record.exc_info[1] if record.exc_info else None
    if error is None or not getattr(record, "has_traceback", True):
        return []
    text = "".join(traceback.format_exception(error))
    # The error may be a stranger's, whoever tells of it.
    return [shorten(each, LINE_CHARS) for each in text.splitlines()[-TRACEBACK_LINES:]]


def _most_chars(record: logging.LogRecord) -> int:
    return LONG_LINE_CHARS if getattr(record, "is_at_length", False) else LINE_CHARS


def shorten(text: str, most_chars: int) -> str:
    """Return the beginning of a text as part of a line: whatever would move a cursor or end a line is spelled out."""
    if len(text) <= most_chars and text.isprintable():
        return text
    # More could not be seen; a character may need ten to be spelled.
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: most_chars + 1])
    return text if len(text) <= most_chars else f"{text[: most_chars - 1]}…"


def _shorten_in_json(text: str, most_chars: int) -> str:
    """As :func:`shorten`, for what JSON writes in more characters than it has: twelve for some."""
    short = shorten(text, most_chars)
    while (too_many := len(json.dumps(short)) - 2 - most_chars) > 0:
        short = shorten(short, max(1, len(short) - max(1, too_many // 12)))
    return short


def _without_surrogates(text: str) -> str:
    """Spell out what is no character, and what programs therefore refuse to read."""
    return text.encode(errors="backslashreplace").decode()


def configuration(log_format: str) -> dict[str, Any]:
    """Return Django's ``LOGGING``: all goes to standard error, as lines for people or as JSON for programs."""
    formatters: dict[str, Any] = {
        LINES: {"()": LineFormatter, "format": LINE_FORMAT},
        JSON: {"()": JsonFormatter},
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {log_format: formatters[log_format]},
        "filters": {"rate": {"()": RateLimit}, "no_refusal_for_now": {"()": RefusalsForNow}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "formatter": log_format, "filters": ["rate"]},
        },
        "root": {"handlers": ["console"], "level": "WARNING"},
        "loggers": {
            name: {"handlers": ["console"], "level": "INFO", "propagate": False}
            for name in ["iotsupport", "devices", "assets", "notifications"]
        }
        | {
            "django": {"handlers": ["console"], "level": "WARNING", "propagate": False},
            # Every 404 of a device that has no configuration yet would be a line.
            "django.request": {"level": "ERROR", "filters": ["no_refusal_for_now"]},
            # It repeats for each connection why none can be made; whoever wanted one says that, too.
            "psycopg.pool": {"level": "ERROR"},
        },
    }


def bound(logger: logging.Logger) -> None:
    """Bound what the handlers of a logger write that was not configured here."""
    for handler in logger.handlers:
        formatter = handler.formatter or logging.Formatter()
        is_json = isinstance(formatter, JsonFormatter)
        handler.setFormatter(JsonFormatter() if is_json else LineFormatter(formatter._fmt, formatter.datefmt))
        handler.addFilter(RateLimit())
