"""The publisher and a real broker: in trouble, with TLS and passwords, and counted."""

import re
from collections import Counter

import pytest
from prometheus_client import REGISTRY

from devices.models import DeviceConfig
from iotsupport.bulk import bulk_change
from iotsupport.tests.support.mosquitto import Subscriber
from iotsupport.tests.support.waiting import LIMIT, eventually
from notifications import connection, messenger
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC, Message
from notifications.models import Announcement
from notifications.publisher import publisher
from notifications.tests.conftest import (
    announcement_of,
    heard,
    save_config,
    stop_publisher,
    upload_asset,
    wait_until_announced,
)
from notifications.trouble import NO_SUCH_NAME, TLS_THERE, WRONG_CREDENTIALS

pytestmark = pytest.mark.usefixtures("transactional_db", "long_leases")

ACCOUNT = {"MQTT_USERNAME": "server", "MQTT_PASSWORD": "p@ss:word/"}
USERS = {"server": "p@ss:word/", "device": "secret"}


def gauges():
    return [REGISTRY.get_sample_value(name) for name in ["mqtt_enabled", "mqtt_connection_state"]]


def test_shows_both_topics_from_the_start():
    for topic in ["iotsupport/updates/configs", "iotsupport/updates/assets"]:
        for status in ["success", "failure"]:
            labels = {"topic": topic, "status": status}
            assert REGISTRY.get_sample_value("mqtt_publish_total", labels) is not None


@pytest.mark.both_databases
def test_counts_each_attempt_once(subscriber, attempts):
    for number in range(40):
        save_config(number)
    with bulk_change():
        for number in range(40, 60):
            save_config(number)
    upload_asset()
    messages = heard(subscriber)

    assert len(set(messages)) == len(messages) == 61
    assert attempts() == (60, 0, 60)
    assert attempts(ASSETS_TOPIC) == (1, 0, 1)


def test_tells_its_state(shared_broker, nobody, start):
    states = [publisher.state()]
    start(nobody, until_connected=False)
    states.append(publisher.state())
    disconnected = gauges()
    stop_publisher()
    start(shared_broker.url)
    states.append(publisher.state())

    assert states == ["off", "disconnected", "connected"]
    assert disconnected == [1, 0]
    assert gauges() == [1, 1]
    stop_publisher()
    assert gauges() == [0, 0]


def test_starts_once(make_broker, start):
    broker = make_broker()
    start(broker.url)
    start(broker.url)
    publisher.stop()
    broker.wait_for_log("Received DISCONNECT from iotsupport-")

    assert len(broker.wait_for_log("New client connected")) == 1


def test_stops_twice(make_broker, start):
    broker = make_broker()
    start(broker.url)
    save_config(1)

    publisher.stop()
    publisher.stop()

    broker.wait_for_log("Received DISCONNECT from iotsupport-")


def test_stops_when_what_was_handed_over_is_acknowledged(subscriber, no_hurry):
    for number in range(20):
        save_config(number)
    publisher.stop()

    assert len({message.payload for message in subscriber.take(20)}) == 20
    assert not Announcement.objects.owed().exists()


def test_starts_again_after_it_was_stopped(subscriber, start, shared_broker):
    stop_publisher()
    save_config(1)  # off: it is not recorded
    start(shared_broker.url)
    save_config(2)

    assert [filename for _, filename in heard(subscriber)] == ["aa-bb-cc-dd-ee-02.json"]


def test_does_nothing_while_it_is_off(attempts):
    publisher.hand_over(Message(CONFIGS_TOPIC, "a.json", 1), is_claimed=True)
    publisher.wake()
    publisher.start_in_child()
    publisher.stop()

    assert publisher.state() == "off"
    assert not publisher.is_on
    assert not publisher.can_send(CONFIGS_TOPIC)
    assert publisher.name == publisher.suspension(CONFIGS_TOPIC) == ""
    assert attempts() == (0, 0, 0)


def test_serves_from_the_start_where_it_was_told_before(shared_broker, settings):
    Announcement.objects.record(CONFIGS_TOPIC, "gone.json", is_bulk=False)
    settings.MQTT_URL = shared_broker.url
    try:
        publisher.serve()
        publisher.start()

        eventually(lambda: not Announcement.objects.exists())
    finally:
        stop_publisher()


