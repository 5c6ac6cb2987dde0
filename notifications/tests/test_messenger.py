"""One process's connection to the broker, without the database: scripted brokers, and what no broker can do."""

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from iotsupport.tests.support.api_client import metric
from iotsupport.tests.support.mosquitto import free_port
from iotsupport.tests.support.waiting import LIMIT, eventually
from notifications import messenger as messenger_module
from notifications import models, trouble
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC, Message
from notifications.messenger import LOST, packet_bytes
from notifications.outcomes import Verdict
from notifications.tests.conftest import outcomes_of
from notifications.tests.scripted_broker import NO_SUBSCRIBERS, NOT_AUTHORIZED, QUOTA_EXCEEDED, ScriptedBroker


def config(name, revision=None, **values):
    return Message(CONFIGS_TOPIC, name, revision or hash(name), **values)


def asset(name, **values):
    return Message(ASSETS_TOPIC, name, hash(name), **values)


A, B, C = config("a"), config("b"), config("c")


@pytest.fixture
def constants(monkeypatch):
    """Change a constant of the messenger."""
    return lambda **values: [monkeypatch.setattr(messenger_module, name, value) for name, value in values.items()]


@pytest.fixture
def suspended_for_long(monkeypatch):
    """A topic that is suspended stays so until the test is over."""
    monkeypatch.setattr(models, "SHORTEST_PAUSE", models.LONGEST_PAUSE)


@pytest.fixture
def messenger(scripted_broker, make_messenger):
    return make_messenger(scripted_broker.url)


@pytest.fixture
def busy_broker():
    """It takes one message at a time, and acknowledges the first when it is released: what is sent then has to wait."""
    with ScriptedBroker(receive_maximum=1) as broker:
        broker.hold()
        yield broker


@pytest.fixture
def busy_messenger(busy_broker, make_messenger):
    messenger = make_messenger(busy_broker.url)
    send(messenger, config("first"))
    busy_broker.wait_for_heard("first")
    return messenger


def send(messenger, *messages):
    """Hand them over at one moment, as a save and the relay may."""
    for message in messages:
        messenger.send(message)


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


@pytest.mark.parametrize("length", [1, 76, 77, 200])
def test_knows_the_size_of_its_packets(length):
    """As paho makes them: one byte or two for the length."""
    message = config("n" * length)
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.connect("127.0.0.1", server.getsockname()[1])
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            header = stream.read(2)
            stream.read(header[1])  # CONNECT
            client.publish(message.topic, message.payload, qos=1)
            client.disconnect()
            packets = stream.read()

    disconnect_bytes = 2
    assert len(packets) - disconnect_bytes == packet_bytes(message)


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


# --- Trouble with the connection ---------------------------------------------------------------------------------


def test_gives_back_what_it_cannot_send_while_it_is_not_connected(make_messenger, attempts):
    messenger = make_messenger(f"mqtt://127.0.0.1:{free_port()}", until_connected=False)
    send(messenger, A)

    assert outcomes_of(messenger, 1) == [("a", "returned", "")]
    assert attempts() == (0, 1, 0)


def test_gives_back_what_was_sent_and_what_waits_when_the_connection_is_lost(attempts, busy_messenger, busy_broker):
    send(busy_messenger, A, config("bulk", is_bulk=True))
    eventually(lambda: busy_messenger.room == 98)
    busy_broker.drop()

    assert outcomes_of(busy_messenger, 3) == [("first", "lost", LOST), ("a", "returned", ""), ("bulk", "returned", "")]
    assert attempts() == (0, 1, 1)
    busy_broker.wait_for(lambda: busy_broker.connections == 2)


def test_an_acknowledgement_of_an_earlier_connection_is_none(messenger, scripted_broker):
    """Both count their messages from one."""
    scripted_broker.hold()
    send(messenger, A)
    scripted_broker.wait_for_heard("a")
    scripted_broker.drop()
    lost = outcomes_of(messenger, 1)
    scripted_broker.release()
    eventually(lambda: messenger.is_connected)
    send(messenger, B)

    assert lost == [("a", "lost", LOST)]
    assert outcomes_of(messenger, 1) == [("b", "acknowledged", "")]


