import pytest
from django.core import checks


def found(settings, **values):
    for name, value in values.items():
        setattr(settings, name, value)
    messages = checks.run_checks(tags=["notifications"])
    assert all(message.hint for message in messages)
    assert all(message.level == checks.WARNING for message in messages)
    return {message.id: message.msg for message in messages}


@pytest.mark.parametrize("url", ["", "mqtt://broker", "mqtts://me:secret@broker:8883"])
def test_finds_nothing_wrong(settings, url):
    assert found(settings, MQTT_URL=url) == {}


def test_finds_a_broken_url(settings):
    messages = found(settings, MQTT_URL="http://me:secret@broker")

    assert messages == {
        "notifications.W001": "MQTT_URL must begin with mqtt:// or mqtts://. Nothing will be announced."
    }


def test_finds_a_missing_ca_file(settings):
    messages = found(settings, MQTT_URL="mqtts://broker", MQTT_CA_FILE="/nowhere/ca.pem")

    assert messages == {
        "notifications.W002": "MQTT_CA_FILE '/nowhere/ca.pem' cannot be read: No such file or directory."
    }


@pytest.mark.parametrize("content", ["", "not a certificate"])
def test_finds_a_ca_file_without_a_certificate(settings, tmp_path, content):
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(content)

    messages = found(settings, MQTT_URL="mqtts://broker", MQTT_CA_FILE=str(ca_file))

    assert messages == {"notifications.W002": f"MQTT_CA_FILE '{ca_file}' holds no certificate in PEM format."}


def test_finds_a_directory_in_place_of_the_ca_file(settings, tmp_path):
    messages = found(settings, MQTT_URL="mqtts://broker", MQTT_CA_FILE=str(tmp_path))

    assert messages == {"notifications.W002": f"MQTT_CA_FILE '{tmp_path}' cannot be read: Is a directory."}


def test_finds_a_ca_file_that_nothing_uses(settings, certificates):
    messages = found(settings, MQTT_URL="mqtt://broker", MQTT_CA_FILE=str(certificates.ca_file))

    assert messages == {
        "notifications.W003": (
            "MQTT_CA_FILE is set, but MQTT_URL does not begin with mqtts://, so the connection is not encrypted."
        )
    }


@pytest.mark.parametrize("url", ["mqtt://broker", "mqtt://:secret@broker"])
def test_finds_a_password_without_a_user_name(settings, url):
    messages = found(settings, MQTT_URL=url, MQTT_PASSWORD="secret")

    assert messages == {
        "notifications.W004": "There is an MQTT password, but no user name, so the password is not sent."
    }
