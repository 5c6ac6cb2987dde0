"""In which order, how many at once, and what became of each message: against scripted brokers, without a database."""

import pytest

from iotsupport.tests.support.api_client import metric
from iotsupport.tests.support.waiting import LIMIT, eventually
from notifications import pace
from notifications.connection import packet_bytes
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC, Message
from notifications.messenger import LOST
from notifications.outcomes import Verdict
from notifications.tests.scripted_broker import NO_SUBSCRIBERS, NOT_AUTHORIZED, QUOTA_EXCEEDED, ScriptedBroker
from notifications.tests.sending import A, B, C, asset, config, outcomes_of, send


@pytest.fixture
def suspended_for_long(monkeypatch):
    """A topic that is suspended stays so until the test is over."""
    monkeypatch.setattr(pace, "SHORTEST_PAUSE", pace.LONGEST_PAUSE)


# --- What the broker answers -------------------------------------------------------------------------------------


def test_reports_what_was_acknowledged(messenger, scripted_broker, attempts):
    scripted_broker.hold()
    send(messenger, A, B)
    scripted_broker.wait_for_heard("a", "b")
    was_idle = messenger.is_idle
    scripted_broker.release()

    assert outcomes_of(messenger, 2) == [("a", "acknowledged", ""), ("b", "acknowledged", "")]
    assert attempts() == (2, 0, 2)
    assert not was_idle
    assert messenger.is_idle


def test_takes_no_subscribers_as_a_success(messenger, scripted_broker, attempts):
    scripted_broker.refused["a"] = NO_SUBSCRIBERS
    send(messenger, A)

    assert outcomes_of(messenger, 1) == [("a", "acknowledged", "")]
    assert attempts() == (1, 0, 1)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (128, "Unspecified error"),
        (131, "Implementation specific error"),
        (NOT_AUTHORIZED, "Not authorized"),
        (144, "Topic name invalid"),
        (QUOTA_EXCEEDED, "Quota exceeded"),
        (153, "Payload format invalid"),
    ],
)
def test_reports_each_refusal_with_its_reason(messenger, scripted_broker, attempts, log, code, reason):
    scripted_broker.refused["a"] = code
    send(messenger, A)

    assert outcomes_of(messenger, 1) == [("a", "refused", reason)]
    assert attempts() == (0, 1, 1)
    eventually(lambda: log.warnings)
    assert log.warnings == [
        f"WARNING The broker {scripted_broker.url} refuses announcements on {CONFIGS_TOPIC}: {reason}"
    ]


def test_a_refused_file_holds_up_no_other(messenger, scripted_broker):
    scripted_broker.refused["a"] = QUOTA_EXCEEDED
    send(messenger, A, B, asset("c"))

    assert sorted(outcomes_of(messenger, 3)) == [
        ("a", "refused", "Quota exceeded"),
        ("b", "acknowledged", ""),
        ("c", "acknowledged", ""),
    ]


def test_one_file_that_is_refused_often_does_not_suspend_its_topic(messenger, scripted_broker):
    scripted_broker.refused["a"] = QUOTA_EXCEEDED
    for number in range(1, 6):
        send(messenger, config("a", number))
        outcomes_of(messenger, 1)
    send(messenger, B)

    assert outcomes_of(messenger, 1) == [("b", "acknowledged", "")]
    assert messenger.suspensions == {}


def test_a_success_forgives_the_refusals_before_it(messenger, scripted_broker):
    """Else three files that are refused within weeks would suspend their topic."""
    scripted_broker.refused = dict.fromkeys("abc", QUOTA_EXCEEDED)
    for refused in [A, B, C]:
        send(messenger, refused)
        outcomes_of(messenger, 1)
        send(messenger, config(f"after {refused.filename}"))

        assert outcomes_of(messenger, 1) == [(f"after {refused.filename}", "acknowledged", "")]


