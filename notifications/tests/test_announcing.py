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
from iotsupport.mirror import MirrorBehindError
from iotsupport.tests.mosquitto import Subscriber
from notifications.publisher import publisher
from notifications.tests.conftest import save_config, upload_asset

pytestmark = pytest.mark.django_db(transaction=True)

CONFIGS = "iotsupport/updates/configs"
ASSETS = "iotsupport/updates/assets"


def heard(subscriber):
    """What arrived before a last announcement, which comes the same way."""
    publisher.publish(CONFIGS, "last.json")
    return [(message.topic, message.payload) for message in subscriber.before(b'{"filename": "last.json"}')]


def test_announces_a_created_configuration(subscriber):
    save_config(0xFF)

    message = subscriber.next()

    assert message.topic == "iotsupport/updates/configs"
    assert message.payload == b'{"filename": "aa-bb-cc-dd-ee-ff.json"}'
    assert message.qos == 1
    assert message.retain is False


def test_announces_an_uploaded_asset_and_its_replacement(subscriber):
    upload_asset("firmware.bin", b"one")
    upload_asset("firmware.bin", b"two")

    assert heard(subscriber) == [(ASSETS, b'{"filename": "firmware.bin"}')] * 2


def test_announces_a_name_with_other_letters(subscriber):
    upload_asset('größe "1".bin')

    assert json.loads(subscriber.next().payload) == {"filename": 'größe "1".bin'}


def test_announces_every_save(subscriber):
    for number in range(50):
        save_config(number % 5, name=f"lamp {number}")

    assert len(heard(subscriber)) == 50


def test_announces_nothing_before_the_commit(subscriber):
    with transaction.atomic():
        save_config(1)
        publisher.publish(CONFIGS, "before-the-commit.json")

    assert [payload for _, payload in heard(subscriber)] == [
        b'{"filename": "before-the-commit.json"}',
        b'{"filename": "aa-bb-cc-dd-ee-01.json"}',
    ]


def test_announces_nothing_that_is_rolled_back(subscriber):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        save_config(1)
        upload_asset()
        raise ZeroDivisionError

    assert heard(subscriber) == []


def test_announces_nothing_that_is_refused(subscriber):
    with pytest.raises(ValidationError):
        DeviceConfig.objects.create(mac_address="aa-bb-cc-dd-ee-ff", content="[]")

    assert heard(subscriber) == []


def test_announces_no_delete(subscriber):
    config, asset = save_config(1), upload_asset()
    saved = heard(subscriber)

    config.delete()
    DeviceConfig.objects.all().delete()
    asset.delete()

    assert len(saved) == 2
    assert heard(subscriber) == []


def test_announces_no_fixture(subscriber, tmp_path):
    config, fixture = save_config(1), tmp_path / "configs.json"
    fixture.write_text(serialize("json", [config]))
    heard(subscriber)

    call_command("loaddata", fixture, verbosity=0)

    assert heard(subscriber) == []


def test_announces_nothing_while_off(shared_broker, settings):
    settings.MQTT_URL = ""
    publisher.start()

    with Subscriber(shared_broker.port) as subscriber:
        save_config(1)
        upload_asset()
        subscriber.publish(CONFIGS, b"last")

        assert subscriber.before(b"last") == []
    assert publisher.state() == "off"


def test_announces_when_the_new_bytes_can_be_read(shared_broker, start):
    def read(message):
        storage = storages["configs" if message.topic == CONFIGS else "assets"]
        with storage.open(json.loads(message.payload)["filename"]) as file:
            return file.read()

    start(shared_broker.url)
    with Subscriber(shared_broker.port, look=read) as subscriber:
        for number in range(20):
            config, asset = save_config(name=f"lamp {number}"), upload_asset(content=b"%d" % number)

            assert subscriber.next().seen == config.content_bytes
            assert subscriber.next().seen == b"%d" % number
            assert asset.is_mirrored()


def test_announces_nothing_when_the_file_is_not_in_place(subscriber):
    obstacle = DeviceConfig.storage().directory / "aa-bb-cc-dd-ee-a1.json"
    obstacle.mkdir()

    with pytest.raises(MirrorBehindError):
        save_config(0xA1)

    obstacle.rmdir()
    assert DeviceConfig.objects.count() == 1
    assert heard(subscriber) == []


def test_saves_although_the_publisher_fails(subscriber, monkeypatch):
    def fail(topic, filename):
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(publisher, "publish", fail)
        save_config(1)

    assert DeviceConfig.objects.count() == 1
    assert heard(subscriber) == []


def test_an_asset_is_an_asset(subscriber):
    """The subscriber of the other topic hears nothing of it."""
    save_config(1)
    upload_asset()

    assert [topic for topic, _ in heard(subscriber)] == [CONFIGS, ASSETS]
    assert Asset.objects.count() == 1
