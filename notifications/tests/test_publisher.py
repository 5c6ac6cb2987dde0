"""The publisher and a real broker: in trouble, with TLS and passwords, and counted."""

import re

import pytest
from prometheus_client import REGISTRY

from devices.models import DeviceConfig
from iotsupport.tests.mosquitto import Subscriber, free_port
from notifications import connection
from notifications.announcements import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.publisher import publisher
from notifications.tests.conftest import save_config, upload_asset, wait_until, wait_until_settled

ACCOUNT = {"MQTT_USERNAME": "server", "MQTT_PASSWORD": "p@ss:word/"}
USERS = {"server": "p@ss:word/", "device": "secret"}


def gauges():
    return [REGISTRY.get_sample_value(name) for name in ["mqtt_enabled", "mqtt_connection_state"]]


def test_shows_both_topics_from_the_start():
    for topic in ["iotsupport/updates/configs", "iotsupport/updates/assets"]:
        for status in ["success", "failure"]:
            labels = {"topic": topic, "status": status}
            assert REGISTRY.get_sample_value("mqtt_publish_total", labels) is not None


def test_counts_each_attempt_once(subscriber, attempts):
    for number in range(300):
        publisher.publish(CONFIGS_TOPIC, f"{number}.json")
    publisher.publish(ASSETS_TOPIC, "firmware.bin")
    messages = subscriber.take(301)
    wait_until_settled()

    assert len({message.payload for message in messages}) == 301
    assert attempts() == (300, 0, 300)
    assert attempts(ASSETS_TOPIC) == (1, 0, 1)


def test_tells_its_state(shared_broker, start):
    states = [publisher.state()]
    start(f"mqtt://127.0.0.1:{free_port()}", until_connected=False)
    states.append(publisher.state())
    disconnected = gauges()
    publisher.stop()
    start(shared_broker.url)
    states.append(publisher.state())

    assert states == ["off", "disconnected", "connected"]
    assert disconnected == [1, 0]
    assert gauges() == [1, 1]
    publisher.stop()
    assert gauges() == [0, 0]


def test_starts_once(shared_broker, start):
    first_line = len(shared_broker.lines)
    start(shared_broker.url)
    start(shared_broker.url)
    publisher.stop()
    shared_broker.wait_for_log("Received DISCONNECT from iotsupport-", after=first_line)

    connected = [line for line in shared_broker.lines[first_line:] if "New client connected" in line]
    assert len(connected) == 1


def test_stops_twice(shared_broker, start):
    first_line = len(shared_broker.lines)
    start(shared_broker.url)
    publisher.publish(CONFIGS_TOPIC, "a.json")

    publisher.stop()
    publisher.stop()

    shared_broker.wait_for_log("Received DISCONNECT from iotsupport-", after=first_line)


def test_starts_again_after_it_was_stopped(subscriber, start, shared_broker):
    publisher.stop()
    publisher.publish(CONFIGS_TOPIC, "while-off.json")
    start(shared_broker.url)
    publisher.publish(CONFIGS_TOPIC, "a.json")

    assert subscriber.next().payload == b'{"filename": "a.json"}'


def test_is_a_client_of_its_own_each_time():
    ids = {connection.make_client_id() for _ in range(10)}

    assert len(ids) == 10
    assert all(re.fullmatch(r"iotsupport-.+-\d+-[0-9a-f]{8}", client_id) for client_id in ids)


@pytest.mark.django_db(transaction=True)
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


@pytest.mark.django_db(transaction=True)
def test_saves_with_a_wrong_password(make_broker, start, attempts, log):
    broker = make_broker(users=USERS)
    start(broker.url, until_connected=False, MQTT_USERNAME="server", MQTT_PASSWORD="hunter2")
    broker.wait_for_log("disconnected, not authorised", count=3)

    save_config(1)

    assert DeviceConfig.objects.count() == 1
    assert attempts() == (0, 1, 1)
    assert log.warnings == [f"WARNING The broker {broker.url} refuses the connection: Not authorized"]
    assert "hunter2" not in str(log.messages)


@pytest.mark.django_db(transaction=True)
def test_saves_with_an_unknown_host(start, attempts, log):
    # Too long for the domain name system, so that no name server is asked.
    start(f"mqtt://{'broker.' * 40}invalid", until_connected=False)
    log.wait_for("cannot be reached")

    save_config(1)

    assert attempts() == (0, 1, 1)
    assert "invalid:1883 cannot be reached: [Errno -2] Name or service not known" in log.warnings[0]


