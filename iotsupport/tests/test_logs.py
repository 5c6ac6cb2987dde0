"""The log stays small whatever strangers send, and says how much it left out."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings

from iotsupport.monitoring import current_request
from iotsupport.monitoring.logs import (
    AT_LENGTH,
    BURST_LINES,
    CALM_SECONDS,
    FIELDS,
    JSON,
    LASTING,
    LINE_CHARS,
    LINE_FORMAT,
    LONG_LINE_CHARS,
    SECONDS_FOR_A_LINE,
    JsonFormatter,
    LineFormatter,
    RateLimit,
    bound,
    configuration,
    shorten,
)

OUR_HANDLERS: dict[str, Any] = settings.LOGGING["handlers"]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Log:
    """A logger whose lines are kept, and the clock that its limit looks at."""

    def __init__(self, formatter: logging.Formatter | None = None) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        self.logger = logging.Logger("of.a.test")
        handler = logging.Handler()
        handler.addFilter(RateLimit(self.clock))
        handler.setFormatter(formatter or LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.emit = lambda record: self.lines.append(handler.format(record))  # type: ignore[method-assign]
        self.logger.addHandler(handler)

    def refuse(self, text: object = "x", times: int = 1, **extra: object) -> None:
        for _ in range(times):
            self.logger.warning("Refused: %s", text, extra=extra)

    def fail(self, error: Exception, times: int = 1, **extra: object) -> None:
        for _ in range(times):
            try:
                raise error
            except Exception:
                self.logger.exception("Unexpected error", extra=extra)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.mark.parametrize(
    "text",
    ["\x01" * 4000, "a" * 10_000, "é" * 300, "\U0001f4a3" * 300, "\ud800" * 300, b"\xff" * 5000, ["x" * 999] * 9],
    ids=lambda text: ascii(text)[:12],
)
def test_a_line_has_at_most_two_hundred_characters(log: Log, text: object):
    log.refuse(text)

    assert len(log.lines[0]) == LINE_CHARS
    assert log.lines[0].endswith("…")


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        ("a\nERROR: all is lost", r"a\nERROR: all is lost"),
        ("a\r\x1b[2Jb", r"a\r\x1b[2Jb"),
        ("a\u2028b\u202eb\x85", r"a\u2028b\u202eb\x85"),
        ("\ud800", r"\ud800"),
        ("größer", "größer"),
    ],
)
def test_what_is_sent_cannot_pretend_to_be_another_line(log: Log, sent: str, logged: str):
    log.refuse(sent)

    assert log.lines[0].endswith(f"Refused: {logged}")


def test_lines_of_one_kind_become_rare_and_say_how_many_there_were(log: Log):
    log.refuse(times=1000)
    assert len(log.lines) == BURST_LINES

    log.clock.now += SECONDS_FOR_A_LINE
    log.refuse(times=1000)
    assert len(log.lines) == BURST_LINES + 1
    assert log.lines[-1].endswith(f"Refused: x (and {1000 - BURST_LINES} more like it)")

    log.clock.now += SECONDS_FOR_A_LINE
    log.refuse("y" * 10_000)
    assert log.lines[-1].endswith("y… (and 999 more like it)")
    assert len(log.lines[-1]) == LINE_CHARS


def test_an_hour_of_a_flood_is_some_hundred_lines(log: Log):
    for _ in range(3600):
        log.refuse(times=5)
        log.clock.now += 1

    assert len(log.lines) <= BURST_LINES + 3600 / SECONDS_FOR_A_LINE


def test_after_a_calm_every_line_counts_again(log: Log):
    log.refuse(times=20)
    log.clock.now += BURST_LINES * SECONDS_FOR_A_LINE
    log.lines.clear()

    log.refuse(times=20)

    assert len(log.lines) == BURST_LINES


def test_a_flood_of_one_kind_hides_no_other(log: Log):
    log.refuse(times=1000)
    log.lines.clear()

    log.logger.warning("The disk is full")
    log.logger.error("Refused: %s", "x")

    assert len(log.lines) == 2


def test_what_goes_as_it_should_is_neither_cut_nor_left_out(log: Log):
    for _ in range(100):
        log.logger.info("Connected\n%s", "x" * 1000)

    assert len(log.lines) == 100
    assert log.lines[0].endswith("Connected\n" + "x" * 1000)


def test_a_traceback_comes_once_and_then_its_last_line(log: Log):
    log.fail(ValueError("no\nsuch thing"), times=1000)

    assert len(log.lines) == BURST_LINES
    assert "Traceback (most recent call last)" in log.lines[0]
    assert log.lines[1].endswith(r"Unexpected error: ValueError: no\nsuch thing")

    log.fail(KeyError("another"))
    assert "Traceback (most recent call last)" in log.lines[-1], "It is of another kind."


def test_a_traceback_through_what_was_sent_is_bounded(log: Log):
    def fall(depth: int) -> None:
        if depth == 0:
            raise ValueError("x" * 100_000)
        fall(depth - 1)

    for start in [lambda: fall(0), lambda: fall(sys.getrecursionlimit() // 2)]:
        log.clock.now += 1000
        log.lines.clear()
        try:
            start()
        except ValueError:
            log.logger.exception("Unexpected error")

        lines = log.lines[0].splitlines()
        assert len(lines) <= 41
        assert max(map(len, lines)) == LINE_CHARS
        assert lines[-1].startswith("ValueError: xxx")


def test_what_holds_nothing_of_strangers_may_be_longer(log: Log):
    log.refuse("x" * 10_000, **AT_LENGTH)
    log.fail(ValueError("x" * 10_000), **AT_LENGTH)

    assert len(log.lines[0]) == LONG_LINE_CHARS
    assert max(map(len, log.lines[1].splitlines())) == LINE_CHARS


def test_a_trouble_that_lasts_is_a_traceback_and_then_a_line_a_minute(log: Log):
    for _ in range(600):
        log.fail(ValueError("away"), times=5, **LASTING)
        log.clock.now += 1

    assert len(log.lines) == 10
    assert [line.count("Traceback") for line in log.lines] == [1] + 9 * [0]
    assert log.lines[1].endswith("Unexpected error: ValueError: away (and 299 more like it)")

    log.clock.now += CALM_SECONDS
    log.fail(ValueError("away"), **LASTING)
    assert "Traceback" in log.lines[-1]


def test_refusals_for_now_are_told_by_whoever_refuses():
    logger = logging.getLogger("django.request")

    for status in [500, 503]:
        record = logger.makeRecord("", logging.ERROR, "f.py", 1, "x", (), None, extra={"status_code": status})
        assert bool(logger.filter(record)) == (status == 500)


def test_shortens_to_what_fits():
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"
    assert shorten("\n" * 10, 5) == r"\n\n…"


def test_bounds_a_logger_that_was_configured_elsewhere(capsys: pytest.CaptureFixture[str]):
    logger = logging.Logger("gunicorn.test")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s [%(levelname)s] %(message)s", "%Y"))
    logger.addHandler(handler)

    bound(logger)
    for _ in range(50):
        logger.warning("Invalid: %r", "\x01" * 4000)

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == BURST_LINES
    assert {len(line) for line in lines} == {LINE_CHARS}
    assert "[WARNING] Invalid: " in lines[0]


HOSTILE = [
    'a "quoted" \\ and\nanother {"level": "ERROR"}\r\n',
    "\x00\x1b[2J\x85\u2028\u2029\u202e",
    "\ud800 and \udcff",
    "größer \U0001f4a3",
    "x" * 100_000,
    "\U0001f4a3" * 100_000,
    "\ud800" * 1000,
    "",
]


class TestJson:
    @pytest.fixture
    def log(self) -> Log:
        return Log(JsonFormatter())

    @pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:12])
    @pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING, logging.CRITICAL])
    def test_each_record_is_one_object_in_ascii(self, log: Log, text: str, level: int):
        try:
            raise ValueError(text)
        except ValueError:
            log.logger.log(level, "Said: %s", text, exc_info=True, extra={FIELDS: {"who": text, "count": 3}})

        [line] = log.lines
        said = json.loads(line)
        assert line.isascii() and len(line.splitlines()) == 1
        assert list(said) == ["time", "level", "logger", "message", "request_id", "who", "count", "traceback"]
        json.dumps(said, ensure_ascii=False).encode()  # no half of a character
        assert said["logger"] == "of.a.test"
        assert said["message"].startswith("Said: ")
        assert said["count"] == 3
        assert said["traceback"].startswith("Traceback (most recent call last):\n")

    def test_its_time_is_rfc_3339_in_utc(self, log: Log, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("TZ", "Asia/Tokyo")

        log.refuse()

        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", json.loads(log.lines[0])["time"])
        record = logging.makeLogRecord({"created": 0.25, "levelno": logging.INFO, "msg": "x"})
        assert json.loads(JsonFormatter().format(record))["time"] == "1970-01-01T00:00:00.250Z"

    @pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:12])
    def test_what_strangers_cause_is_written_with_two_hundred_characters(self, log: Log, text: str):
        log.refuse(text)
        log.refuse(text, **AT_LENGTH)

        for line, most in zip(log.lines, [LINE_CHARS, LONG_LINE_CHARS], strict=True):
            assert len(json.dumps(json.loads(line)["message"])) - 2 <= most
        assert len(text) < 1000 or len(log.lines[0]) > LINE_CHARS

    def test_it_becomes_rare_and_says_how_many_there_were(self, log: Log):
        log.fail(ValueError("no\nsuch thing"), times=1000)
        log.clock.now += SECONDS_FOR_A_LINE
        log.fail(ValueError("no\nsuch thing"))

        first, second, *_, last = [json.loads(line) for line in log.lines]
        assert len(log.lines) == BURST_LINES + 1
        assert (first["message"], first["traceback"].splitlines()[-1]) == ("Unexpected error", "such thing")
        assert second["message"] == r"Unexpected error: ValueError: no\nsuch thing"
        assert "traceback" not in second
        assert last["left_out"] == 1000 - BURST_LINES

    def test_what_the_master_says_is_not_bounded(self):
        log = Log(JsonFormatter(is_bounded=False))

        log.refuse("x" * 5000)

        assert json.loads(log.lines[0])["message"] == "Refused: " + "x" * 5000

    def test_a_worker_bounds_what_gunicorn_says(self, capsys: pytest.CaptureFixture[str]):
        logger = logging.Logger("gunicorn.test")
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter(is_bounded=False))
        logger.addHandler(handler)

        bound(logger)
        for _ in range(50):
            logger.warning("Invalid: %r", "\x01" * 4000)

        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert {len(json.dumps(line["message"])) - 2 <= LINE_CHARS for line in lines} == {True}
        assert len(lines) == BURST_LINES

    def test_all_of_it_goes_one_way(self):
        lines, as_json = configuration("lines"), configuration(JSON)

        assert as_json["formatters"] == {JSON: {"()": JsonFormatter}}
        assert as_json["handlers"]["console"] == {**lines["handlers"]["console"], "formatter": JSON}
        assert as_json["loggers"] == lines["loggers"]


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_a_line_says_which_request_it_is_about(level: int):
    said = [LineFormatter(LINE_FORMAT), JsonFormatter()]
    record = logging.makeLogRecord({"name": "a.test", "levelno": level, "levelname": "ANY", "msg": "Said"})

    with current_request.working_at("abc-1"):
        line, as_json = [formatter.format(record) for formatter in said]

    assert line.endswith("ANY a.test [abc-1]: Said")
    assert json.loads(as_json)["request_id"] == "abc-1"
    assert said[0].format(record).endswith("ANY a.test: Said")
    assert json.loads(said[1].format(record))["request_id"] is None


@pytest.mark.parametrize(
    "name",
    [
        "django.security.DisallowedHost",
        "django.security.csrf",
        "django.request",
        "axes.handlers",
        "any.library",
        "iotsupport.errors",
        "iotsupport.accounts.signin",
        "devices.views",
        "assets.views",
        "notifications.admin",
    ],
)
def test_what_is_logged_of_strangers_passes_through_the_limits(name: str, handlers_of: Callable[[str], Any]):
    for handler in handlers_of(name):
        assert any(isinstance(each, RateLimit) for each in handler.filters)
        assert isinstance(handler.formatter, LineFormatter)
        error = ValueError("x" * 9999)
        for exception in [None, (ValueError, error, None)]:
            record = logging.LogRecord(name, logging.WARNING, "f.py", 1, "Invalid: %s", ("x" * 9999,), exception)
            assert max(map(len, handler.format(record).splitlines())) == LINE_CHARS


@pytest.fixture
def handlers_of() -> Callable[[str], list[logging.Handler]]:
    """Which handlers of ours a logger reaches; pytest has its own at the root."""

    def find(name: str) -> list[logging.Handler]:
        logger: logging.Logger | None = logging.getLogger(name)
        found: list[logging.Handler] = []
        while logger is not None:
            found += [handler for handler in logger.handlers if handler.name in OUR_HANDLERS]
            logger = logger.parent if logger.propagate else None
        assert found
        return found

    return find