@pytest.mark.both_databases
def test_a_command_that_saves_nothing_announces_nothing_of_others(scripted_broker, start, attempts):
    Announcement.objects.record(CONFIGS_TOPIC, "gone.json", is_bulk=False)
    start(scripted_broker.url, serving=False)
    stop_publisher()

    assert Announcement.objects.owed().count() == 1


@pytest.mark.both_databases
def test_a_command_waits_for_what_it_saved(scripted_broker, start, no_hurry):
    start(scripted_broker.url, serving=False)
    with bulk_change():
        for number in range(30):
            save_config(number)
    publisher.stop()

    assert len(set(scripted_broker.heard)) == 30
    assert not Announcement.objects.owed().exists()


def test_is_a_client_of_its_own_each_time():
    ids = {connection.make_client_id() for _ in range(10)}

    assert len(ids) == 10
    assert all(re.fullmatch(r"iotsupport-.+-\d+-[0-9a-f]{8}", client_id) for client_id in ids)


def test_speaks_mqtt_5_over_tls_with_a_password(make_broker, start, certificates):
    broker = make_broker(users=USERS, certificates=certificates)
    start(broker.url, MQTT_CA_FILE=str(certificates.ca_file), **ACCOUNT)

    with Subscriber(broker.port, username="device", password="secret", ca_file=certificates.ca_file) as subscriber:
        save_config(1)
        assert subscriber.next().payload == b'{"filename": "aa-bb-cc-dd-ee-01.json"}'
    broker.wait_for_log(r"New client connected from .* as iotsupport-\S+ \(p5, .* u'server'\)")


def test_takes_the_credentials_from_the_url(make_broker, start):
    broker = make_broker(users=USERS)

    start(broker.url.replace("//", "//server:p%40ss%3Aword%2F@"))

    assert publisher.state() == "connected"