@pytest.mark.usefixtures("suspended_for_long")
def test_a_topic_that_is_refused_is_suspended_and_the_other_goes_out(messenger, scripted_broker, log):
    scripted_broker.refused[ASSETS_TOPIC] = NOT_AUTHORIZED
    scripted_broker.hold()
    send(messenger, *[asset(f"{number}.bin") for number in range(5)])
    scripted_broker.wait_for(lambda: len(scripted_broker.heard) == 5)
    scripted_broker.release()
    refused = outcomes_of(messenger, 5)
    send(messenger, asset("late.bin"), A)

    assert {verdict for _, verdict, _ in refused} == {"refused"}
    assert sorted(outcomes_of(messenger, 2)) == [("a", "acknowledged", ""), ("late.bin", "returned", "Not authorized")]
    assert messenger.suspensions == {ASSETS_TOPIC: "Not authorized"}
    assert messenger.open_topics == [CONFIGS_TOPIC]
    assert not messenger.can_send(ASSETS_TOPIC)
    assert len(log.warnings) == 1


@pytest.mark.usefixtures("suspended_for_long")
def test_what_waits_on_a_topic_is_given_back_when_it_is_suspended(messenger, scripted_broker):
    scripted_broker.refused[ASSETS_TOPIC] = NOT_AUTHORIZED
    send(messenger, *[asset(f"{number}.bin", is_bulk=True) for number in range(50)])

    by_verdict = [verdict for _, verdict, _ in outcomes_of(messenger, 50)]

    # All that are in flight together may be refused before the first refusal is known.
    assert set(by_verdict) <= {"refused", "returned"}
    eventually(lambda: messenger.is_idle)
    assert messenger.suspensions == {ASSETS_TOPIC: "Not authorized"}


@pytest.fixture
def suspended_messenger(make_messenger, scripted_broker, constants):
    """It was refused three assets, and soon tries again."""
    constants(LONGEST_SUSPENSION=0.2, RENEW_SECONDS=0.05)
    messenger = make_messenger(scripted_broker.url)
    scripted_broker.refused[ASSETS_TOPIC] = NOT_AUTHORIZED
    for number in range(3):
        send(messenger, asset(f"{number}.bin"))
        outcomes_of(messenger, 1)
    return messenger


def send_when_tried_again(messenger):
    eventually(lambda: messenger.can_send(ASSETS_TOPIC))
    send(messenger, *[asset(f"again-{number}.bin") for number in range(3)])


def test_a_suspended_topic_is_tried_with_one_message_and_suspended_again(
    suspended_messenger, scripted_broker, constants
):
    constants(LONGEST_SUSPENSION=LIMIT)  # the next time
    send_when_tried_again(suspended_messenger)

    assert outcomes_of(suspended_messenger, 3) == [
        ("again-0.bin", "refused", "Not authorized"),
        ("again-1.bin", "returned", "Not authorized"),
        ("again-2.bin", "returned", "Not authorized"),
    ]
    assert len(scripted_broker.heard) == 4


def test_a_topic_that_is_allowed_again_goes_out(suspended_messenger, scripted_broker):
    scripted_broker.refused.clear()
    send_when_tried_again(suspended_messenger)

    assert {verdict for _, verdict, _ in outcomes_of(suspended_messenger, 3)} == {"acknowledged"}
    assert suspended_messenger.open_topics == [CONFIGS_TOPIC, ASSETS_TOPIC]


def test_a_late_success_resumes_a_suspended_topic(messenger, scripted_broker):
    scripted_broker.refused = dict.fromkeys("abc", QUOTA_EXCEEDED)
    scripted_broker.hold()
    send(messenger, A, B, C, config("d"))
    scripted_broker.wait_for_heard(*"abcd")
    scripted_broker.release()
    outcomes_of(messenger, 4)

    eventually(lambda: not messenger.suspensions)
    send(messenger, config("e"))
    assert outcomes_of(messenger, 1) == [("e", "acknowledged", "")]
    assert scripted_broker.connections == 1


# --- What a broker can bear --------------------------------------------------------------------------------------


