"""Which topics are left alone when the broker refuses, and for how long: as a table, with no clock but the test's."""

import pytest

from notifications.refusals import LONGEST_SUSPENSION, Refusals

TOPIC, OTHER = "configs", "assets"
NO, FULL = "Not authorized", "Quota exceeded"


def told(steps):
    """The refusals after some steps, each the name of a method with what it is called with."""
    refusals = Refusals()
    for name, *arguments in steps:
        getattr(refusals, name)(*arguments)
    return refusals


def refuse(*filenames, now=0.0, topic=TOPIC, reason=NO):
    return [("refused", topic, filename, reason, now) for filename in filenames]


@pytest.mark.parametrize(
    ("steps", "suspended"),
    [
        ([], {}),
        (refuse("a", "b"), {}),
        (refuse("a", "b", "c"), {TOPIC: NO}),
        (refuse("a", "a", "a", "a"), {}),
        (refuse("a", "b", "a", "c"), {TOPIC: NO}),
        ([*refuse("a", "b"), *refuse("c", topic=OTHER)], {}),
        ([*refuse("a", "b", "c"), *refuse("a", "b", "c", topic=OTHER, reason=FULL)], {TOPIC: NO, OTHER: FULL}),
        ([*refuse("a", "b"), *refuse("c", reason=FULL)], {TOPIC: FULL}),
        ([*refuse("a", "b", "c"), *refuse("d", reason=FULL)], {TOPIC: NO}),
        ([*refuse("a", "b"), ("accepted", TOPIC), *refuse("c")], {}),
        ([*refuse("a", "b"), ("accepted", OTHER), *refuse("c")], {TOPIC: NO}),
        ([*refuse("a", "b", "c"), ("accepted", TOPIC)], {}),
        ([*refuse("a", "b", "c"), ("resume_due", 4.9)], {TOPIC: NO}),
        ([*refuse("a", "b", "c"), ("resume_due", 5.0)], {}),
        ([*refuse("a", "b", "c"), ("resume_due", 5.0), *refuse("d", now=6.0)], {TOPIC: NO}),
        ([*refuse("a", "b", "c"), ("resume_due", 5.0), ("accepted", TOPIC), *refuse("d", now=6.0)], {}),
    ],
    ids=[
        "nothing was refused",
        "two files",
        "three files",
        "one file, often",
        "three files, one of them twice",
        "three files of two topics",
        "both topics, each for its reason",
        "for two reasons: the last one",
        "one more, sent before it was suspended",
        "a success in between",
        "a success on the other topic",
        "a late success",
        "too early to try again",
        "time to try again",
        "refused again",
        "accepted when tried again",
    ],
)
def test_a_topic_is_suspended_when_it_is_refused_and_not_some_of_its_files(steps, suspended):
    assert told(steps).suspended == suspended


def test_it_is_suspended_for_longer_each_time_but_not_for_ever():
    refusals, now, lengths = told(refuse("a", "b", "c")), 0.0, []
    for _ in range(7):
        length = next(seconds for seconds in range(1000) if refusals.resume_due(now + seconds))
        lengths.append(length)
        now += length
        refusals.refused(TOPIC, "a", NO, now)

    assert lengths == [5, 10, 20, 40, 60, 60, 60]
    assert lengths[-1] == LONGEST_SUSPENSION


def test_tells_when_a_topic_is_suspended_once():
    refusals = Refusals()

    assert [refusals.refused(TOPIC, name, NO, 0.0) for name in "abcd"] == [False, False, True, False]


def test_tells_what_was_forgiven_and_what_may_be_tried_again():
    refusals = told(refuse("a"))
    forgiven = [refusals.accepted(TOPIC), refusals.accepted(TOPIC)]
    suspended = told(refuse("a", "b", "c"))
    due = [suspended.resume_due(5.0), suspended.resume_due(5.0)]

    assert forgiven == due == [True, False]


@pytest.mark.parametrize(
    ("steps", "suspect"),
    [
        ([], False),
        (refuse("a"), True),
        (refuse("a", topic=OTHER), False),
        ([*refuse("a", "b", "c"), ("resume_due", 5.0)], True),
        ([*refuse("a"), ("accepted", TOPIC)], False),
    ],
)
def test_one_at_a_time_is_tried_until_one_is_accepted(steps, suspect):
    assert told(steps).is_suspect(TOPIC) == suspect


@pytest.mark.parametrize(
    ("steps", "reason", "news"),
    [
        ([], NO, True),
        (refuse("a"), NO, False),
        (refuse("a"), FULL, True),
        (refuse("a", topic=OTHER), NO, True),
        (refuse("a", "b", "c"), FULL, False),
        ([*refuse("a"), ("accepted", TOPIC)], NO, True),
    ],
)
def test_a_reason_is_news_once(steps, reason, news):
    assert told(steps).is_news(TOPIC, reason) == news
