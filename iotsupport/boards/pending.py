"""What was heard of boards and is not written yet: in memory that has a limit, whoever asks for what."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from iotsupport.boards.checkins import MINUTE, CheckIn, Report, report_of

# Check-ins between two looks of the thread, and boards of which something is to be written: for a while of a database
# that does not answer. A few kilobytes and some hundred bytes each.
MOST_HEARD = 5_000
MOST_REPORTS = 10_000
# Boards that asked for a configuration that is not there: anybody can make some up.
MOST_ASKING = 1_000
# Of which it is remembered what they said last; twice as many at most.
MOST_REMEMBERED = 10_000

# Written at once: a statement that takes long keeps others waiting who save. Of strangers, fewer.
REPORTS_AT_ONCE = 500
ASKING_AT_ONCE = 100

# Hours in which there were downloads that are not written yet; there is one, or two, unless the clock is wrong.
MOST_HOURS = 48


class Said(NamedTuple):
    """Which board it is, and all that it said, as a hash."""

    key: tuple[str, str]
    """The kind, and by what the board is known there; empty where it is none."""
    hash: int

    @classmethod
    def of(cls, check_in: CheckIn) -> Said:
        """All of it, but the way and the time."""
        return cls((check_in.kind, check_in.board), hash(check_in[2:]))


@dataclass(slots=True)
class Asking:
    """A board that asks for a configuration that is not there."""

    check_in: CheckIn
    count: int = 1
    """Of those that are not written."""
    written_at: float | None = None

    def is_recent(self, now: float) -> bool:
        """Whether it was written within the minute."""
        return self.written_at is not None and 0 <= now - self.written_at < MINUTE


@dataclass
class Batch:
    """What is to be written together."""

    reports: list[Report] = field(default_factory=list)
    """At most one of each board."""
    hours: Counter[int] = field(default_factory=Counter)
    """Downloads, by the hour since 1970."""

    def __bool__(self) -> bool:
        return bool(self.reports or self.hours)


class Pending:
    """Takes check-ins from any thread; one thread takes batches out of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: list[CheckIn] = []
        self._asking: dict[str, Asking] = {}
        self._hours: Counter[int] = Counter()
        self._by_way: Counter[str] = Counter()
        self._dropped = 0
        # By kind and name: what was said last, as a hash, and when. Of those not in the first, the second may know.
        self._remembered: dict[tuple[str, str], tuple[int, float]] = {}
        self._remembered_before: dict[tuple[str, str], tuple[int, float]] = {}
        # The thread's own.
        self._reports: dict[str, Report] = {}

    # --- Any thread ---

    def repeats(self, way: str, said: Said, at: float, *, is_download: bool) -> bool:
        """Whether a board said just this within the minute: then it is counted, and there is nothing more to do."""
        with self._lock:
            last = self._remembered.get(said.key) or self._remembered_before.get(said.key)
            if last is None or last[0] != said.hash or not 0 <= at - last[1] < MINUTE:
                return False
            self._by_way[way] += 1
            self._count(at, is_download)
            return True

    def take(self, check_in: CheckIn, said: Said) -> None:
        """Keep what a check-in tells; or, where there is no room, count it as dropped."""
        with self._lock:
            self._count(check_in.at, check_in.is_download)
            if not said.key[1]:
                return  # some other client
            self._by_way[check_in.way] += 1
            if check_in.is_asking:
                self._take_asking(check_in)
            elif len(self._heard) < MOST_HEARD:
                self._heard.append(check_in)
                self._remember(said, check_in.at)
            else:
                self._dropped += 1

    def _take_asking(self, check_in: CheckIn) -> None:
        asking = self._asking.get(check_in.filename)
        if asking is not None:
            asking.check_in = check_in
            asking.count += 1
        elif len(self._asking) < MOST_ASKING:
            self._asking[check_in.filename] = Asking(check_in)
        else:
            self._dropped += 1

    def _count(self, at: float, is_download: bool) -> None:
        hour = int(at // 3600)
        if is_download and (hour in self._hours or len(self._hours) < MOST_HOURS):
            self._hours[hour] += 1

    def _remember(self, said: Said, at: float) -> None:
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered_before, self._remembered = self._remembered, {}
        self._remembered[said.key] = (said.hash, at)

    # --- The thread that writes ---

    def is_empty(self) -> bool:
        """Whether there is nothing to be counted or written, now or when the minute is over."""
        with self._lock:
            asking = any(asking.count for asking in self._asking.values())
            return not (self._heard or self._hours or self._by_way or self._dropped or asking or self._reports)

    def take_counts(self) -> tuple[Counter[str], int]:
        """Return how many check-ins came, by way, since this was asked last, and how many were dropped."""
        with self._lock:
            counts = self._by_way, self._dropped
            self._by_way, self._dropped = Counter(), 0
            return counts

    def take_batch(self, now: float) -> Batch:
        """Return what is to be written next: afterwards, say :meth:`forget` or :meth:`give_back`."""
        with self._lock:
            heard, self._heard = self._heard, []
            hours, self._hours = self._hours, Counter()
            self._asking = {name: asking for name, asking in self._asking.items() if self._is_kept(asking, now)}
        for check_in in heard:
            self._fold(check_in)
        return Batch([*islice(self._reports.values(), REPORTS_AT_ONCE), *self._take_some_asking(now)], hours)

    def _is_kept(self, asking: Asking, now: float) -> bool:
        # What is written is remembered for the minute, while there is room for others.
        return asking.count > 0 or (len(self._asking) <= MOST_ASKING // 2 and asking.is_recent(now))

    def _take_some_asking(self, now: float) -> Iterator[Report]:
        with self._lock:
            due = [asking for asking in self._asking.values() if asking.count and not asking.is_recent(now)]
            for asking in due[:ASKING_AT_ONCE]:
                report = report_of(asking.check_in)
                if report is not None and report.mac_address not in self._reports:
                    report.asked, asking.count, asking.written_at = asking.count, 0, now
                    yield report

    def _fold(self, check_in: CheckIn) -> None:
        report = report_of(check_in)
        if report is None:
            return
        before = self._reports.get(report.mac_address)
        if before is not None:
            before.add(report)
        elif len(self._reports) < MOST_REPORTS:
            self._reports[report.mac_address] = report
        else:
            self.drop(1)

    def forget(self, batch: Batch) -> None:
        """A batch is written, or cannot be."""
        for report in batch.reports:
            if not report.asked:
                del self._reports[report.mac_address]

    def give_back(self, batch: Batch) -> None:
        """A batch could not be written now, and is to be tried again."""
        asked = {f"{report.mac_address}.json": report.asked for report in batch.reports if report.asked}
        with self._lock:
            for name, count in asked.items():
                self._asking[name].count += count
                self._asking[name].written_at = None
            for hour, count in batch.hours.items():
                if hour in self._hours or len(self._hours) < MOST_HOURS:
                    self._hours[hour] += count

    def drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count
