import pytest

from notifications.broker import Broker


@pytest.mark.parametrize(
    ("url", "host", "port", "uses_tls"),
    [
        ("mqtt://broker", "broker", 1883, False),
        ("mqtts://broker", "broker", 8883, True),
        ("mqtt://broker:2000", "broker", 2000, False),
        ("mqtts://broker.example.org:443/", "broker.example.org", 443, True),
        ("mqtt://[::1]:1884", "::1", 1884, False),
        ("MQTT://Broker", "broker", 1883, False),
        ("mqtt://bröker.example", "bröker.example", 1883, False),
    ],
)
def test_reads_where_the_broker_is(url, host, port, uses_tls):
    broker = Broker.parse(url)

    assert (broker.host, broker.port, broker.uses_tls) == (host, port, uses_tls)


def test_reads_percent_encoded_credentials():
    broker = Broker.parse("mqtt://me%40home+1:p%2Fw%3A%C3%A4+@broker")

    assert (broker.username, broker.password) == ("me@home+1", "p/w:ä+")


def test_takes_the_settings_rather_than_the_url(settings):
    settings.MQTT_URL = "mqtt://old:secret@broker"
    settings.MQTT_USERNAME = "new"
    settings.MQTT_PASSWORD = "better"
    settings.MQTT_CA_FILE = "/ca.pem"

    broker = Broker.from_settings()

    assert broker == Broker("broker", 1883, username="new", password="better", ca_file="/ca.pem")


def test_there_is_no_broker_without_a_url(settings):
    settings.MQTT_URL = ""

    assert Broker.from_settings() is None


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("hunter2", "MQTT_URL must begin with mqtt:// or mqtts://."),
        ("broker:1883", "MQTT_URL must begin with mqtt:// or mqtts://."),
        ("mqtt:broker", "MQTT_URL must begin with mqtt:// or mqtts://."),
        ("http://hunter2@broker", "MQTT_URL must begin with mqtt:// or mqtts://."),
        ("mqtt://", "MQTT_URL names no host."),
        ("mqtt://:1883", "MQTT_URL names no host."),
        ("mqtt://me:hunter2@", "MQTT_URL names no host."),
        ("mqtt://bro ker", "MQTT_URL names a host that cannot exist."),
        ("mqtt://.broker", "MQTT_URL names a host that cannot exist."),
        (f"mqtt://{'b' * 64}", "MQTT_URL names a host that cannot exist."),
        ("mqtt://broker:hunter2", "MQTT_URL must have a port from 1 to 65535, or none."),
        ("mqtt://broker:0", "MQTT_URL must have a port from 1 to 65535, or none."),
        ("mqtt://broker:65536", "MQTT_URL must have a port from 1 to 65535, or none."),
        ("mqtt://broker:-1", "MQTT_URL must have a port from 1 to 65535, or none."),
        ("mqtt://me:hunt/er2@broker", "MQTT_URL must end after the port: it has no path, query or fragment."),
        ("mqtt://broker/topic", "MQTT_URL must end after the port: it has no path, query or fragment."),
        ("mqtt://broker?tls=1", "MQTT_URL must end after the port: it has no path, query or fragment."),
        ("mqtt://broker#1", "MQTT_URL must end after the port: it has no path, query or fragment."),
        ("mqtt://[::1", "MQTT_URL is not a URL: check its brackets and special characters."),
        ("mqtt://me:hunter2@\u2100", "MQTT_URL is not a URL: check its brackets and special characters."),
        ("mqtt://%ff:hunter2@broker", "MQTT_URL holds a user name or password that is not UTF-8."),
        (
            f"mqtt://me:{'hunter2' * 10000}@broker",
            "The MQTT user name or password cannot be sent: it is too long, or is not UTF-8 text.",
        ),
        (
            "mqtt://me:hunter2%00@broker",
            "The MQTT user name or password cannot be sent: it is too long, or is not UTF-8 text.",
        ),
    ],
)
def test_says_what_is_wrong_and_quotes_nothing(url, sentence):
    with pytest.raises(ValueError) as caught:
        Broker.parse(url)

    assert str(caught.value) == sentence


def test_refuses_a_setting_that_cannot_be_sent():
    with pytest.raises(ValueError, match="cannot be sent"):
        Broker.parse("mqtt://broker", password="\udcff")


def test_shows_its_address_without_credentials():
    broker = Broker.parse("mqtts://me:hunter2@[::1]")

    assert str(broker) == "mqtts://[::1]:8883"
    assert "hunter2" not in repr(broker)


def test_checks_the_certificate_only_with_tls():
    assert Broker.parse("mqtt://broker").tls_context() is None
    context = Broker.parse("mqtts://broker").tls_context()
    assert context and context.check_hostname
