import gc
import json
import logging
import socket
import threading
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.tests.support.fixtures import directories, transactional_db  # noqa: F401
from iotsupport.tests.support.mosquitto import Certificates, Mosquitto, Subscriber
from iotsupport.tests.support.waiting import LIMIT, eventually
from notifications import connection, refusals
from notifications import messenger as messenger_module
from notifications.broker import Broker
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.messenger import Messenger
from notifications.models import Announcement
from notifications.publisher import publisher
from notifications.tests.scripted_broker import ScriptedBroker
from notifications.tests.sending import config, send


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory):
    broker = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def make_broker(tmp_path):
    """A broker of the test's own: to be stopped, frozen, or set up differently."""
    brokers = []

    def make(**options):
        brokers.append(Mosquitto(tmp_path, **options).start())
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.stop()


@pytest.fixture
def scripted_broker():
    with ScriptedBroker() as broker:
        yield broker


@pytest.fixture
def nobody():
    """The URL of a port that refuses connections: it is taken, so that no other broker gets it meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"mqtt://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def start(settings):
    """Start the publisher with these settings; it is stopped after the test."""

    def start(url, *, until_connected=True, serving=True, **more_settings):
        settings.MQTT_URL = url
        for name, value in more_settings.items():
            setattr(settings, name, value)
        publisher.start()
        if serving:
            publisher.serve()
        if until_connected:
            eventually(lambda: publisher.state() == "connected")
        return publisher

    yield start
    stop_publisher()


@pytest.fixture
def no_hurry(monkeypatch):
    """Stopping the publisher waits as long as tests do, where a busy machine may need more than users should wait."""
    for name in ["STOP_SECONDS", "NOTE_SECONDS"]:
        monkeypatch.setattr(f"notifications.publisher.{name}", LIMIT)


@pytest.fixture
def long_leases(monkeypatch):
    """No claim lapses where the machine is busy: what was sent, and is not noted by then, would be sent again."""
    monkeypatch.setattr("notifications.models.LEASE", timedelta(hours=1))


@pytest.fixture
def subscriber(shared_broker, start):
    """Hears what the publisher announces to the shared broker."""
    start(shared_broker.url)
    with Subscriber(shared_broker.port) as subscriber:
        yield subscriber


def stop_publisher():
    """Stop it, and wait for the threads that it leaves behind when time is up: they would go on in the next test."""
    publisher.stop()
    for thread in threading.enumerate():
        if thread.name in {"messenger", "relay"}:
            thread.join(LIMIT)
            assert not thread.is_alive(), thread.name
    # What paho said last, and nobody heard, holds its client in a circle. In a collection of the young alone, the
    # client comes before its sockets, and closes them; in a later one they may come first, with a warning.
    gc.collect(1)


def heard(subscriber):
    """What arrived of all that was saved, as topics and file names."""
    wait_until_announced()
    subscriber.publish(CONFIGS_TOPIC, b"last")
    return [(message.topic, json.loads(message.payload)["filename"]) for message in subscriber.before(b"last")]


@pytest.fixture
def make_messenger():
    """Connect to the broker at a URL, which is left at the end."""
    messengers = []

    def make(url, rate=10_000, *, until_connected=True, **options):
        messenger = Messenger(Broker.parse(url, **options), rate)
        messengers.append(messenger)
        messenger.start()
        if until_connected:
            eventually(lambda: messenger.is_connected)
        return messenger

    yield make
    for messenger in messengers:
        messenger.close()


@pytest.fixture
def constants(monkeypatch):
    """Change constants, by name, in whichever of the messenger's rooms has them."""

    def change(**values):
        for name, value in values.items():
            [room] = [room for room in [messenger_module, connection, refusals] if hasattr(room, name)]
            monkeypatch.setattr(room, name, value)

    return change


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


class Log(logging.Handler):
    """What the app logs; its loggers do not propagate."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.messages = []
        self._changed = threading.Condition()

    def emit(self, record):
        with self._changed:
            self.messages.append(f"{record.levelname} {record.getMessage()}")
            self._changed.notify_all()

    @property
    def warnings(self):
        return [message for message in self.messages if not message.startswith("INFO")]

    def wait_for(self, text):
        with self._changed:
            assert self._changed.wait_for(lambda: text in "\n".join(self.messages), LIMIT), self.messages


@pytest.fixture
def log():
    handler, logger = Log(), logging.getLogger("notifications")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def attempts():
    """Tells how many attempts were counted since the test began: (succeeded, failed, timed)."""

    def count(topic):
        outcomes = [
            REGISTRY.get_sample_value("mqtt_publish_total", {"topic": topic, "status": status})
            for status in ["success", "failure"]
        ]
        return [*outcomes, REGISTRY.get_sample_value("mqtt_publish_duration_seconds_count", {"topic": topic})]

    before = {topic: count(topic) for topic in [CONFIGS_TOPIC, ASSETS_TOPIC]}
    return lambda topic=CONFIGS_TOPIC: tuple(
        int(now - then) for now, then in zip(count(topic), before[topic], strict=True)
    )


@pytest.fixture
def installation(template, tmp_path):
    """A migrated installation, for processes of their own."""
    copy = template.copy(tmp_path / "installation")
    yield copy
    copy.database.drop()


def wait_until_announced():
    """Wait until everything that was saved is announced."""
    eventually(lambda: not Announcement.objects.owed().exists(), lambda: list(Announcement.objects.owed().values()))


def announcement_of(config):
    return Announcement.objects.get(filename=config.filename)


def save_config(number=1, name="lamp"):
    mac_address = f"aa-bb-cc-dd-ee-{number:02x}"
    config = DeviceConfig.objects.filter(mac_address=mac_address).first() or DeviceConfig(mac_address=mac_address)
    config.content = f'{{"deviceName": "{name}"}}'
    config.save()
    return config


def upload_asset(filename="firmware.bin", content=b"firmware"):
    return Asset.objects.upload(filename, [content])