@pytest.mark.django_db(transaction=True)
def test_announces_each_file_once_when_the_broker_is_back(make_broker, start, attempts, log):
    broker = make_broker()
    start(broker.url)
    with Subscriber(broker.port) as subscriber:
        broker.stop()
        log.wait_for("cannot be reached: [Errno 111] Connection refused")
        for number in [1, 2, 1, 1]:
            save_config(number, name="changed")
        upload_asset()
        while_away = attempts()
        broker.start()

        payloads = [message.payload for message in subscriber.take(3)]
        publisher.publish(CONFIGS_TOPIC, "last.json")
        more = subscriber.before(b'{"filename": "last.json"}')
        wait_until_settled()

    assert payloads == [
        b'{"filename": "aa-bb-cc-dd-ee-01.json"}',
        b'{"filename": "aa-bb-cc-dd-ee-02.json"}',
        b'{"filename": "firmware.bin"}',
    ]
    assert more == []
    assert while_away == (0, 4, 4)
    assert attempts() == (3, 4, 7)
    assert attempts(ASSETS_TOPIC) == (1, 1, 2)
    assert len(log.warnings) == len(set(log.warnings)) == 2


def test_announces_again_what_a_crash_left_unacknowledged(make_broker, start, attempts):
    broker = make_broker()
    start(broker.url)
    broker.freeze()
    publisher.publish(CONFIGS_TOPIC, "a.json")
    broker.kill()
    wait_until(lambda connection: not connection.is_connected)

    broker.start()
    wait_until_settled()

    assert attempts() == (1, 0, 1)
    broker.wait_for_log(f"Received PUBLISH from iotsupport-.* '{CONFIGS_TOPIC}'")


def test_waits_for_a_frozen_broker_only_in_the_background(make_broker, start, attempts):
    broker = make_broker()
    start(broker.url)
    with Subscriber(broker.port) as subscriber:
        broker.freeze()
        for number in range(700):
            publisher.publish(CONFIGS_TOPIC, f"{number}.json")
        while_frozen = attempts()
        broker.thaw()

        assert len({message.payload for message in subscriber.take(700)}) == 700
        wait_until_settled()

    # What cannot be handed over at once is an attempt that failed.
    assert while_frozen == (0, 200, 700)
    assert attempts() == (700, 200, 900)


def test_counts_what_the_broker_refuses(make_broker, start, attempts, log):
    broker = make_broker(acl=f"topic write {CONFIGS_TOPIC}\ntopic read #\n")
    start(broker.url)

    # All at once: this Mosquitto also drops the connection after each refusal.
    broker.freeze()
    publisher.publish(ASSETS_TOPIC, "a.bin")
    publisher.publish(ASSETS_TOPIC, "b.bin")
    publisher.publish(CONFIGS_TOPIC, "a.json")
    broker.thaw()
    wait_until_settled()

    assert attempts(ASSETS_TOPIC) == (0, 2, 2)
    assert attempts(CONFIGS_TOPIC) == (1, 0, 1)
    refusals = [message for message in log.warnings if "refuses" in message]
    assert refusals == [f"WARNING The broker {broker.url} refuses announcements on {ASSETS_TOPIC}: Not authorized"]


def test_counts_as_failed_what_is_not_acknowledged_at_the_end(make_broker, start, attempts, log):
    broker = make_broker()
    start(broker.url)
    broker.freeze()
    publisher.publish(CONFIGS_TOPIC, "a.json")

    publisher.stop()

    assert attempts() == (0, 1, 1)
    assert log.warnings == [f"WARNING 1 files were not announced: {broker.url} did not acknowledge them in time"]


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
    publisher.publish(CONFIGS_TOPIC, "a.json")

    assert publisher.state() == "off"
    assert gauges() == [0, 0]
    assert log.warnings == [f"ERROR Nothing will be announced: {message}"]


def test_tells_when_the_server_is_no_broker(make_broker, start, certificates, log):
    broker = make_broker(certificates=certificates)

    start(broker.url.replace("mqtts", "mqtt"), until_connected=False)
    broker.wait_for_log("Client connection .* failed", count=3)

    assert len(log.warnings) == 1
    assert "lost the connection" in log.warnings[0]
