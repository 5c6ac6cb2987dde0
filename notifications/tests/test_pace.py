"""The pace, with times passed in: seconds of a clock that only goes forward."""

import pytest

from iotsupport.tests.owed.outage import BOUND_SECONDS
from notifications.connection import CONNECT_TIMEOUT
from notifications.messenger import RECONNECT_DELAYS
from notifications.pace import Pace, ReconnectPauses, pause

SHORTEST, LONGEST = RECONNECT_DELAYS
DAY = 24 * 60 * 60


def sent_within(pace, seconds, *, start=1000.0):
    """When each goes that may go in so many seconds, if there is always one to send."""
    now, times = start, []
    while now < start + seconds:
        if wait := pace.wait(now):
            now += wait
        else:
            pace.spend(now)
            times.append(now)
    return times


@pytest.mark.parametrize("rate", [1, 3, 200, 5000])
def test_lets_so_many_go_a_second(rate):
    assert len(sent_within(Pace(rate), 10)) == pytest.approx(10 * rate, abs=rate / 10 + 1)


@pytest.mark.parametrize("rate", [1, 7, 200, 5000])
def test_lets_the_first_go_at_once(rate):
    assert Pace(rate).wait(1000.0) == 0


def test_lets_a_tenth_of_a_seconds_worth_go_at_once():
    times = sent_within(Pace(200), 1)

    assert times.count(1000.0) == 20


def test_goes_on_evenly_after_the_burst():
    times = sent_within(Pace(200), 1)[20:]

    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert gaps == pytest.approx([1 / 200] * len(gaps))


def test_a_slow_pace_has_no_burst():
    assert sent_within(Pace(2), 3) == pytest.approx([1000.0, 1000.5, 1001.0, 1001.5, 1002.0, 1002.5])


def test_tells_how_long_to_wait():
    pace = Pace(4)
    pace.spend(1000.0)

    assert pace.wait(1000.1) == pytest.approx(0.15)
    assert pace.wait(1000.25) == 0


def test_a_pause_saves_up_no_more_than_the_burst():
    pace = Pace(200)
    sent_within(pace, 1)

    times = sent_within(pace, 1, start=5000.0)

    assert times.count(5000.0) == pytest.approx(20, abs=1)
    assert len(times) <= 220


# --- Between two tries to connect ---------------------------------------------------------------------------------


def pauses_within(pauses, outage_seconds, try_seconds=0.0):
    """How long each pause is in an outage of so many seconds, where each try fails after so many."""
    now, lengths = try_seconds, []
    while now < outage_seconds:
        lengths.append(pauses.seconds)
        now += pauses.seconds + try_seconds
        pauses.paused()
    return lengths


def test_pauses_twice_as_long_each_time_up_to_the_longest():
    pauses = ReconnectPauses(0.25, 3.0)

    assert pauses_within(pauses, 15) == [0.25, 0.5, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("try_seconds", [0.0, CONNECT_TIMEOUT], ids=["refused at once", "no answer"])
@pytest.mark.parametrize("outage_seconds", [5, 90, DAY])
def test_tries_often_enough_for_the_bound_however_long_the_outage(outage_seconds, try_seconds):
    lengths = pauses_within(ReconnectPauses(*RECONNECT_DELAYS), outage_seconds, try_seconds)

    assert len(lengths) >= outage_seconds / BOUND_SECONDS
    assert max(lengths) <= LONGEST


@pytest.mark.parametrize("outage_seconds", [0, 5, 90, DAY])
def test_begins_with_the_shortest_after_a_connection_however_long_the_outage_before(outage_seconds):
    pauses = ReconnectPauses(*RECONNECT_DELAYS)
    first = pauses_within(pauses, 5)

    pauses_within(pauses, outage_seconds)
    pauses.connected()

    assert first[0] == SHORTEST
    assert pauses_within(pauses, 5) == first


def test_the_longest_pause_and_a_try_without_an_answer_leave_a_second_of_the_bound():
    """Whenever the broker comes back, what is owed has that second to go out."""
    assert LONGEST + CONNECT_TIMEOUT <= BOUND_SECONDS - 1
    assert SHORTEST < 1


# --- Between two tries of one message ---------------------------------------------------------------------------


def test_pauses_longer_each_time_but_not_for_ever():
    pauses = [pause(tries).total_seconds() for tries in [1, 2, 3, 6, 7, 8, 1_000_000]]

    assert pauses == [5, 10, 20, 160, 300, 300, 300]
