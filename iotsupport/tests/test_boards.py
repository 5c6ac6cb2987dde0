"""What check-ins make of the boards' rows: one statement, the same on both databases."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from iotsupport.boards import firmware
from iotsupport.boards.configurations import note_deleted, note_saved
from iotsupport.boards.firmware import FoundVersion
from iotsupport.boards.models import Board, HourlyCount, State
from iotsupport.boards.pending import Batch
from iotsupport.boards.writing import write
from iotsupport.errors import is_outage
from iotsupport.tests.support.checkins import MAC, NOON, Collector, asked, etag, fetched, note, sha256, updated
from iotsupport.tests.support.waiting import LIMIT

OLD, NEW = "old", "new"
MD5, IMAGE = "0123456789abcdef" * 2, "fedcba9876543210" * 4

pytestmark = [pytest.mark.both_databases, pytest.mark.django_db]


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def board(mac_address: str = MAC) -> Board:
    return Board.objects.get(mac_address=mac_address)


def save(content: str = NEW, mac_address: str = MAC) -> None:
    note_saved(mac_address, sha256(content), "default")


def test_a_board_that_fetched_is_current() -> None:
    save(NEW)

    note(fetched(NEW, user_agent="kitchen/1.4.2"))

    row = board()
    assert (row.state, row.holds_sha256, row.behind_since) == (State.CURRENT, sha256(NEW), None)
    assert row.first_seen == row.last_seen == row.holds_since == row.holds_at == moment(NOON)
    assert (row.last_address, row.user_agent, row.runs_version) == ("192.0.2.7", "kitchen/1.4.2", "1.4.2")


def test_a_board_that_was_behind_and_fetched_is_current() -> None:
    save(OLD)
    note(fetched(OLD))
    save(NEW)
    assert board().state == State.BEHIND

    note(fetched(NEW, at=NOON + 1))

    row = board()
    assert (row.state, row.behind_since) == (State.CURRENT, None)
    assert row.holds_since == moment(NOON + 1)
    assert row.first_seen == moment(NOON)


def test_a_board_that_was_sent_what_is_old_by_now_is_behind() -> None:
    save(NEW)

    note(fetched(OLD))

    row = board()
    assert (row.state, row.holds_sha256, row.behind_since) == (State.BEHIND, sha256(OLD), moment(NOON))


def test_who_fetched_one_save_and_not_the_next_is_behind_since_the_next() -> None:
    """The next one came before the first was written."""
    save("oldest")
    note(fetched("oldest", at=NOON - 86_400))
    save(OLD)
    save(NEW)
    Board.objects.update(behind_since=moment(NOON - 80_000))

    note(fetched(OLD))

    assert (board().state, board().behind_since) == (State.BEHIND, moment(NOON))


def test_who_says_again_that_it_holds_what_is_old_is_behind_since_it_was() -> None:
    save(OLD)
    note(fetched(OLD, at=NOON - 86_400))
    save(NEW)
    Board.objects.update(behind_since=moment(NOON - 80_000))

    note(fetched(NEW, method="HEAD", if_none_match=etag(OLD)))

    assert (board().state, board().behind_since) == (State.BEHIND, moment(NOON - 80_000))


def test_holding_the_same_again_holds_since_then() -> None:
    save(NEW)
    note(fetched(NEW))

    note(fetched(NEW, at=NOON + 600, status=304))

    row = board()
    assert (row.holds_since, row.holds_at, row.last_seen) == (moment(NOON), moment(NOON + 600), moment(NOON + 600))


def test_being_seen_says_nothing_of_what_is_held() -> None:
    save(NEW)

    note(fetched(NEW, method="HEAD"))

    row = board()
    assert (row.state, row.holds_sha256, row.last_seen) == (State.NEVER_FETCHED, None, moment(NOON))


def test_who_downloads_an_asset_was_seen_and_says_what_runs() -> None:
    save(NEW)
    note(fetched(NEW, user_agent="ESP32HTTPClient"))

    note(updated(at=NOON + 1, version="1.4.2", sdk_version="v5.4", chip_size="4194304", sketch_sha256=IMAGE.upper()))

    row = board()
    assert (row.state, row.last_seen, row.runs_version) == (State.CURRENT, moment(NOON + 1), "1.4.2")
    assert (row.runs_sha256, row.sdk_version, row.chip_size) == (IMAGE, "v5.4", 4194304)
    assert row.user_agent == "ESP32HTTPClient"  # as nothing else is said


def test_nobody_gets_a_row_by_downloading() -> None:
    note(fetched(NEW), updated("02-00-00-00-00-01"))

    assert not Board.objects.exists()


# --- Two nodes, and a clock that jumps ------------------------------------------------------------------------------


def test_of_two_nodes_the_later_time_wins() -> None:
    save(NEW)
    note(fetched(NEW, at=NOON + 5, remote="192.0.2.8", user_agent="kitchen/1.4.2"))

    note(fetched(OLD, at=NOON + 4, user_agent="kitchen/1.4.1"))

    row = board()
    assert (row.state, row.last_seen, row.last_address) == (State.CURRENT, moment(NOON + 5), "192.0.2.8")
    assert row.runs_version == "1.4.2"
    assert row.address_changed_at is None


def test_what_one_node_was_told_before_counts_although_another_saw_the_board_since() -> None:
    save(NEW)
    note(updated(at=NOON + 5))

    note(fetched(NEW, at=NOON + 4))

    row = board()
    assert (row.state, row.holds_at, row.last_seen) == (State.CURRENT, moment(NOON + 4), moment(NOON + 5))


def test_after_a_clock_was_set_back_boards_are_noted_as_before() -> None:
    save(NEW)
    note(fetched(OLD, at=NOON + 86400))

    note(fetched(NEW, at=NOON))

    row = board()
    assert (row.state, row.last_seen, row.holds_at) == (State.CURRENT, moment(NOON), moment(NOON))


# --- Addresses ------------------------------------------------------------------------------------------------------


def test_another_address_is_another_one() -> None:
    save(NEW)
    note(fetched(NEW))

    note(fetched(NEW, at=NOON + 3600, remote="192.0.2.8"))

    row = board()
    assert (row.last_address, row.address_before) == ("192.0.2.8", "192.0.2.7")
    assert row.address_changed_at == moment(NOON + 3600)
    assert row.two_addresses_at is None


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one after the other"])
def test_two_addresses_within_a_minute_are_told(together: bool) -> None:
    save(NEW)
    check_ins = [fetched(NEW), fetched(NEW, at=NOON + 30, remote="192.0.2.8")]

    for group in [check_ins] if together else [[each] for each in check_ins]:
        note(*group)

    row = board()
    assert (row.last_address, row.address_before) == ("192.0.2.8", "192.0.2.7")
    assert row.two_addresses_at == row.address_changed_at == moment(NOON + 30)


def test_one_that_moved_while_the_database_was_away_had_one_address_at_a_time() -> None:
    save(NEW)

    note(fetched(NEW), fetched(NEW, at=NOON + 600, remote="192.0.2.8"))

    row = board()
    assert (row.last_address, row.address_before) == ("192.0.2.8", "192.0.2.7")
    assert row.address_changed_at == moment(NOON + 600)
    assert row.two_addresses_at is None


def test_an_unknown_address_is_no_other_one() -> None:
    save(NEW)
    note(fetched(NEW))

    note(fetched(NEW, at=NOON + 1, remote=""))

    assert (board().last_address, board().address_before) == ("192.0.2.7", None)


# --- What runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def versions(monkeypatch: Any) -> dict[str, FoundVersion]:
    """What an app that knows assets finds, by digest."""
    found: dict[str, FoundVersion] = {}
    monkeypatch.setattr(
        firmware, "_finders", [lambda *digests: {one: found[one] for some in digests for one in some if one in found}]
    )
    return found


@pytest.mark.parametrize("told", [{"sketch_md5": MD5}, {"sketch_sha256": IMAGE}])
def test_the_version_that_runs_is_found_by_its_digest(versions: dict[str, FoundVersion], told: Any) -> None:
    versions |= dict.fromkeys([MD5, IMAGE], FoundVersion("kitchen.bin", "ab" * 32, timezone.now()))
    save(NEW)

    note(updated(**told))

    assert (board().runs_filename, board().runs_asset_sha256) == ("kitchen.bin", "ab" * 32)


def test_of_a_firmware_that_nobody_knows_nothing_is_found(versions: dict[str, FoundVersion]) -> None:
    versions[MD5] = FoundVersion("kitchen.bin", "ab" * 32, timezone.now())
    save(NEW)
    note(updated(sketch_md5=MD5))

    note(updated(at=NOON + 1, sketch_md5="ff" * 16))

    row = board()
    assert (row.runs_md5, row.runs_filename, row.runs_asset_sha256) == ("ff" * 16, "", "")


def test_another_version_is_not_what_the_digest_said_before(versions: dict[str, FoundVersion]) -> None:
    versions[MD5] = FoundVersion("kitchen.bin", "ab" * 32, timezone.now())
    save(NEW)
    note(updated(sketch_md5=MD5, version="1.4.1"))

    note(fetched(NEW, at=NOON + 1, user_agent="kitchen/1.4.2"))

    row = board()
    assert (row.runs_version, row.runs_md5, row.runs_filename, row.runs_asset_sha256) == ("1.4.2", "", "", "")


def test_a_finder_that_fails_costs_what_it_would_have_found_alone(monkeypatch: Any, caplog: Any) -> None:
    def broken(*digests: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(firmware, "_finders", [broken])
    save(NEW)

    note(fetched(NEW), updated(sketch_md5=MD5))

    assert (board().state, board().runs_md5) == (State.CURRENT, MD5)
    assert "Which versions the boards run cannot be found" in caplog.text


# --- Boards that wait -----------------------------------------------------------------------------------------------


def test_who_asks_and_has_no_configuration_waits() -> None:
    note(asked(user_agent="ESP32HTTPClient"), asked(at=NOON + 1, user_agent="ESP32HTTPClient"))
    note(asked(at=NOON + 120))

    row = board()
    assert (row.state, row.config_sha256, row.asked) == (State.WAITING, None, 3)
    assert (row.waiting_since, row.first_seen, row.last_seen) == (
        moment(NOON + 1),
        moment(NOON + 1),
        moment(NOON + 120),
    )
    assert (row.last_address, row.user_agent) == ("192.0.2.7", "ESP32HTTPClient")


def test_a_board_whose_configuration_was_deleted_waits_when_it_asks_again() -> None:
    save(NEW)
    note(fetched(NEW))
    note_deleted(MAC, "default")
    assert Board.objects.count_states() == {"current": 0, "behind": 0, "never_fetched": 0, "waiting": 0}

    note(asked(at=NOON + 60))

    row = board()
    assert (row.state, row.asked, row.waiting_since) == (State.WAITING, 1, moment(NOON + 60))
    assert (row.first_seen, row.holds_sha256) == (moment(NOON), sha256(NEW))


def test_being_told_late_of_a_download_makes_nobody_wait() -> None:
    save(NEW)
    note(fetched(NEW))
    note_deleted(MAC, "default")

    note(fetched(NEW, at=NOON + 1))

    assert board().state == State.GONE


def test_a_file_that_is_missing_makes_nobody_wait_who_has_a_configuration() -> None:
    save(NEW)
    note(fetched(NEW))

    note(asked(at=NOON + 1))

    row = board()
    assert (row.state, row.asked, row.last_seen) == (State.CURRENT, 0, moment(NOON + 1))


def test_of_those_who_wait_the_longest_silent_go(monkeypatch: Any) -> None:
    monkeypatch.setattr("iotsupport.boards.writing.MOST_WAITING", 3)
    save(NEW)
    note(fetched(NEW, at=NOON - 86400))

    for number in range(6):
        note(asked(f"02-00-00-00-00-0{number}", at=NOON + number))
    note(asked("02-00-00-00-00-03", at=NOON + 100))
    note(asked("02-00-00-00-00-06", at=NOON + 101))

    waiting = Board.objects.waiting().values_list("mac_address", flat=True)
    assert [each[-2:] for each in waiting] == ["03", "05", "06"]
    assert board().state == State.CURRENT


# --- Questions about many -------------------------------------------------------------------------------------------


@pytest.fixture
def fleet() -> None:
    long_ago, now = timezone.now() - timedelta(hours=25), timezone.now()
    for number, (state, last_seen) in enumerate(
        [
            (State.CURRENT, now),
            (State.CURRENT, long_ago),
            (State.BEHIND, long_ago),
            (State.NEVER_FETCHED, None),
            (State.WAITING, long_ago),
            (State.GONE, long_ago),
        ]
    ):
        Board.objects.create(mac_address=f"02-00-00-00-00-0{number}", state=state, last_seen=last_seen)


def test_states_are_counted_with_one_query(fleet: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        counts = Board.objects.count_states()

    assert counts == {"current": 2, "behind": 1, "never_fetched": 1, "waiting": 1}


def test_silent_is_who_was_seen_but_not_lately(fleet: None, settings: Any) -> None:
    silent, others = Board.objects.silent(), Board.objects.silent(False)

    assert [row.mac_address[-2:] for row in silent] == ["01", "02"]
    assert [row.mac_address[-2:] for row in others] == ["00", "03", "04", "05"]
    assert [row.mac_address[-2:] for row in Board.objects.all() if row.is_silent] == ["01", "02"]
    settings.SILENT_AFTER = 26
    assert not Board.objects.silent().exists()


def test_nobody_is_silent_where_that_is_turned_off(fleet: None, settings: Any) -> None:
    settings.SILENT_AFTER = 0

    assert not Board.objects.silent().exists()
    assert Board.objects.silent(False).count() == 6
    assert not any(row.is_silent for row in Board.objects.all())


def test_downloads_of_an_hour_are_added_up() -> None:
    hour = int(NOON // 3600)
    write(Batch(hours={hour: 3}), NOON)  # type: ignore[arg-type]
    write(Batch(hours={hour: 4, hour + 1: 1}), NOON)  # type: ignore[arg-type]

    counts = HourlyCount.objects.since(HourlyCount.DOWNLOADS, moment(NOON))

    assert counts == {moment(NOON): 7, moment(NOON + 3600): 1}


# --- What it costs, and whom it waits for ---------------------------------------------------------------------------


def test_many_boards_are_one_statement() -> None:
    macs = [f"02-00-00-00-00-{number:02x}" for number in range(100)]
    for mac_address in macs:
        save(NEW, mac_address)

    with CaptureQueriesContext(connection) as captured:
        note(*[fetched(NEW, mac_address=mac_address) for mac_address in macs])

    assert len([query for query in captured if "iotsupport_board" in query["sql"]]) == 1
    assert Board.objects.count_states()["current"] == 100


@pytest.fixture
def locked_board(transactional_db: None) -> Any:
    """Somebody else has the board's row, as a save has until it commits."""
    save(NEW)
    has_it, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Board.objects.filter(mac_address=MAC).update(asked=0)
            has_it.set()
            may_go.wait(LIMIT)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert has_it.wait(LIMIT)
    yield may_go.set
    may_go.set()
    thread.join()


def test_who_holds_a_row_is_not_waited_for_and_it_is_noted_when_that_ends(locked_board: Any) -> None:
    collector = Collector()
    collector.note(fetched(NEW))

    collector.flush()  # longer than the limit of the test, if it waited

    assert not collector._pending.is_empty()
    locked_board()
    while not collector._pending.is_empty():
        collector.flush()
    assert board().state == State.CURRENT


def test_what_is_waited_for_is_an_outage(locked_board: Any) -> None:
    collector = Collector()
    collector.note(fetched(NEW))

    with pytest.raises(OperationalError) as caught:
        write(collector._pending.take_batch(NOON), NOON)

    assert is_outage(caught.value)
