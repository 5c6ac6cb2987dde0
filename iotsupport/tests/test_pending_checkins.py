"""What is heard of boards takes bounded memory, whoever asks for what, and however long the database is away."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from iotsupport.boards import pending as pending_module
from iotsupport.boards.checkins import MINUTE, CheckIn
from iotsupport.boards.pending import MOST_HOURS, MOST_OF_ONE, Batch, Pending, Said
from iotsupport.mirror.files import mirror_storage
from iotsupport.tests.support.checkins import MAC, NOON, Collector, asked, etag, fetched, sha256, updated

HOUR = int(NOON // 3600)

# A tenth of each of the product's: a flood fills them in a tenth of the time.
LIMITS = {
    name: getattr(pending_module, name) // 10
    for name in ["MOST_HEARD", "MOST_REPORTS", "MOST_REMEMBERED", "MOST_ASKING", "MOST_STRANGE"]
    + ["REPORTS_AT_ONCE", "STRANGE_AT_ONCE", "ASKING_AT_ONCE"]
}
MOST_HEARD, MOST_ASKING, MOST_STRANGE = [LIMITS[name] for name in ["MOST_HEARD", "MOST_ASKING", "MOST_STRANGE"]]
STRANGE_AT_ONCE, ASKING_AT_ONCE = LIMITS["STRANGE_AT_ONCE"], LIMITS["ASKING_AT_ONCE"]


class Fake(Collector):
    """What it would write is kept here, and it is told whether that works."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Batch] = []
        self.error: Exception | None = None
        self.counts: list[Any] = []
        self._write = self.keep

    def keep(self, batch: Batch, now: float) -> None:
        if self.error is not None:
            raise self.error
        self.written.append(batch)

    def note_and_flush(self, *check_ins: CheckIn) -> list[str]:
        """The boards of which something is written."""
        for check_in in check_ins:
            self.note(check_in)
            self.time = check_in.at
        return self.flushed()

    def flushed(self) -> list[str]:
        before = len(self.written)
        self.flush()
        return [report.mac_address for batch in self.written[before:] for report in batch.reports]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Fake:
    for name, limit in LIMITS.items():
        monkeypatch.setattr(pending_module, name, limit)
    fake = Fake()
    monkeypatch.setattr("iotsupport.boards.collector.count_check_ins", lambda *counts: fake.counts.append(counts))
    return fake


@pytest.fixture
def configs_directory(directories: Path) -> Path:
    """Where configurations are mirrored."""
    return Path(mirror_storage("configs").location)


def mac(number: int) -> str:
    digits = f"{number:012x}"
    return "-".join(digits[i : i + 2] for i in range(0, 12, 2))


def test_the_same_within_the_minute_is_written_once(collector: Fake) -> None:
    assert collector.note_and_flush(fetched("a")) == [MAC]

    for second in range(1, 60):
        assert collector.note_and_flush(fetched("a", at=NOON + second)) == []

    assert collector.note_and_flush(fetched("a", at=NOON + MINUTE)) == [MAC]


@pytest.mark.parametrize(
    "later",
    [
        fetched("b", at=NOON + 1),
        fetched("a", at=NOON + 1, remote="192.0.2.8"),
        fetched("a", at=NOON + 1, user_agent="kitchen/1.4.2"),
        fetched("a", at=NOON + 1, status=304),
        updated(at=NOON + 1),
        fetched("a", at=NOON - 1),  # the clock was set back
    ],
)
def test_what_is_new_is_written_within_the_minute(collector: Fake, later: CheckIn) -> None:
    collector.note_and_flush(fetched("a"))

    assert collector.note_and_flush(later) == [MAC]


def test_of_one_that_asks_a_thousand_times_a_second_each_is_counted_and_nothing_grows(collector: Fake) -> None:
    board = fetched("a")
    for number in range(30_000):
        collector.note(board._replace(at=NOON + number / 1000))
    collector.flush()

    [batch] = collector.written
    assert len(batch.reports) == 1
    assert batch.hours == {HOUR: 30_000}
    assert collector.counts == [({"worker": 30_000}, 0)]


def test_of_one_that_asks_for_nothing_a_thousand_times_a_second_one_row_a_minute_says_how_often(
    collector: Fake,
) -> None:
    seconds, board = {}, asked()
    for second in range(70):
        for _ in range(1000):
            collector.note(board._replace(at=NOON + second))
        collector.time = NOON + second
        if collector.flushed():
            seconds[second] = collector.written[-1].reports[0].asked

    assert seconds == {0: 1000, 60: 60_000}


def test_what_asked_before_it_fell_silent_is_written_when_the_minute_is_over(collector: Fake) -> None:
    collector.note_and_flush(asked())
    assert collector.note_and_flush(asked(at=NOON + 1)) == []
    assert not collector._pending.is_empty()  # so the thread goes on

    collector.time = NOON + MINUTE
    assert collector.flushed() == [MAC]
    assert collector._pending.is_empty()


