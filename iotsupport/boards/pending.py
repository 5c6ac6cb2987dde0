"""What was heard of boards and is not written yet: in memory that has a limit, whoever asks for what."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from iotsupport.boards.checkins import MINUTE, CheckIn, Report, report_of
from iotsupport.boards.known import has_configuration
from iotsupport.boards.mac_addresses import find_mac_address

# Check-ins between two looks of the thread, and boards of which something is to be written: for a while of a database
# that does not answer. A few kilobytes and some hundred bytes each.
MOST_HEARD = 5_000
MOST_REPORTS = 10_000
# Of which it is remembered what they said last; twice as many at most.
MOST_REMEMBERED = 10_000
# Of one board between two looks: of what else it says, only the last is kept.
MOST_OF_ONE = 10
# Boards that asked for a configuration that is not there: anybody can make some up.
MOST_ASKING = 1_000
# The same of a header beside a request for an asset: they take no room from boards that have a configuration.
MOST_STRANGE = 1_000

# Written at once: a statement that takes long keeps others waiting who save. Of strangers, fewer.
REPORTS_AT_ONCE = 500
STRANGE_AT_ONCE = 100
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


class Room:
    """For some boards: what was heard of them and is not looked at yet, what they said last, and what is to be written.

    Who uses it has the lock, but for the reports, which are the thread's own.
    """

    def __init__(self, most_heard: int, most_remembered: int, most_reports: int, at_once: int) -> None:
        self._most_heard, self._most_remembered = most_heard, most_remembered
        self._most_reports, self._at_once = most_reports, at_once
        self._heard: dict[str, list[CheckIn]] = {}
        self._heard_count = 0
        # By kind and name: what was said last, as a hash, and when. Of those not in the first, the second may know.
        self._remembered: dict[tuple[str, str], tuple[int, float]] = {}
        self._remembered_before: dict[tuple[str, str], tuple[int, float]] = {}
        self.reports: dict[str, Report] = {}

    def find(self, key: tuple[str, str]) -> tuple[int, float] | None:
        """What was said last, and when."""
        return self._remembered.get(key) or self._remembered_before.get(key)

    def hear(self, mac_address: str, check_in: CheckIn, said: Said) -> bool:
        """Keep a check-in; return whether nothing had to go for that."""
        of_it = self._heard.get(mac_address, [])
        has_room = len(of_it) < MOST_OF_ONE and self._heard_count < self._most_heard
        if has_room:
            self._heard.setdefault(mac_address, of_it).append(check_in)
            self._heard_count += 1
        elif of_it and (check_in.is_download or not of_it[-1].is_download):
            of_it[-1] = check_in
        else:
            return False
        if len(self._remembered) >= self._most_remembered:
            self._remembered_before, self._remembered = self._remembered, {}
        self._remembered[said.key] = (said.hash, check_in.at)
        return has_room

    def take_heard(self) -> list[CheckIn]:
        heard, self._heard, self._heard_count = self._heard, {}, 0
        return [check_in for of_it in heard.values() for check_in in of_it]

    def fold(self, report: Report) -> bool:
        """Add to what is to be written; return whether there is room for it."""
        before = self.reports.get(report.mac_address)
        if before is not None:
            before.add(report)
        elif len(self.reports) < self._most_reports:
            self.reports[report.mac_address] = report
        else:
            return False
        return True

    def next_reports(self) -> Iterator[Report]:
        return islice(self.reports.values(), self._at_once)

    def is_empty(self) -> bool:
        return not (self._heard or self.reports)


class Pending:
    """Takes check-ins from any thread; one thread takes batches out of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known = Room(MOST_HEARD, MOST_REMEMBERED, MOST_REPORTS, REPORTS_AT_ONCE)
        self._strange = Room(MOST_STRANGE, MOST_STRANGE, MOST_STRANGE, STRANGE_AT_ONCE)
        self._asking: dict[str, Asking] = {}
        self._hours: Counter[int] = Counter()
        self._by_way: Counter[str] = Counter()
        self._dropped = 0
        # What the main thread counts, without the lock; and how much of that the thread that writes has taken.
        self._repeated = self._repeated_downloads = 0
        self._taken = self._taken_downloads = 0

    # --- The main thread ---

    def repeats_at_once(self, key: tuple[str, str], said: int, at: float, *, is_download: bool) -> bool:
        """As :meth:`repeats`, for the many that the worker answers by itself: it takes no lock."""
        last = self._known.find(key)
        if last is None or last[0] != said or not 0 <= at - last[1] < MINUTE:
            return False
        self._repeated += 1
        self._repeated_downloads += is_download
        return True

    # --- Any thread ---

    def repeats(self, way: str, said: Said, at: float, *, is_download: bool) -> bool:
        """Whether a board said just this within the minute: then it is counted, and there is nothing more to do."""
        with self._lock:
            last = self._known.find(said.key) or self._strange.find(said.key)
            if last is None or last[0] != said.hash or not 0 <= at - last[1] < MINUTE:
                return False
            self._by_way[way] += 1
            self._count(at, is_download)
            return True

    def take(self, check_in: CheckIn, said: Said) -> None:
        """Keep what a check-in tells; or, where there is no room, count it as dropped."""
        mac_address = find_mac_address(check_in.board.removesuffix(".json"))
        # What is there of a configuration, nobody can make up.
        is_known = mac_address is not None and (check_in.kind == "configs" or has_configuration(mac_address))
        with self._lock:
            self._count(check_in.at, check_in.is_download)
            if mac_address is None:
                return  # some other client
            self._by_way[check_in.way] += 1
            if check_in.is_asking:
                self._take_asking(check_in)
            elif not (self._known if is_known else self._strange).hear(mac_address, check_in, said):
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

    def _count(self, at: float, downloads: int) -> None:
        hour = int(at // 3600)
        if downloads and (hour in self._hours or len(self._hours) < MOST_HOURS):
            self._hours[hour] += downloads

    # --- The thread that writes ---

    def is_empty(self) -> bool:
        """Whether there is nothing to be counted or written, now or when the minute is over."""
        with self._lock:
            asking = any(asking.count for asking in self._asking.values())
            is_heard = not (self._known.is_empty() and self._strange.is_empty())
            is_repeated = self._repeated != self._taken
            return not (is_heard or is_repeated or self._hours or self._by_way or self._dropped or asking)

    def take_counts(self) -> tuple[Counter[str], int]:
        """Return how many check-ins came, by way, since this was asked last, and how many were dropped."""
        with self._lock:
            counts = self._by_way, self._dropped
            self._by_way, self._dropped = Counter(), 0
            return counts

    def take_batch(self, now: float) -> Batch:
        """Return what is to be written next: afterwards, say :meth:`forget` or :meth:`give_back`."""
        with self._lock:
            self._take_repeated(now)
            heard = [(room, room.take_heard()) for room in [self._known, self._strange]]
            hours, self._hours = self._hours, Counter()
            self._asking = {name: asking for name, asking in self._asking.items() if self._is_kept(asking, now)}
        for room, check_ins in heard:
            self._fold(room, check_ins)
        reports = {report.mac_address: report for room, _ in reversed(heard) for report in room.next_reports()}
        for report in self._take_some_asking(now):
            known = reports.setdefault(report.mac_address, report)
            if known is not report:
                known.add(report)
        return Batch(list(reports.values()), hours)

    def _fold(self, room: Room, check_ins: list[CheckIn]) -> None:
        for report in filter(None, map(report_of, check_ins)):
            # One that was given a configuration meanwhile is a stranger no more.
            home = self._known if report.mac_address in self._known.reports else room
            if not home.fold(report):
                self.drop(1)

    def _take_repeated(self, now: float) -> None:
        repeated, downloads = self._repeated, self._repeated_downloads
        if repeated != self._taken:
            self._by_way["worker"] += repeated - self._taken
        if downloads != self._taken_downloads:
            # Of this second, and so of this hour.
            self._count(now, downloads - self._taken_downloads)
        self._taken, self._taken_downloads = repeated, downloads

    def _is_kept(self, asking: Asking, now: float) -> bool:
        # What is written is remembered for the minute, while there is room for others.
        return asking.count > 0 or (len(self._asking) <= MOST_ASKING // 2 and asking.is_recent(now))

    def _take_some_asking(self, now: float) -> Iterator[Report]:
        with self._lock:
            due = [asking for asking in self._asking.values() if asking.count and not asking.is_recent(now)]
            for asking in due[:ASKING_AT_ONCE]:
                report = report_of(asking.check_in)
                if report is not None:
                    report.asked, asking.count, asking.written_at = asking.count, 0, now
                    yield report

    def forget(self, batch: Batch) -> None:
        """A batch is written, or cannot be."""
        for report in batch.reports:
            for room in [self._known, self._strange]:
                if room.reports.get(report.mac_address) is report:
                    del room.reports[report.mac_address]

    def give_back(self, batch: Batch) -> None:
        """A batch could not be written now, and is to be tried again."""
        with self._lock:
            for report in batch.reports:
                if report.asked:
                    asking = self._asking[f"{report.mac_address}.json"]
                    asking.count, asking.written_at, report.asked = asking.count + report.asked, None, 0
            for hour, count in batch.hours.items():
                if hour in self._hours or len(self._hours) < MOST_HOURS:
                    self._hours[hour] += count

    def drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count
