"""What is announced, as a subscriber of a real broker hears it."""

import json

import pytest
from django.core.exceptions import ValidationError
from django.core.files.storage import storages
from django.core.management import call_command
from django.core.serializers import serialize
from django.db import transaction

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.mirror.files import mirror_storage
from iotsupport.tests.support.mosquitto import Subscriber
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.models import Announcement
from notifications.publisher import publisher
from notifications.tests.conftest import heard, save_config, upload_asset, wait_until_announced

pytestmark = pytest.mark.usefixtures("transactional_db", "long_leases")

LAMP = (CONFIGS_TOPIC, "aa-bb-cc-dd-ee-01.json")
FIRMWARE = (ASSETS_TOPIC, "firmware.bin")


def test_announces_a_created_configuration(subscriber):
    save_config(0xFF)

    message = subscriber.next()

    assert message.topic == "iotsupport/updates/configs"
    assert message.payload == b'{"filename": "aa-bb-cc-dd-ee-ff.json"}'
    assert message.qos == 1
    assert message.retain is False


@pytest.mark.both_databases
def test_announces_an_uploaded_asset_and_its_replacement(subscriber):
    upload_asset("firmware.bin", b"one")
    first = heard(subscriber)
    upload_asset("firmware.bin", b"two")

    assert first == heard(subscriber) == [("iotsupport/updates/assets", "firmware.bin")]


def test_announces_a_name_with_other_letters(subscriber):
    upload_asset('größe "1".bin')

    assert json.loads(subscriber.next().payload) == {"filename": 'größe "1".bin'}


def test_announces_every_file(subscriber):
    for number in range(50):
        save_config(number)

    assert len(heard(subscriber)) == 50


def test_announces_after_the_last_of_many_saves(shared_broker, start):
    def read(message):
        with mirror_storage("configs").open(json.loads(message.payload)["filename"]) as file:
            return file.read()

    start(shared_broker.url)
    with Subscriber(shared_broker.port, look=read) as subscriber:
        for number in range(30):
            config = save_config(1, name=f"lamp {number}")
        wait_until_announced()
        subscriber.publish(ASSETS_TOPIC, b'{"filename": "aa-bb-cc-dd-ee-01.json"}')
        messages = []
        while (message := subscriber.next()).topic == CONFIGS_TOPIC:
            messages.append(message)

    assert messages[-1].seen == config.content_bytes
    assert len(messages) <= 30


@pytest.mark.both_databases
def test_announces_nothing_before_the_commit(subscriber):
    with transaction.atomic():
        save_config(1)
        subscriber.publish(CONFIGS_TOPIC, b"before the commit")

    assert subscriber.before(b"before the commit") == []
    assert heard(subscriber) == [LAMP]


@pytest.mark.both_databases
def test_announces_and_records_nothing_that_is_rolled_back(subscriber):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        save_config(1)
        upload_asset()
        raise ZeroDivisionError

    assert not Announcement.objects.exists()
    assert heard(subscriber) == []


@pytest.mark.both_databases
def test_a_rolled_back_save_leaves_the_earlier_announcement_as_it_was(subscriber):
    save_config(1)
    heard(subscriber)

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        save_config(1, name="changed")
        raise ZeroDivisionError

    assert not Announcement.objects.owed().exists()
    assert heard(subscriber) == []


def test_announces_and_records_nothing_that_is_refused(subscriber):
    with pytest.raises(ValidationError):
        DeviceConfig.objects.create(mac_address="aa-bb-cc-dd-ee-ff", content="[]")

    assert not Announcement.objects.exists()
    assert heard(subscriber) == []


@pytest.mark.both_databases
def test_announces_no_delete_and_forgets_the_file(subscriber):
    config, asset = save_config(1), upload_asset()
    save_config(2)
    saved = heard(subscriber)

    config.delete()
    DeviceConfig.objects.all().delete()
    asset.delete()

    assert len(saved) == 3
    assert not Announcement.objects.exists()
    assert heard(subscriber) == []


@pytest.mark.both_databases
def test_announces_no_fixture(subscriber, tmp_path):
    config, fixture = save_config(1), tmp_path / "configs.json"
    fixture.write_text(serialize("json", [config, upload_asset()]))
    heard(subscriber)

    call_command("loaddata", fixture, verbosity=0)

    assert not Announcement.objects.owed().exists()
    assert heard(subscriber) == []


def test_announces_and_records_nothing_while_off(shared_broker, settings):
    settings.MQTT_URL = ""
    publisher.start()

    with Subscriber(shared_broker.port) as subscriber:
        save_config(1)
        upload_asset()
        subscriber.publish(CONFIGS_TOPIC, b"last")

        assert subscriber.before(b"last") == []
    assert not Announcement.objects.exists()
    assert publisher.state() == "off"


@pytest.mark.both_databases
def test_announces_when_the_new_bytes_can_be_read(shared_broker, start):
    def read(message):
        storage = storages["configs" if message.topic == CONFIGS_TOPIC else "assets"]
        with storage.open(json.loads(message.payload)["filename"]) as file:
            return file.read()

    start(shared_broker.url)
    with Subscriber(shared_broker.port, look=read) as subscriber:
        for number in range(20):
            config, asset = save_config(name=f"lamp {number}"), upload_asset(content=b"%d" % number)

            assert subscriber.next().seen == config.content_bytes
            assert subscriber.next().seen == b"%d" % number
            assert asset.is_mirrored()


@pytest.mark.both_databases
def test_saves_and_records_although_the_publisher_fails(shared_broker, start, monkeypatch):
    def fail(message, *, is_claimed):
        raise RuntimeError("broken")

    start(shared_broker.url, serving=False)  # so that nobody announces what is owed before it is counted
    with monkeypatch.context() as patched:
        patched.setattr(publisher, "hand_over", fail)
        save_config(1)

    assert DeviceConfig.objects.count() == 1
    assert Announcement.objects.owed().count() == 1


def test_an_asset_is_an_asset(subscriber):
    """The subscriber of the other topic hears nothing of it."""
    save_config(1)
    upload_asset()

    assert sorted(heard(subscriber)) == [FIRMWARE, LAMP]
    assert Asset.objects.count() == 1
