"""The files in which the workers of a server add up their metrics, kept from doing harm.

prometheus_client maps them, and makes them sparse: on a full disk, or where one is cut short, the next count ends the
process with SIGBUS. One that is empty or damaged makes every scrape fail. Here they are allocated when they are made,
and written instead of mapped; the truth is in the memory of their process. What cannot be written is not counted, and
what cannot be read is left out.

Import this before a metric is made: it takes the place of prometheus_client's own class.
"""

from __future__ import annotations

import json
import logging
import os
import re
import struct
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prometheus_client import Metric, multiprocess, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector

from iotsupport.monitoring import metrics_directory
from iotsupport.monitoring.news import is_news, is_over

logger = logging.getLogger(__name__)

# Kind, for gauges how they are put together, process id; see prometheus_client.values.
FILE_NAME = re.compile(r"(?:counter|histogram|summary|gauge_[a-z]+)_\d+\.db")

INITIAL_BYTES = 64 * 1024

# The layout of a file is that of prometheus_client.mmap_dict: how much is used, then entries of a key and two numbers.
USED = struct.Struct("i")
NUMBERS = struct.Struct("dd")
ENTRIES_START = 8

# What reading a damaged file may raise.
DAMAGES = (OSError, ValueError, RuntimeError, struct.error, TypeError, AttributeError)

_living: weakref.WeakSet[WrittenDict] = weakref.WeakSet()


class WrittenDict(MmapedDict):
    """Numbers of this process by name, and their copy in a file that other processes read.

    prometheus_client lets one thread at a time write.
    """

    # Set by any thread; the next one that writes sees to it.
    wants_mending = False

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._fname = filename
        self._descriptor: int | None = None
        self._m: bytearray = bytearray(INITIAL_BYTES)  # type: ignore[assignment]
        self._used = ENTRIES_START
        self._positions: dict[str, int] = {}
        # An earlier process of this server may have had this id.
        with suppress(*DAMAGES):
            for key, value, timestamp, _ in read_entries(filename):
                self.write_value(key, value, timestamp)
        self._write_anew()
        _living.add(self)

    @staticmethod
    def read_all_values_from_file(filename: str) -> list[tuple[str, float, float, int]]:
        """As the parent's, but of a file that is not there or damaged nothing, which is said once."""
        try:
            entries = read_entries(filename)
        except FileNotFoundError:
            return []  # its process ended meanwhile
        except DAMAGES as error:
            if is_news(filename):
                logger.warning("Left out of the metrics, since it cannot be read: %s (%s)", filename, error)
            return []
        is_over(filename)
        return entries

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        if self.wants_mending:
            self._mend()
        if key not in self._positions:
            self._init_value(key)
        position, numbers = self._positions[key], NUMBERS.pack(value, timestamp)
        self._m[position : position + len(numbers)] = numbers
        if self._descriptor is None:
            return
        try:
            os.pwrite(self._descriptor, numbers, position)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_in_place(self) -> bool:
        """Whether other processes find the file, and can read it."""
        if self._descriptor is None:
            return False
        try:
            read_entries(self._fname)
            return os.path.samestat(os.stat(self._fname), os.fstat(self._descriptor))
        except DAMAGES:
            return False

    def _mend(self) -> None:
        self.wants_mending = False
        self.close()
        self._write_anew()

    def _init_value(self, key: str) -> None:
        encoded = key.encode()
        padded = encoded + b" " * (8 - (len(encoded) + 4) % 8)
        entry = USED.pack(len(encoded)) + padded + NUMBERS.pack(0.0, 0.0)
        start, end = self._used, self._used + len(entry)
        has_outgrown = end > len(self._m)
        while end > len(self._m):
            self._m.extend(bytes(len(self._m)))
        self._m[start:end] = entry
        self._positions[key] = end - NUMBERS.size
        self._used = end
        self._m[: USED.size] = USED.pack(end)
        if self._descriptor is None:
            return
        try:
            if has_outgrown:
                os.posix_fallocate(self._descriptor, 0, len(self._m))
            os.pwrite(self._descriptor, entry, start)
            os.pwrite(self._descriptor, USED.pack(end), 0)  # last: a reader sees whole entries
        except OSError as error:
            self._give_up(error)

    def _write_anew(self) -> None:
        """Put a file in place that holds all of it. A reader sees it whole, or not at all."""
        self._m[: USED.size] = USED.pack(self._used)
        draft = f"{self._fname}.new"
        try:
            os.makedirs(os.path.dirname(self._fname), mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):
                os.unlink(draft)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._give_up(error)
            return
        self._descriptor = descriptor
        try:
            os.posix_fallocate(descriptor, 0, len(self._m))
            os.pwrite(descriptor, self._m[: self._used], 0)
            os.replace(draft, self._fname)
        except OSError as error:
            with suppress(OSError):
                os.unlink(draft)
            self._give_up(error)
            return
        is_over(os.path.dirname(self._fname))

    def _give_up(self, error: OSError) -> None:
        """Go on counting for nobody. A file that is not kept up would tell old numbers for ever."""
        self.close()
        with suppress(OSError):
            os.unlink(self._fname)
        directory = os.path.dirname(self._fname)
        if is_news(directory):
            logger.error("Metrics are off: %s cannot be written (%s)", directory, error.strerror)


values.MmapedDict = multiprocess.MmapedDict = WrittenDict  # type: ignore[misc]


class WorkersCollector(Collector):
    """What all workers of this server, the dead ones too, counted together."""

    def collect(self) -> Iterable[Metric]:
        directory = metrics_directory.current()
        try:
            names = os.listdir(directory) if directory else []
        except OSError:
            return []  # which whoever cannot write there says
        files = [os.path.join(str(directory), name) for name in names if FILE_NAME.fullmatch(name)]
        return list(multiprocess.MultiProcessCollector.merge(files))


def mend_files() -> None:
    """Have the files of this process put in place again where they are gone or damaged, or there was no room before."""
    for each in list(_living):
        each.wants_mending = not each.is_in_place()


def give_back_room(directory: Path, pid: int) -> None:
    """Cut the files of a dead worker to what it used of them: they lie in memory until the server is started again."""
    for path in directory.glob(f"*_{pid}.db"):
        with suppress(*DAMAGES):
            entries = read_entries(str(path))
            end = entries[-1][3] + NUMBERS.size if entries else ENTRIES_START
            os.truncate(path, end)


def read_entries(filename: str) -> list[tuple[str, float, float, int]]:
    """Return keys, values, timestamps and positions. Raises one of ``DAMAGES``."""
    entries: list[tuple[str, float, float, int]] = list(MmapedDict.read_all_values_from_file(filename))
    for key, *_ in entries:
        metric_name, name, labels, help_text = json.loads(key)
        labels.items()
    return entries


def is_shared() -> bool:
    """Whether this process adds up its metrics with others."""
    return bool(values.ValueClass._multiprocess)