def test_connects_anew_when_the_broker_does_not_acknowledge(make_messenger, scripted_broker, constants, log):
    constants(RENEW_SECONDS=0.05)
    messenger = make_messenger(scripted_broker.url)
    scripted_broker.ignored.add("a")
    send(messenger, A, B)
    acknowledged = outcomes_of(messenger, 1)
    constants(ACKNOWLEDGE_TIMEOUT=0.1)  # not before: the other might be late as well

    assert acknowledged == [("b", "acknowledged", "")]
    assert outcomes_of(messenger, 1) == [("a", "lost", LOST)]
    scripted_broker.wait_for(lambda: scripted_broker.connections == 2 and scripted_broker.goodbyes == 1)
    assert log.warnings == [f"WARNING The broker {scripted_broker.url} does not acknowledge. {trouble.UNACKNOWLEDGED}"]


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


def test_tries_again_soon_however_long_the_outage(make_messenger, constants, log):
    constants(RECONNECT_DELAYS=(0.01, 0.02))
    with ScriptedBroker() as broker:
        broker.connack = NOT_AUTHORIZED
        messenger = make_messenger(broker.url, until_connected=False)
        broker.wait_for(lambda: broker.connections > 20)
        broker.connack = 0

        eventually(lambda: messenger.is_connected)
    assert [line for line in log.warnings if "refuses the connection" in line] == [
        f"WARNING The broker {broker.url} refuses the connection: Not authorized. {trouble.NO_CREDENTIALS}"
    ]


def test_tries_again_at_once_after_a_connection_however_many_were_lost(make_messenger, scripted_broker, constants):
    constants(RECONNECT_DELAYS=(0.001, 10 * LIMIT))  # doubled twenty times, it would be a quarter of an hour
    messenger = make_messenger(scripted_broker.url)
    for number in range(20):
        eventually(lambda: messenger.is_connected)
        scripted_broker.drop()

        scripted_broker.wait_for(lambda number=number: scripted_broker.connections > number + 1)


def test_a_broker_that_says_nothing_is_left(make_messenger, constants, log):
    constants(CONNECT_TIMEOUT=0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        make_messenger(url, until_connected=False)

        log.wait_for("does not answer")
        silent.accept()[0].close()
        silent.accept()[0].close()
    assert log.warnings[0] == f"WARNING The broker {url} does not answer. {trouble.MUTE}"


def paho_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("paho")]


@pytest.mark.parametrize("kind", ["refused", "dropped", "no broker"])
def test_two_hundred_connections_leave_no_file_and_no_thread_open(make_messenger, constants, kind):
    def open_files():
        return len(os.listdir("/proc/self/fd"))

    def attempt(*arguments, **options):
        attempts.append(None)
        return Client(*arguments, **options)

    constants(RECONNECT_DELAYS=(0.0, 0.001))
    with ScriptedBroker() as broker:
        if kind == "refused":
            broker.connack = NOT_AUTHORIZED
        url = broker.url if kind != "no broker" else f"mqtt://127.0.0.1:{free_port()}"
        attempts: list[None] = []
        constants(Client=attempt)
        eventually(lambda: not paho_threads())
        before = open_files()
        messenger = make_messenger(url, until_connected=False)
        while len(attempts) < 200:
            tries = len(attempts)
            if kind == "dropped":
                eventually(lambda: messenger.is_connected)
                broker.drop()
            eventually(lambda tries=tries: len(attempts) > tries)  # type: ignore[misc]
        messenger.close()

        # The last few, two files each, are remembered where their end was told after the messenger's.
        eventually(lambda: open_files() < before + 20 and not paho_threads(), lambda: (open_files(), paho_threads()))


