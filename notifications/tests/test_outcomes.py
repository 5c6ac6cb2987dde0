"""Outcomes come to their reader in order; and it can be woken without any."""

import threading

from iotsupport.tests.support.waiting import LIMIT
from notifications.messages import CONFIGS_TOPIC, Message
from notifications.outcomes import Outcome, Outcomes, Verdict

FIRST, SECOND = (Outcome(Message(CONFIGS_TOPIC, name, 1), Verdict.ACKNOWLEDGED) for name in ["a", "b"])


def test_all_that_have_come_are_taken_in_order_and_once():
    outcomes = Outcomes()
    outcomes.put(FIRST)
    outcomes.put(SECOND)

    assert outcomes.wait(LIMIT)
    assert list(outcomes.take()) == [FIRST, SECOND]
    assert list(outcomes.take()) == []


def test_nothing_has_come_within_the_time():
    assert not Outcomes().wait(0)


def test_an_outcome_wakes_only_who_waits_for_outcomes():
    outcomes = Outcomes()
    outcomes.put(FIRST)

    assert outcomes.wait(0)
    assert not outcomes.wait_until_woken(0)


def test_who_is_woken_finds_no_outcome():
    outcomes = Outcomes()
    outcomes.wake()

    assert outcomes.wait(0)
    assert outcomes.wait_until_woken(0)
    assert list(outcomes.take()) == []


def test_what_is_taken_wakes_nobody_again():
    outcomes = Outcomes()
    outcomes.put(FIRST)
    outcomes.wake()
    list(outcomes.take())

    assert not outcomes.wait(0)
    assert not outcomes.wait_until_woken(0)


def test_nothing_that_is_put_while_all_is_taken_is_missed():
    outcomes, count = Outcomes(), 2000

    def put_all():
        for _ in range(count):
            outcomes.put(FIRST)

    writer = threading.Thread(target=put_all)
    writer.start()
    taken = 0
    while taken < count:
        assert outcomes.wait(LIMIT), taken
        taken += len(list(outcomes.take()))
    writer.join()
