"""The pace, with times passed in: seconds of a clock that only goes forward."""

import pytest

from notifications.pace import Pace


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