# --- The end -----------------------------------------------------------------------------------------------------


def test_says_goodbye(messenger, scripted_broker):
    messenger.close()

    scripted_broker.wait_for(lambda: scripted_broker.goodbyes == 1)
    assert not messenger.is_connected


def test_gives_back_everything_at_the_end(busy_messenger):
    send(busy_messenger, A)
    eventually(lambda: busy_messenger.room == 99)
    busy_messenger.close()

    assert outcomes_of(busy_messenger, 2) == [("first", "lost", LOST), ("a", "returned", "")]


def test_closes_although_nobody_answers(make_messenger):
    messenger = make_messenger(f"mqtt://127.0.0.1:{free_port()}", until_connected=False)

    messenger.close()

    assert not messenger.is_connected


# --- What no broker can be made to do ----------------------------------------------------------------------------


@pytest.fixture
def clients(constants):
    """Those that the messenger makes, one for each connection. Ask for it before a messenger."""
    made: list[Client] = []

    def make(*arguments, **options):
        made.append(Client(*arguments, **options))
        return made[-1]

    constants(Client=make, RECONNECT_DELAYS=(0.01, 0.02))
    return made


def acknowledge(client, mid, reason="Success"):
    """As paho does when it has read that."""
    client.on_publish(client, None, mid, ReasonCode(PacketTypes.PUBACK, reason), Properties(PacketTypes.PUBACK))


def is_free(lock):
    """Whether another thread can have it."""

    def take():
        return lock.acquire(timeout=LIMIT / 4) and not lock.release()

    with ThreadPoolExecutor(1) as other:
        return other.submit(take).result()


# Whatever looks at more of it, fails.
BROKEN = SimpleNamespace(revision=1)


def test_bounds_what_paho_remembers_and_how_long_it_waits(clients, messenger):
    [client] = clients

    assert client.max_queued_messages == 2 * messenger_module.MAX_IN_FLIGHT
    assert client.max_inflight_messages == messenger_module.MAX_IN_FLIGHT
    assert client.keepalive == messenger_module.KEEPALIVE
    assert client.connect_timeout == messenger_module.CONNECT_TIMEOUT


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


def test_reports_as_lost_what_paho_took_when_the_connection_was_gone(clients, messenger, scripted_broker, attempts):
    class Late(Message):
        @property
        def payload(self):
            scripted_broker.drop()
            eventually(lambda: not clients[0].is_connected())
            return super().payload

    send(messenger, Late(CONFIGS_TOPIC, "a", 1))

    assert outcomes_of(messenger, 1) == [("a", "lost", LOST)]
    assert attempts() == (0, 1, 1)


def test_heeds_no_acknowledgement_that_it_does_not_wait_for(clients, messenger, scripted_broker, attempts):
    acknowledge(clients[0], 77)
    send(messenger, A)
    first = outcomes_of(messenger, 1)
    acknowledge(clients[0], 1)
    send(messenger, B)

    assert first == [("a", "acknowledged", "")]
    assert outcomes_of(messenger, 1) == [("b", "acknowledged", "")]
    assert attempts() == (2, 0, 2)
    assert scripted_broker.connections == 1


def test_heeds_only_the_client_of_its_connection(clients, messenger, scripted_broker):
    stranger, client = Client(CallbackAPIVersion.VERSION2), clients[0]
    scripted_broker.hold()
    send(messenger, A)
    scripted_broker.wait_for_heard("a")
    refusal, strict = ReasonCode(PacketTypes.PUBACK, "Not authorized"), Properties(PacketTypes.CONNACK)
    strict.MaximumPacketSize = 1
    client.on_connect(stranger, None, ConnectFlags(False), ReasonCode(PacketTypes.CONNACK), strict)
    client.on_publish(stranger, None, 1, refusal, Properties(PacketTypes.PUBACK))
    client.on_disconnect(stranger, None, DisconnectFlags(False), ReasonCode(PacketTypes.DISCONNECT), None)
    send(messenger, B)
    scripted_broker.wait_for_heard("b")
    scripted_broker.release()

    assert outcomes_of(messenger, 2) == [("a", "acknowledged", ""), ("b", "acknowledged", "")]
    assert scripted_broker.connections == 1