def test_a_flood_of_made_up_addresses_costs_no_more_than_so_many(collector: Fake) -> None:
    stranger = asked()
    for number in range(10_000):
        at = NOON + number / 200
        collector.note(stranger._replace(filename=f"{mac(number)}.json", at=at))
        if number % 200 == 0:
            collector.note(fetched("a", at=at, user_agent=f"kitchen/{number}"))
            collector.time = at
            written = collector.flushed()
            assert MAC in written  # others are noted meanwhile
            assert len(written) <= 1 + ASKING_AT_ONCE
    collector.flush()

    assert len(collector._pending._asking) <= MOST_ASKING
    assert not collector._pending._known.reports
    dropped = sum(dropped for _, dropped in collector.counts)
    assert sum(counts["view"] for counts, _ in collector.counts) == 10_000
    assert 9_000 < dropped < 10_000


def test_made_up_headers_take_no_room_from_boards_that_have_a_configuration(
    collector: Fake, configs_directory: Path
) -> None:
    (configs_directory / f"{MAC}.json").write_text("{}")
    stranger, written = updated(status=404, method="HEAD"), []
    for second in range(5):
        for number in range(2 * MOST_HEARD):
            made_up = mac(second * 2 * MOST_HEARD + number)
            collector.note(stranger._replace(mac_address=made_up, at=NOON + second))
        written.append(collector.note_and_flush(updated(at=NOON + second, user_agent=f"kitchen/{second}")))
        assert len(written[-1]) <= 1 + STRANGE_AT_ONCE

    assert [MAC in boards for boards in written] == [True] * 5
    room = collector._pending._strange
    assert len(room.reports) <= MOST_STRANGE
    assert len(room._remembered) + len(room._remembered_before) <= 2 * MOST_STRANGE
    assert not collector._pending._known.reports


def test_made_up_headers_make_nobody_forget_what_boards_said(collector: Fake, monkeypatch: Any) -> None:
    monkeypatch.setattr(collector._pending._known, "_most_remembered", MOST_STRANGE)
    collector.note_and_flush(fetched("a"))
    for second in range(3):
        for number in range(2 * MOST_STRANGE):
            made_up = mac(second * 2 * MOST_STRANGE + number)
            collector.note(updated(made_up, at=NOON + second))
        collector.time = NOON + second
        collector.flush()

    collector.note(fetched("a", at=NOON + 3))
    while written := collector.flushed():
        assert MAC not in written


def test_one_that_calls_itself_a_thousand_names_takes_no_room_from_others(collector: Fake) -> None:
    for number in range(2 * MOST_HEARD):
        collector.note(fetched("a", user_agent=f"kitchen/{number}"))
    collector.note(fetched("b", method="HEAD", if_none_match=etag("b")))  # not what it was sent last
    collector.note(fetched("a", mac_address=mac(1)))
    collector.flush()

    [batch] = collector.written
    found = {report.mac_address: (report.holds_sha256, report.user_agent) for report in batch.reports}
    expected = (sha256("a"), f"kitchen/{2 * MOST_HEARD - 1}")
    assert found == {MAC: expected, mac(1): (sha256("a"), "")}
    assert collector.counts == [({"worker": 2 * MOST_HEARD + 2}, 2 * MOST_HEARD + 1 - MOST_OF_ONE)]


def test_a_stranger_is_noted_when_it_may_be_a_board_that_waits(collector: Fake) -> None:
    written = collector.note_and_flush(asked(), updated(user_agent="kitchen/1"))

    assert written == [MAC]
    [report] = collector.written[0].reports
    assert (report.asked, report.user_agent) == (1, "kitchen/1")


def test_what_could_not_be_written_is_not_counted_twice(collector: Fake) -> None:
    collector.error = OperationalError("away")
    collector.error.__cause__ = OSError()
    assert collector.note_and_flush(asked(), updated()) == []

    collector.error = None
    collector.time += 1

    assert collector.flushed() == [MAC]
    assert collector.written[0].reports[0].asked == 1


def test_boards_that_are_too_many_for_one_batch_are_in_the_next(collector: Fake, monkeypatch: Any) -> None:
    monkeypatch.setattr(collector._pending._known, "_at_once", 2)
    for number in range(5):
        collector.note(fetched("a", mac_address=mac(number)))

    assert [collector.flushed() for _ in range(4)] == [[mac(0), mac(1)], [mac(2), mac(3)], [mac(4)], []]


def test_what_is_too_much_between_two_looks_is_dropped_and_counted_and_may_be_said_again(collector: Fake) -> None:
    for number in range(MOST_HEARD + 10):
        collector.note(fetched("a", mac_address=mac(number)))
    collector.flush()
    assert collector.counts == [({"worker": MOST_HEARD + 10}, 10)]

    last = fetched("a", mac_address=mac(MOST_HEARD + 9), at=NOON + 1)
    collector.note(last)
    while collector.flushed():
        pass
    assert last.filename.removesuffix(".json") in [r.mac_address for batch in collector.written for r in batch.reports]


