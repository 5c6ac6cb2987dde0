"""A broker that knows only MQTT 3.1.1: MQTT 5 comes first, and 3.1.1 is spoken where the broker knows no other."""

import json
import sys

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from iotsupport.tests.support.fixtures import *  # noqa: F403
from iotsupport.tests.support.mosquitto import LoggedProcess, free_port
from iotsupport.tests.support.waiting import eventually
from notifications import connection, trouble
from notifications import messenger as messenger_module
from notifications.broker import Broker
from notifications.messages import CONFIGS_TOPIC, Message
from notifications.models import Announcement
from notifications.protocol import MQTT_3, MQTT_5, ProtocolChoice
from notifications.publisher import publisher
from notifications.simulator.devices import Simulator
from notifications.tests.conftest import save_config, upload_asset, wait_until_announced
from notifications.tests.scripted_broker import ScriptedBroker
from notifications.tests.sending import outcomes_of

SAID = "knows no MQTT 5: MQTT 3.1.1 is spoken. " + trouble.OLD_PROTOCOL
A = Message(CONFIGS_TOPIC, "a", 1)


@pytest.fixture
def old_broker(scripted_broker):
    scripted_broker.level = 4
    return scripted_broker


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(messenger_module, "RECONNECT_DELAYS", (0.01, 0.02))


def test_an_acknowledgement_counts(old_broker, make_messenger, log):
    messenger = make_messenger(old_broker.url)
    messenger.send(A)

    assert outcomes_of(messenger, 1) == [("a", "acknowledged", "")]
    assert old_broker.levels == [5, 4]
    assert log.warnings == [f"WARNING The broker {old_broker.url} {SAID}"]


def test_it_is_said_once_however_often_the_connection_is_lost(old_broker, make_messenger, log):
    messenger = make_messenger(old_broker.url)
    for count in range(1, 4):
        old_broker.drop()
        old_broker.wait_for(lambda count=count: old_broker.levels.count(4) > count)
        eventually(lambda: messenger.is_connected)

    assert set(zip(old_broker.levels[::2], old_broker.levels[1::2], strict=True)) == {(5, 4)}
    assert [line for line in log.warnings if "lost the connection" not in line] == [
        f"WARNING The broker {old_broker.url} {SAID}"
    ]


def test_a_broker_that_has_learnt_mqtt_5_is_spoken_to_in_it(old_broker, make_messenger):
    messenger = make_messenger(old_broker.url)
    before = messenger.protocol.current
    old_broker.level = 5
    old_broker.drop()
    old_broker.wait_for(lambda: old_broker.connections == 3)
    eventually(lambda: messenger.is_connected)
    messenger.send(A)

    assert outcomes_of(messenger, 1) == [("a", "acknowledged", "")]
    assert (before, messenger.protocol.current) == (MQTT_3, MQTT_5)


@pytest.mark.parametrize("code", [4, 5])
def test_wrong_credentials_are_told_as_such(old_broker, make_messenger, log, code):
    old_broker.connack = code
    messenger = make_messenger(old_broker.url, until_connected=False, username="me", password="wrong")
    old_broker.wait_for(lambda: old_broker.connections > 6)

    assert messenger.trouble.advice == trouble.WRONG_CREDENTIALS
    assert len(log.warnings) == 1
    assert "protocol version" not in log.warnings[0]


def test_a_broker_that_hangs_up_on_mqtt_5_is_tried_with_the_other(old_broker, make_messenger):
    old_broker.hangs_up = True
    messenger = make_messenger(old_broker.url)
    messenger.send(A)

    assert outcomes_of(messenger, 1) == [("a", "acknowledged", "")]
    # Once more, since one that was about to end, and starts again, would do the same.
    assert old_broker.levels == [5, 5, 5, 4, 5, 4]
    old_broker.drop()
    old_broker.wait_for(lambda: old_broker.connections == 8)
    assert old_broker.levels[6:] == [5, 4]


def test_a_broker_that_was_away_for_long_is_not_taken_for_an_old_one(scripted_broker, make_messenger):
    """It ended every connection, and is started again in the moment when the older version is tried."""
    scripted_broker.level, scripted_broker.hangs_up = 4, True
    scripted_broker.learns_at = 4
    messenger = make_messenger(scripted_broker.url)

    assert scripted_broker.levels == [5, 5, 5, 4, 5]
    assert messenger.protocol.current == MQTT_5