def test_sends_nothing_that_the_broker_would_not_take(make_messenger, attempts):
    with ScriptedBroker(max_packet_bytes=packet_bytes(A)) as broker:
        messenger = make_messenger(broker.url)
        send(messenger, config("ab"), A)

        assert outcomes_of(messenger, 2) == [
            ("ab", "refused", f"Packet too large: the broker takes {packet_bytes(A)} bytes."),
            ("a", "acknowledged", ""),
        ]
        assert broker.heard == ["a"]
        assert broker.connections == 1
    assert attempts() == (1, 1, 1)


def test_sends_the_others_when_paho_cannot_send_one(messenger, attempts, log):
    failed = {"topic": "no/#", "status": "failure"}
    before = metric("mqtt_publish_total", **failed)
    send(messenger, Message("no/#", "a", 1), B)

    assert outcomes_of(messenger, 2) == [
        ("a", "refused", "It could not be sent: ValueError('Publish topic cannot contain wildcards.')"),
        ("b", "acknowledged", ""),
    ]
    assert attempts() == (1, 0, 1)
    assert metric("mqtt_publish_total", **failed) == before + 1
    assert log.warnings == ["ERROR Could not announce a on no/#"]


def test_reports_what_paho_has_no_room_for(make_messenger, scripted_broker, attempts, constants):
    constants(MAX_QUEUED=1)
    messenger = make_messenger(scripted_broker.url)
    scripted_broker.hold()
    send(messenger, A, B)

    assert outcomes_of(messenger, 1) == [("b", "refused", "Too many messages wait for the broker.")]
    scripted_broker.release()
    assert outcomes_of(messenger, 1) == [("a", "acknowledged", "")]
    assert attempts() == (1, 1, 2)


def test_has_no_more_in_flight_than_the_broker_takes(make_messenger):
    with ScriptedBroker(receive_maximum=3) as broker:
        messenger = make_messenger(broker.url)
        broker.hold()
        send(messenger, *[config(str(number)) for number in range(30)])
        broker.wait_for(lambda: len(broker.heard) == 3)
        broker.release()
        outcomes_of(messenger, 30)

        assert broker.most_unacknowledged <= 3
        assert len(broker.heard) == 30


def test_has_a_hundred_in_flight_at_most(messenger, scripted_broker, constants):
    constants(MAX_WAITING=1000)
    scripted_broker.hold()
    for number in range(200):
        send(messenger, config(str(number)))
        eventually(lambda: messenger.room or messenger.is_idle or scripted_broker.most_unacknowledged == 100)
    scripted_broker.wait_for(lambda: len(scripted_broker.heard) == 100)
    scripted_broker.release()

    assert len(outcomes_of(messenger, 200)) == 200
    assert scripted_broker.most_unacknowledged <= 101  # the next may come before the answer is counted


# --- Order, and what waits ---------------------------------------------------------------------------------------


def test_a_person_goes_ahead_of_a_bulk(busy_messenger, busy_broker):
    send(busy_messenger, *[config(f"bulk-{number}", is_bulk=True) for number in range(3)])
    send(busy_messenger, A, B)
    busy_broker.release()
    outcomes_of(busy_messenger, 6)

    assert busy_broker.heard == ["first", "a", "b", "bulk-0", "bulk-1", "bulk-2"]


def test_what_is_too_much_to_wait_is_given_back_the_oldest_first(busy_messenger, busy_broker, make_messenger):
    messenger = make_messenger(busy_broker.url, rate=8)  # a quarter of a second's worth: two may wait
    send(messenger, config("second"))
    busy_broker.wait_for_heard("second")
    send(messenger, A, B, C, config("bulk", is_bulk=True))
    too_much = outcomes_of(messenger, 1)
    busy_broker.release()

    assert too_much == [("a", "returned", "")]
    assert [name for name, _, _ in outcomes_of(messenger, 4)] == ["second", "b", "c", "bulk"]


def test_what_waits_is_replaced_by_a_later_save(busy_messenger, busy_broker):
    send(busy_messenger, config("a", 1, is_bulk=True), config("a", 2), config("b", 3), config("b", 4, is_bulk=True))
    replaced = outcomes_of(busy_messenger, 2)
    busy_broker.release()
    outcomes_of(busy_messenger, 3)

    assert replaced == [("a", "returned", ""), ("b", "returned", "")]
    assert busy_broker.heard == ["first", "a", "b"]