def test_saves_with_a_wrong_password(make_broker, start, attempts, log, monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", LIMIT)  # a busy broker may think longer; nothing else is logged
    broker = make_broker(users=USERS)
    start(broker.url, until_connected=False, MQTT_USERNAME="server", MQTT_PASSWORD="hunter2")
    broker.wait_for_log("disconnected, not authorised", count=3)

    save_config(1)

    assert DeviceConfig.objects.count() == Announcement.objects.owed().count() == 1
    assert attempts() == (0, 1, 0)
    assert log.warnings == [
        f"WARNING The broker {broker.url} refuses the connection: Not authorized. {WRONG_CREDENTIALS}"
    ]
    assert "hunter2" not in str(log.messages)


def test_saves_with_an_unknown_host(start, attempts, log):
    # Too long for the domain name system, so that no name server is asked.
    start(f"mqtt://{'broker.' * 40}invalid", until_connected=False)
    log.wait_for("cannot be reached")

    save_config(1)

    assert Announcement.objects.owed().count() == 1
    assert attempts() == (0, 1, 0)
    assert f"invalid:1883 cannot be reached: [Errno -2] Name or service not known. {NO_SUCH_NAME}" in log.warnings[0]


@pytest.mark.both_databases
def test_announces_each_file_once_when_the_broker_is_back(make_broker, start, attempts, log):
    broker = make_broker()
    start(broker.url)
    with Subscriber(broker.port) as subscriber:
        broker.stop()
        log.wait_for("lost the connection")
        log.wait_for("cannot be reached: [Errno 111] Connection refused")
        for number in range(100):
            save_config(number % 2, name=f"lamp {number}")
        upload_asset()
        while_away = attempts()
        rows = Announcement.objects.count()
        broker.start()
        payloads = sorted(message.payload for message in subscriber.take(3))
        more = heard(subscriber)

    assert payloads == [
        b'{"filename": "aa-bb-cc-dd-ee-00.json"}',
        b'{"filename": "aa-bb-cc-dd-ee-01.json"}',
        b'{"filename": "firmware.bin"}',
    ]
    assert more == []
    assert rows == 3
    assert while_away == (0, 100, 0)
    assert attempts() == (2, 100, 2)
    assert attempts(ASSETS_TOPIC) == (1, 1, 1)
    # Each kind of trouble once; a broker that is about to end may still take a connection, and lose it.
    assert len(log.warnings) == len(set(log.warnings))
    assert all(re.search("lost the connection|cannot be reached|does not answer", line) for line in log.warnings)


@pytest.mark.both_databases
def test_announces_again_what_a_crash_left_unacknowledged(make_broker, start, attempts):
    broker = make_broker()
    start(broker.url)
    broker.freeze()
    config = save_config(1)
    eventually(lambda: attempts() == (0, 0, 1))
    broker.kill()
    eventually(lambda: announcement_of(config).tries == 1)
    reason = announcement_of(config).last_error
    broker.start()
    wait_until_announced()

    assert reason == "The connection to the broker ended before it acknowledged."
    assert attempts() == (1, 1, 2)
    broker.wait_for_log(f"Received PUBLISH from iotsupport-.* '{CONFIGS_TOPIC}'")


def test_saves_while_the_broker_is_frozen_and_announces_all_when_it_goes_on(make_broker, start, monkeypatch):
    # Sixty saves may take longer, and a new connection sends again.
    monkeypatch.setattr(messenger, "ACKNOWLEDGE_TIMEOUT", LIMIT)
    monkeypatch.setattr(connection, "KEEPALIVE", LIMIT)
    broker = make_broker()
    start(broker.url)
    with Subscriber(broker.port) as subscriber:
        broker.freeze()
        for number in range(60):
            save_config(number)
        owed = Announcement.objects.owed().count()
        broker.thaw()
        payloads = {message.payload for message in subscriber.take(60)}
        more = heard(subscriber)

    assert owed == len(payloads) == 60
    assert more == []


@pytest.mark.both_databases
def test_announces_the_other_topic_where_the_broker_refuses_one(make_broker, start, attempts, log):
    """This Mosquitto also drops the connection after each refusal."""
    broker = make_broker(acl=f"topic write {CONFIGS_TOPIC}\ntopic read #\n")
    start(broker.url)

    with Subscriber(broker.port) as subscriber:
        with bulk_change():
            for number in range(5):
                upload_asset(f"{number}.bin")
        for number in range(5):
            save_config(number)
        eventually(lambda: not Announcement.objects.owed().filter(topic=CONFIGS_TOPIC).exists())
        subscriber.publish(CONFIGS_TOPIC, b"last")
        configs = [message.payload for message in subscriber.before(b"last")]

    eventually(lambda: Announcement.objects.owed().filter(last_error="Not authorized").count() == 5)
    assert len(set(configs)) == 5
    # What was in flight together with a refusal comes again, over the next connection.
    broker.wait_for_log("Received PUBLISH from subscriber-")  # that was the last, and the log is complete up to it
    connections = broker.wait_for_log("New client connected from .* as iotsupport-")
    assert max(Counter(configs).values()) <= len(connections)
    assert attempts(ASSETS_TOPIC)[0] == 0
    assert attempts(CONFIGS_TOPIC)[0] == 5
    refusals = [message for message in log.warnings if "refuses" in message]
    assert refusals == [f"WARNING The broker {broker.url} refuses announcements on {ASSETS_TOPIC}: Not authorized"]


@pytest.mark.both_databases
def test_leaves_owed_what_is_not_acknowledged_at_the_end(make_broker, start, attempts, log):
    broker = make_broker()
    start(broker.url)
    broker.freeze()
    config = save_config(1)
    eventually(lambda: attempts() == (0, 0, 1))

    stop_publisher()

    assert announcement_of(config).owed_since is not None
    assert announcement_of(config).claimed_by == ""
    assert attempts() == (0, 1, 1)
    assert log.warnings == ["WARNING 1 file is still to be announced: a server does it when it and the broker run"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"MQTT_URL": "http://me:hunter2@broker"}, "MQTT_URL must begin with mqtt:// or mqtts://."),
        (
            {"MQTT_URL": "mqtts://broker", "MQTT_CA_FILE": "/nowhere.pem"},
            "MQTT_CA_FILE '/nowhere.pem' cannot be read: No such file or directory.",
        ),
    ],
)
def test_is_off_with_one_logged_error_where_the_settings_are_wrong(start, log, values, message):
    start(values.pop("MQTT_URL"), until_connected=False, **values)
    save_config(1)

    assert not Announcement.objects.exists()
    assert publisher.state() == "off"
    assert gauges() == [0, 0]
    assert log.warnings == [f"ERROR Nothing will be announced: {message}"]


def test_tells_when_the_server_is_no_broker(make_broker, start, certificates, log):
    broker = make_broker(certificates=certificates)

    start(broker.url.replace("mqtts", "mqtt"), until_connected=False)
    broker.wait_for_log("Client connection .* failed", count=3)

    said = (
        f"WARNING The broker {broker.url.replace('mqtts', 'mqtt')} lost the connection before it answered. {TLS_THERE}"
    )
    assert log.warnings == [said]
