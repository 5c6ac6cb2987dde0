"""Files of metrics on a disk that takes no more: nothing ends, and no old number stays."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iotsupport.monitoring import metrics_files
from iotsupport.monitoring.metrics_files import WrittenDict, read_entries
from iotsupport.monitoring.news import is_over

KEY = '["uploads", "uploads", {"status": "1"}, ""]'
OTHER = KEY.replace("1", "2")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "counter_1.db")
    is_over(str(tmp_path))  # for who comes next to this place


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a disk refuse what these functions of the operating system do; none, to have room again."""

    def fill(*names: str) -> None:
        for name in ["pwrite", "posix_fallocate", "replace", "open"]:
            monkeypatch.setattr(metrics_files.os, name, refuse if name in names else REAL[name])

    return fill


REAL: dict[str, Any] = {name: getattr(os, name) for name in ["pwrite", "posix_fallocate", "replace", "open"]}


def refuse(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def counts(path: str) -> dict[str, float]:
    return {key: value for key, value, *_ in read_entries(path)}


def test_goes_on_where_an_earlier_process_of_this_number_ended(path: str) -> None:
    WrittenDict(path).write_value(KEY, 3.0, 0.0)

    successor = WrittenDict(path)

    assert successor.read_value(KEY) == (3.0, 0.0)
    assert counts(path) == {KEY: 3.0}


@pytest.mark.parametrize("key", [KEY, OTHER], ids=["known", "new"])
def test_a_count_that_cannot_be_written_takes_the_old_ones_with_it(
    path: str, full: Callable[..., None], caplog: pytest.LogCaptureFixture, key: str
) -> None:
    written = WrittenDict(path)
    written.write_value(KEY, 1.0, 0.0)
    full("pwrite")

    written.write_value(key, 2.0, 0.0)

    assert not os.path.exists(path)
    assert written.read_value(key) == (2.0, 0.0)
    assert caplog.record_tuples == [
        (
            "iotsupport.monitoring.metrics_files",
            logging.ERROR,
            f"Metrics are off: {os.path.dirname(path)} cannot be written (No space left on device)",
        )
    ]


@pytest.mark.parametrize("operation", ["open", "posix_fallocate", "replace"])
def test_a_file_for_which_there_is_no_room_is_made_when_there_is_some(
    path: str, full: Callable[..., None], caplog: pytest.LogCaptureFixture, operation: str
) -> None:
    full(operation)
    written = WrittenDict(path)
    written.write_value(KEY, 1.0, 0.0)
    # No draft of it, either.
    assert os.listdir(os.path.dirname(path)) == []
    assert not written.is_in_place()
    full()

    written.wants_mending = True
    written.write_value(KEY, 2.0, 0.0)

    assert written.is_in_place()
    assert counts(path) == {KEY: 2.0}
    assert len(caplog.records) == 1


def test_more_names_than_there_is_room_for_are_counted_for_nobody(
    path: str, full: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    written = WrittenDict(path)
    written.write_value(KEY, 1.0, 0.0)
    full("posix_fallocate")

    long = KEY.replace("status", "s" * metrics_files.INITIAL_BYTES)
    written.write_value(long, 1.0, 0.0)

    assert not os.path.exists(path)
    assert written.read_value(long) == (1.0, 0.0)
    assert len(caplog.records) == 1


def test_a_file_that_goes_while_it_is_read_has_nothing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    assert WrittenDict.read_all_values_from_file(path) == []
    assert caplog.records == []
