"""A process's connection to the broker: made anew whenever it is lost; and what no broker can be made to do."""

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

from iotsupport.tests.support.mosquitto import free_port
from iotsupport.tests.support.waiting import LIMIT, eventually
from notifications import connection as connection_module
from notifications import trouble
from notifications.connection import packet_bytes
from notifications.messages import CONFIGS_TOPIC, Message
from notifications.messenger import LOST
from notifications.tests.scripted_broker import NOT_AUTHORIZED, ScriptedBroker
from notifications.tests.sending import A, B, config, outcomes_of, send

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


def test_keeps_alive_a_connection_on_which_nothing_is_sent(make_messenger, scripted_broker, constants):
    constants(KEEPALIVE=4)  # of which a busy machine may need more than one second
    messenger = make_messenger(scripted_broker.url)
    scripted_broker.wait_for(lambda: scripted_broker.pings == 2)

    assert messenger.is_connected
    assert scripted_broker.connections == 1


def test_leaves_a_connection_that_is_dead_without_a_word(make_messenger, scripted_broker, constants, log):
    """As where a machine lost its power, or a firewall its table: nothing on this side ends it."""
    constants(KEEPALIVE=1)
    scripted_broker.answers_pings = False
    make_messenger(scripted_broker.url)

    scripted_broker.wait_for(lambda: scripted_broker.connections == 2)
    said = f"WARNING The broker {scripted_broker.url} lost the connection: Keep alive timeout. {trouble.LOST}"
    assert log.warnings == [said]


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


def test_bounds_what_paho_remembers_and_how_long_it_waits(clients, messenger):
    [client] = clients

    assert client.max_queued_messages == 2 * connection_module.MAX_IN_FLIGHT
    assert client.max_inflight_messages == connection_module.MAX_IN_FLIGHT
    assert client.keepalive == connection_module.KEEPALIVE
    assert client.connect_timeout == connection_module.CONNECT_TIMEOUT


def test_reports_as_lost_what_paho_took_when_the_connection_was_gone(messenger, scripted_broker, attempts):
    class Late(Message):
        @property
        def payload(self):
            scripted_broker.drop()
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