def test_goes_on_after_whatever_error_in_its_thread(messenger, scripted_broker, log):
    """Without the thread, nothing would be announced until the next start."""
    scripted_broker.hold()
    send(messenger, A)
    scripted_broker.wait_for_heard("a")
    send(messenger, BROKEN)
    lost = outcomes_of(messenger, 1)
    # What the error left without an outcome is held no longer.
    eventually(lambda: messenger.is_idle)
    log.wait_for("ERROR Announcing was interrupted; it goes on")
    scripted_broker.release()

    eventually(lambda: messenger.is_connected)
    send(messenger, A)
    assert lost == [("a", "lost", LOST)]
    assert outcomes_of(messenger, 1) == [("a", "acknowledged", "")]


def test_goes_on_after_an_error_while_it_hangs_up(clients, messenger, scripted_broker, log, monkeypatch):
    monkeypatch.setattr(clients[0], "disconnect", lambda: 1 / 0)
    scripted_broker.drop()
    log.wait_for("ERROR Announcing was interrupted; it goes on")

    scripted_broker.wait_for(lambda: scripted_broker.connections == 2)
    eventually(lambda: messenger.is_connected)


def test_goes_on_after_an_error_while_it_is_not_connected(make_messenger, log):
    messenger = make_messenger(f"mqtt://127.0.0.1:{free_port()}", until_connected=False)
    send(messenger, BROKEN)
    log.wait_for("ERROR Announcing was interrupted; it goes on")
    eventually(lambda: messenger.is_idle)
    send(messenger, A)

    assert outcomes_of(messenger, 1) == [("a", "returned", "")]


def test_a_connection_that_is_lost_as_soon_as_it_is_there_is_none(make_messenger, constants, log):
    is_seen, is_over = threading.Event(), threading.Event()

    class Stopper(Message):
        """It keeps the messenger from hearing of the connection before it is lost."""

        @property
        def topic(self):
            is_seen.set()
            assert is_over.wait(LIMIT)
            return CONFIGS_TOPIC

    constants(CONNECT_TIMEOUT=LIMIT)
    accepted = bytes([0x20, 3, 0, 0, 0])
    with socket.create_server(("127.0.0.1", 0)) as broker:
        messenger = make_messenger(f"mqtt://127.0.0.1:{broker.getsockname()[1]}", until_connected=False)
        connection, _ = broker.accept()
        send(messenger, Stopper(CONFIGS_TOPIC, "a", 1))
        assert is_seen.wait(LIMIT)
        with connection:
            connection.recv(1024)
            connection.sendall(accepted)
        eventually(lambda: not paho_threads())  # so it has told both
        is_over.set()
        connection, _ = broker.accept()
        before = list(log.messages)
        with connection:
            connection.sendall(accepted)
            log.wait_for("INFO Connected to the broker")
            eventually(lambda: messenger.is_connected)

    assert len(before) == 1
    assert "lost the connection" in before[0]


def test_paho_is_never_called_while_a_lock_of_ours_is_held(clients, messenger, scripted_broker, monkeypatch):
    """paho holds its locks while it calls back, and takes them in publish()."""
    were_free: list[bool] = []

    def watched(call):
        def look_first(*arguments, **options):
            were_free.append(is_free(messenger.changed))
            return call(*arguments, **options)

        return look_first

    for name in ["publish", "disconnect"]:
        monkeypatch.setattr(clients[0], name, watched(getattr(clients[0], name)))
    send(messenger, A, B)
    outcomes_of(messenger, 2)
    scripted_broker.drop()
    scripted_broker.wait_for(lambda: scripted_broker.connections == 2)

    assert were_free == [True] * 3