def test_holds_each_version_once(messenger, scripted_broker):
    scripted_broker.hold()
    send(messenger, A, A)
    scripted_broker.wait_for_heard("a")
    send(messenger, A, B)
    scripted_broker.wait_for_heard("b")
    scripted_broker.release()

    assert outcomes_of(messenger, 2) == [("a", "acknowledged", ""), ("b", "acknowledged", "")]
    assert scripted_broker.heard == ["a", "b"]


def test_announces_again_what_is_handed_over_again_after_its_outcome(messenger, scripted_broker):
    for _ in range(2):
        send(messenger, A)
        outcomes_of(messenger, 1)

    assert scripted_broker.heard == ["a", "a"]


def test_tells_that_there_is_room_when_it_is_connected_and_when_little_waits(busy_broker, make_messenger, constants):
    constants(RENEW_SECONDS=LIMIT)  # it tells nothing else meanwhile
    messenger = make_messenger(busy_broker.url, rate=100)  # 25 may wait
    told_of_connection = messenger.outcomes.wait_until_woken(LIMIT)
    send(messenger, *[config(str(number)) for number in range(20)])
    eventually(lambda: messenger.room == 25 - 19)
    list(messenger.outcomes.take())
    told_too_early = messenger.outcomes.wait_until_woken(0)
    busy_broker.release()

    assert told_of_connection
    assert not told_too_early
    assert messenger.outcomes.wait_until_woken(LIMIT)
    outcomes_of(messenger, 20)
    assert not messenger.outcomes.wait_until_woken(0)


def test_tells_regularly_what_it_holds(busy_broker, make_messenger, constants):
    constants(RENEW_SECONDS=0.05)
    messenger = make_messenger(busy_broker.url)
    send(messenger, A, B, config("bulk", is_bulk=True))
    held: set[str] = set()

    while len(held) < 3:
        assert messenger.outcomes.wait(LIMIT)
        for message, verdict, _ in messenger.outcomes.take():
            assert verdict is Verdict.HELD
            held.add(message.filename)


# --- What failed before ------------------------------------------------------------------------------------------


def test_what_is_never_acknowledged_holds_up_nobody_for_long(messenger, scripted_broker, constants):
    constants(ISOLATION_SECONDS=0.2)
    scripted_broker.ignored.add("poison")
    send(messenger, config("poison", tries=5), config("suspect", tries=5), A, B)

    assert outcomes_of(messenger, 3) == [
        ("suspect", "acknowledged", ""),
        ("a", "acknowledged", ""),
        ("b", "acknowledged", ""),
    ]
    assert scripted_broker.connections == 1


def test_what_failed_often_is_sent_alone(messenger, scripted_broker, constants):
    constants(ISOLATION_SECONDS=LIMIT)
    scripted_broker.fatal.add("poison")
    scripted_broker.hold()
    send(messenger, A)
    scripted_broker.wait_for_heard("a")
    send(messenger, config("poison", tries=3), B)
    scripted_broker.release()

    assert outcomes_of(messenger, 3) == [("a", "acknowledged", ""), ("poison", "lost", LOST), ("b", "returned", "")]
    assert scripted_broker.heard == ["a", "poison"]


@pytest.mark.parametrize(("tries", "limit"), [(0, 100), (1, 25), (2, 6), (3, 1), (40, 1)])
def test_what_failed_is_in_flight_with_fewer_others_each_time(messenger, scripted_broker, constants, tries, limit):
    constants(ISOLATION_SECONDS=LIMIT)
    scripted_broker.hold()
    send(messenger, config("suspect", tries=tries))
    scripted_broker.wait_for_heard("suspect")
    for number in range(99):
        send(messenger, config(str(number)))
    scripted_broker.wait_for(lambda: len(scripted_broker.heard) >= limit)
    eventually(lambda: messenger.room == limit)  # of a hundred, for as many others wait

    assert len(scripted_broker.heard) == limit
    scripted_broker.release()
    assert len(outcomes_of(messenger, 100)) == 100