def test_a_broker_that_is_silent_on_mqtt_5_is_tried_with_the_other(make_messenger, monkeypatch):
    """As one that waits for more bytes, for it reads them as another version."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 0.1)
    with ScriptedBroker() as broker:
        broker.level, broker.is_silent = 4, True

        assert make_messenger(broker.url).protocol.current == MQTT_3


def test_a_broker_that_knows_neither_is_told_as_such(scripted_broker, make_messenger, log):
    scripted_broker.level = 3
    messenger = make_messenger(scripted_broker.url, until_connected=False)
    scripted_broker.wait_for(lambda: scripted_broker.connections > 4)
    eventually(lambda: messenger.trouble)

    assert messenger.trouble.advice == trouble.REFUSALS[trouble.UNSUPPORTED_VERSION]


def test_a_broker_that_knows_mqtt_5_is_spoken_to_in_nothing_else(scripted_broker, make_messenger):
    scripted_broker.connack = 135
    messenger = make_messenger(scripted_broker.url, until_connected=False)
    scripted_broker.wait_for(lambda: scripted_broker.connections > 5)
    scripted_broker.connack = 0
    eventually(lambda: messenger.is_connected)

    assert set(scripted_broker.levels) == {5}


@pytest.mark.usefixtures("transactional_db", "long_leases")
def test_it_is_shown(old_broker, start, signed_in, client):
    start(old_broker.url)

    assert publisher.protocol() == "3.1.1"
    assert client.get("/health").json()["mqtt_version"] == "3.1.1"
    page = signed_in.get("/admin/notifications/announcement/").content.decode()
    assert "The broker knows no MQTT 5,</strong> so MQTT 3.1.1 is spoken." in page


@pytest.mark.usefixtures("transactional_db", "long_leases")
def test_nothing_is_shown_of_mqtt_5(scripted_broker, start, signed_in, client):
    start(scripted_broker.url)

    assert publisher.protocol() == "5"
    assert "mqtt_version" not in client.get("/health").json()
    assert "MQTT 5" not in signed_in.get("/admin/notifications/announcement/").content.decode()


# --- A real one --------------------------------------------------------------------------------------------------

CONFIG = """\
listeners:
  default:
    type: tcp
    bind: 127.0.0.1:{port}
plugins:
  amqtt.plugins.authentication.{authentication}
"""


class Amqtt(LoggedProcess):
    """amqtt, which knows only MQTT 3.1.1."""

    def __init__(self, directory, authentication="AnonymousAuthPlugin:\n    allow_anonymous: true"):
        super().__init__()
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._config = directory / "amqtt.yaml"
        self._config.write_text(CONFIG.format(port=self.port, authentication=authentication))

    def start(self):
        code = "from amqtt.scripts.broker_script import main; main()"
        self._process = self._start(sys.executable, "-c", code, "-c", str(self._config), "-d")
        self.wait_for_log("Listener 'default' bind to")
        return self

    def stop(self):
        self._process.terminate()
        self._wait_for_end(self._process)


@pytest.fixture
def amqtt(tmp_path):
    broker = Amqtt(tmp_path).start()
    yield broker
    broker.stop()


@pytest.fixture
def listen():
    """Hear, as firmware with MQTT 3.1.1 does, what a broker passes on: its client, and file names."""
    clients = []

    def listen(port):
        heard, subscribed = [], []
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        clients.append(client)
        client.on_subscribe = lambda *arguments: subscribed.append(True)
        client.on_message = lambda _client, _data, message: heard.append(json.loads(message.payload)["filename"])
        client.connect("127.0.0.1", port)
        client.loop_start()
        eventually(client.is_connected)
        client.subscribe("iotsupport/#", qos=1)
        eventually(lambda: subscribed)
        return client, heard

    yield listen
    for client in clients:
        client.disconnect()
        client.loop_stop()
        client.on_subscribe = client.on_message = None


@pytest.mark.processes
def test_simulated_devices_hear_of_it_what_is_announced(amqtt, listen, nobody):
    listener, _ = listen(amqtt.port)
    said: list[str] = []
    simulator = Simulator(nobody.replace("mqtt", "http"), ["aa-bb-cc-dd-ee-01"], Broker.parse(amqtt.url), said.append)
    simulator.start()
    eventually(lambda: any("after subscribing" in line for line in said), lambda: said)
    listener.publish(CONFIGS_TOPIC, b'{"filename": "aa-bb-cc-dd-ee-01.json"}')

    eventually(lambda: simulator.counts["heard"] == 1)
    simulator.stop()
    assert not [line for line in said if "broker" in line]


@pytest.mark.processes
@pytest.mark.usefixtures("transactional_db", "long_leases")
@pytest.mark.parametrize("account", [{}, {"MQTT_USERNAME": "server", "MQTT_PASSWORD": "secret"}])
def test_a_real_broker_hears_everything_that_is_saved(amqtt, start, listen, log, account, monkeypatch):
    """Of a CONNECT of MQTT 5 with a user name, it waits for bytes that never come."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 1.0)  # for each of four
    _, heard = listen(amqtt.port)
    start(amqtt.url, **account)
    for number in range(5):
        save_config(number)
    upload_asset("Küche.bin")
    wait_until_announced()

    eventually(lambda: len(set(heard)) == 6)
    assert "Küche.bin" in heard
    assert publisher.protocol() == "3.1.1"
    assert not Announcement.objects.owed().exists()
    assert [line for line in log.warnings if "MQTT 3.1.1" in line] == [f"WARNING The broker {amqtt.url} {SAID}"]


def test_a_broker_that_refuses_both_versions_is_asked_for_the_newer_one_again():
    choice = ProtocolChoice()
    tried = []
    for _ in range(3):
        tried.append(choice.begin())
        choice.refused()

    assert tried == [MQTT_5, MQTT_3, MQTT_5]