def test_while_the_database_is_away_the_last_of_each_is_kept(collector: Fake, monkeypatch: Any) -> None:
    monkeypatch.setattr(collector._pending._known, "_most_reports", 3)
    collector.error = OperationalError("away")
    collector.error.__cause__ = OSError()
    for second in range(100):
        for number in range(4):
            collector.note(fetched(f"{second}", mac_address=mac(number), at=NOON + second))
        collector.note(asked("ff-ff-ff-ff-ff-ff", at=NOON + second))
        collector.time = NOON + second
        collector.flush()

    collector.error = None
    collector.time += 1
    collector.flush()

    [batch] = collector.written
    found = {report.mac_address: (report.at, report.holds_sha256, report.asked) for report in batch.reports}
    held = hashlib.sha256(b"99").hexdigest()
    expected: dict[str, Any] = {mac(number): (NOON + 99, held, 0) for number in range(3)}
    assert found == expected | {"ff-ff-ff-ff-ff-ff": (NOON + 99, None, 100)}
    assert batch.hours == {HOUR: 400}
    assert sum(dropped for _, dropped in collector.counts) == 100  # of the fourth


def test_what_the_database_refuses_for_good_is_dropped_and_counted(collector: Fake, caplog: Any) -> None:
    collector.error = ValueError("no such value")
    collector.note_and_flush(fetched("a"), asked("ff-ff-ff-ff-ff-ff"))

    collector.error = None
    assert collector.flushed() == []
    assert collector.counts[0] == ({"worker": 1, "view": 1}, 2)
    assert "What 2 boards did cannot be noted" in caplog.text


def test_a_clock_that_jumps_about_fills_no_memory(collector: Fake) -> None:
    for hour in range(1000):
        collector.note(fetched("a", at=NOON + 3600.0 * hour))

    assert len(collector._pending._hours) <= MOST_HOURS


def test_what_is_remembered_has_a_limit(monkeypatch: Any) -> None:
    monkeypatch.setattr(pending_module, "MOST_REMEMBERED", 10)
    pending = Pending()
    for number in range(1000):
        pending.take(fetched("a", mac_address=mac(number)), Said(("configs", mac(number)), number))

    assert len(pending._known._remembered) + len(pending._known._remembered_before) <= 20
    assert pending.repeats("worker", Said(("configs", mac(999)), 999), NOON, is_download=True)
    assert not pending.repeats("worker", Said(("configs", mac(0)), 0), NOON, is_download=True)


def test_downloads_of_who_is_no_board_are_counted(collector: Fake) -> None:
    collector.note(updated("", at=NOON))
    collector.note(updated("", at=NOON, method="HEAD"))
    collector.flush()

    [batch] = collector.written
    assert batch == Batch([], {HOUR: 1})  # type: ignore[arg-type]
    assert collector.counts == [({}, 0)]


def test_a_command_notes_nothing(collector: Fake) -> None:
    collector.is_serving = False

    assert collector.note_and_flush(fetched("a"), asked()) == []
    assert collector._pending.is_empty()


class TestTheMainThread:
    """It asks without the lock, of boards that have a configuration."""

    KEY = ("configs", f"{MAC}.json")

    @pytest.fixture
    def pending(self) -> Pending:
        """It has written what a board said."""
        pending = Pending()
        pending.take(fetched("{}"), Said(self.KEY, 1))
        pending.forget(pending.take_batch(NOON))
        pending.take_counts()
        return pending

    def repeats(self, pending: Pending, said: int = 1, at: float = NOON, *, is_download: bool = True) -> bool:
        return pending.repeats_at_once(self.KEY, said, at, is_download=is_download)

    def test_counts_what_says_nothing_new(self, pending: Pending) -> None:
        assert pending.is_empty()

        assert [self.repeats(pending) for _ in range(3)] == [True] * 3
        assert self.repeats(pending, is_download=False)

        assert not pending.is_empty()
        assert pending.take_batch(NOON) == Batch(hours=Counter({HOUR: 3}))
        assert pending.take_counts() == (Counter(worker=4), 0)
        assert pending.is_empty()
        assert self.repeats(pending)
        assert pending.take_batch(NOON).hours == {HOUR: 1}

    def test_leaves_to_be_taken_what_is_new_or_a_minute_old(self, pending: Pending) -> None:
        assert not self.repeats(pending, said=2)
        assert not self.repeats(pending, at=NOON + MINUTE)
        assert not self.repeats(pending, at=NOON - 1)
        assert not pending.repeats_at_once(("configs", f"{mac(1)}.json"), 1, NOON, is_download=True)

        assert pending.is_empty()
