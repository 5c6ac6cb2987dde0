"""What no broker can be made to do, with a mocked client in place of paho's."""

from unittest import mock

import pytest
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessageInfo
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from notifications import connection as connection_module
from notifications.announcements import CONFIGS_TOPIC, Announcement
from notifications.broker import Broker
from notifications.connection import Connection

A, B, C = (Announcement(CONFIGS_TOPIC, f"{name}.json") for name in "abc")


@pytest.fixture
def client(monkeypatch):
    client = mock.create_autospec(Client, instance=True)
    client.publish.side_effect = map(info, range(1, 100))
    client.disconnect.return_value = MQTTErrorCode.MQTT_ERR_NO_CONN
    monkeypatch.setattr(connection_module, "Client", lambda *args, **kwargs: client)
    return client


@pytest.fixture
def connection(client):
    connection = Connection(Broker("broker", 1883))
    connect(client)
    return connection


def info(mid, rc=MQTTErrorCode.MQTT_ERR_SUCCESS):
    info = MQTTMessageInfo(mid)
    info.rc = rc
    return info


def connect(client):
    client.on_connect(client, None, ConnectFlags(session_present=False), ReasonCode(PacketTypes.CONNACK), None)


def disconnect(client):
    reason_code = ReasonCode(PacketTypes.DISCONNECT, "Unspecified error")
    client.on_disconnect(client, None, DisconnectFlags(is_disconnect_packet_from_server=False), reason_code, None)


def acknowledge(client, mid, reason="Success"):
    client.on_publish(client, None, mid, ReasonCode(PacketTypes.PUBACK, reason), Properties(PacketTypes.PUBACK))


def published(client):
    return [call.args[1] for call in client.publish.call_args_list]


def test_never_blocks_while_it_starts(client):
    Connection(Broker("broker", 1883))

    client.connect_async.assert_called_once_with("broker", 1883, 15)
    client.loop_start.assert_called_once_with()
    client.connect.assert_not_called()


def test_bounds_what_paho_remembers_and_how_long_it_waits(client):
    Connection(Broker("broker", 1883))

    client.max_queued_messages_set.assert_called_once_with(1000)
    (shortest, longest), _ = client.reconnect_delay_set.call_args
    assert shortest + 2 * shortest < 1
    assert longest <= 4
    assert client.connect_timeout <= 5


def test_counts_the_acknowledgement(connection, client, attempts):
    connection.publish(A)
    before = attempts()
    acknowledge(client, mid=1)

    assert before == (0, 0, 1)
    assert attempts() == (1, 0, 1)


def test_takes_no_subscribers_as_a_success(connection, client, attempts):
    connection.publish(A)
    acknowledge(client, mid=1, reason="No matching subscribers")

    assert attempts() == (1, 0, 1)


@pytest.mark.parametrize("reason", ["Quota exceeded", "Not authorized", "Unspecified error", "Packet too large"])
def test_counts_a_refusal(connection, client, attempts, reason):
    connection.publish(A)
    reason_code = mock.Mock(is_failure=True, __str__=lambda self: reason)
    client.on_publish(client, None, 1, reason_code, Properties(PacketTypes.PUBACK))

    assert attempts() == (0, 1, 1)


def test_counts_an_acknowledgement_that_comes_before_publish_returns(connection, client, attempts):
    def publish(*args, **kwargs):
        acknowledge(client, mid=7)
        return info(7)

    client.publish.side_effect = publish
    connection.publish(A)

    assert attempts() == (1, 0, 1)
    assert connection._is_idle()
    assert not connection._acknowledged_early


def test_does_not_call_paho_with_its_own_lock(connection, client):
    """paho holds its locks while it calls back, and takes them in publish()."""

    def publish(*args, **kwargs):
        assert not connection._changed._is_owned()
        return info(1)

    client.publish.side_effect = publish
    connection.publish(A)
    disconnect(client)
    connection.publish(B)
    connect(client)
    client.disconnect.side_effect = lambda: [connection._changed._is_owned(), MQTTErrorCode.MQTT_ERR_NO_CONN][1]
    connection.close(0)

    assert client.publish.call_count == 2


def test_sends_what_did_not_fit_after_the_next_acknowledgement(connection, client, attempts):
    client.publish.side_effect = [info(1), info(2, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE), info(3)]
    connection.publish(A)
    connection.publish(B)
    full = attempts()

    acknowledge(client, mid=1)
    acknowledge(client, mid=3)

    assert full == (0, 1, 2)
    assert attempts() == (2, 1, 3)
    assert published(client) == [A.payload, B.payload, B.payload]


def test_leaves_to_paho_what_was_sent_when_the_connection_was_lost(connection, client, attempts):
    client.publish.side_effect = [info(1, MQTTErrorCode.MQTT_ERR_NO_CONN)]
    connection.publish(A)
    disconnect(client)
    connect(client)
    acknowledge(client, mid=1)

    assert client.publish.call_count == 1
    assert attempts() == (1, 0, 1)


def test_survives_whatever_paho_raises(connection, client, attempts, log):
    client.publish.side_effect = ValueError("Invalid topic.")

    connection.publish(A)

    assert attempts() == (0, 1, 1)
    assert log.warnings == [f"ERROR Could not announce a.json on {CONFIGS_TOPIC}"]
    assert connection._is_idle()


def test_sends_the_others_when_one_cannot_be_sent(connection, client, attempts):
    disconnect(client)
    for announcement in [A, B, C]:
        connection.publish(announcement)
    client.publish.side_effect = [info(1), ValueError("B"), info(2)]

    connect(client)
    acknowledge(client, mid=1)
    acknowledge(client, mid=2)

    assert attempts() == (2, 4, 6)
    assert connection._is_idle()


def test_sends_nothing_before_it_is_connected(client, attempts):
    connection = Connection(Broker("broker", 1883))
    connection.publish(A)
    connection.publish(A)
    too_early = client.publish.called
    connect(client)

    assert not too_early
    assert published(client) == [A.payload]
    assert attempts() == (0, 2, 3)


def test_does_not_announce_twice_what_is_owed_and_saved_again(connection, client, monkeypatch):
    monkeypatch.setattr(connection_module, "MAX_IN_FLIGHT", 1)
    for announcement in [A, B, C]:
        connection.publish(announcement)
    monkeypatch.setattr(connection_module, "MAX_IN_FLIGHT", 2)
    connection.publish(C)
    acknowledge(client, mid=1)
    acknowledge(client, mid=2)
    acknowledge(client, mid=3)

    assert published(client) == [A.payload, C.payload, B.payload]


def test_keeps_few_messages_in_flight(connection, client, monkeypatch):
    monkeypatch.setattr(connection_module, "MAX_IN_FLIGHT", 2)
    for announcement in [A, B, C]:
        connection.publish(announcement)
    at_once = published(client)
    acknowledge(client, mid=1)

    assert at_once == [A.payload, B.payload]
    assert published(client) == [A.payload, B.payload, C.payload]


def test_remembers_no_more_than_a_fleet(connection, client, monkeypatch, attempts, log):
    monkeypatch.setattr(connection_module, "MAX_OWED", 2)
    disconnect(client)
    for announcement in [A, B, C, A]:
        connection.publish(announcement)
    connect(client)

    assert published(client) == [A.payload, B.payload]
    assert attempts() == (0, 4, 6)
    assert [message for message in log.warnings if message.startswith("ERROR")] == [
        "ERROR 2 files wait to be announced: no more are remembered until the broker is back"
    ]


def test_counts_once_what_is_acknowledged_too_late(connection, client, attempts):
    connection.publish(A)
    connection.close(0)
    acknowledge(client, mid=1)

    assert attempts() == (0, 1, 1)


def test_joins_no_thread_without_a_connection(connection, client):
    disconnect(client)
    connection.close(0)

    client.disconnect.assert_called_once_with()
    client.loop_stop.assert_not_called()


def test_leaves_a_broker_that_it_reaches_too_late(client):
    connection = Connection(Broker("broker", 1883))
    connection.close(0)
    connect(client)

    assert client.disconnect.call_count == 2
    assert not connection.is_connected


def test_logs_what_goes_wrong_in_a_callback(connection, client, log, monkeypatch):
    """An exception would end paho's thread, and with it every announcement."""
    monkeypatch.setattr(connection, "_pay", mock.Mock(side_effect=RuntimeError))

    connect(client)

    assert log.warnings == ["ERROR Could not handle what the broker said"]
