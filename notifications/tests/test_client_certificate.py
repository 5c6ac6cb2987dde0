"""The certificate that a broker asks us for: shown, renewed, and told of where it cannot be used."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError

from iotsupport.tests.support.mosquitto import Certificates, Mosquitto
from iotsupport.tests.support.waiting import eventually
from notifications import trouble
from notifications.broker import Broker, TLSContexts
from notifications.management.commands.simulate_devices import find_broker
from notifications.publisher import publisher
from notifications.simulator.connections import make_client
from notifications.tests.conftest import save_config

pytestmark = pytest.mark.processes

# paho leaves the socket of a handshake that failed to the garbage collector.
tls = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="session")
def strict_broker(tmp_path_factory, certificates):
    """Lets nobody in without a certificate that its authority has issued."""
    asks = f"require_certificate true\nuse_identity_as_username true\ncafile {certificates.ca_file}"
    broker = Mosquitto(tmp_path_factory.mktemp("strict"), certificates=certificates, config=asks).start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def issued(tmp_path_factory, certificates):
    return certificates.issue(tmp_path_factory.mktemp("issued"), "announcer")


@pytest.fixture
def files(tmp_path, issued):
    """A certificate and its key that a test may change, and the settings that name them."""
    copies = [shutil.copy(file, tmp_path) for file in issued]
    return {"MQTT_CERT_FILE": str(copies[0]), "MQTT_KEY_FILE": str(copies[1])}


def found_trouble():
    disconnection = publisher.disconnection()
    assert disconnection
    return disconnection[1]


@pytest.mark.usefixtures("transactional_db")
def test_announces_to_a_broker_that_asks_for_a_certificate(strict_broker, start, certificates, files):
    after = len(strict_broker.lines)

    start(strict_broker.url, MQTT_CA_FILE=str(certificates.ca_file), **files)
    save_config(1)

    strict_broker.wait_for_log(r"New client connected from .* as iotsupport-\S+ \(p5, .* u'announcer'\)", after=after)
    strict_broker.wait_for_log(r"Received PUBLISH from iotsupport-\S+ .*'iotsupport/updates/configs'", after=after)


@tls
def test_a_broker_that_asks_says_why_it_lets_nobody_in(strict_broker, start, certificates, tmp_path):
    ca_file = str(certificates.ca_file)
    start(strict_broker.url, until_connected=False, MQTT_CA_FILE=ca_file)
    # It may end a connection before it has said why; then the next one tells.
    eventually(lambda: found_trouble().advice == trouble.WANTS_OUR_CERTIFICATE)
    publisher.stop()

    strangers = Certificates(tmp_path).issue(tmp_path, "stranger")
    names = dict(zip(["MQTT_CERT_FILE", "MQTT_KEY_FILE"], map(str, strangers), strict=True))
    start(strict_broker.url, until_connected=False, MQTT_CA_FILE=ca_file, **names)
    # It may end a connection before it has said why; then the next one tells.
    eventually(lambda: found_trouble().advice == trouble.REFUSES_OUR_CERTIFICATE)


@pytest.mark.usefixtures("transactional_db")
def test_what_is_missing_at_first_is_told_and_looked_for_again(strict_broker, start, certificates, files, log):
    os.rename(files["MQTT_KEY_FILE"], f"{files['MQTT_KEY_FILE']}.away")

    start(strict_broker.url, until_connected=False, MQTT_CA_FILE=str(certificates.ca_file), **files)
    save_config(1)

    said = f"cannot be connected to: MQTT_KEY_FILE '{files['MQTT_KEY_FILE']}' cannot be read: No such file or directory"
    log.wait_for(f"WARNING The broker {strict_broker.url} {said}. {trouble.UNUSABLE_FILES}")
    assert found_trouble() == (f"{said}.", trouble.UNUSABLE_FILES)
    os.rename(f"{files['MQTT_KEY_FILE']}.away", files["MQTT_KEY_FILE"])
    eventually(lambda: publisher.state() == "connected")


def test_a_renewed_certificate_is_shown_at_the_next_connection(make_broker, start, certificates, files, tmp_path):
    asks = f"require_certificate true\nuse_identity_as_username true\ncafile {certificates.ca_file}"
    broker = make_broker(certificates=certificates, config=asks)
    start(broker.url, MQTT_CA_FILE=str(certificates.ca_file), **files)
    broker.wait_for_log("u'announcer'")

    for new, file in zip(certificates.issue(tmp_path, "renewed"), files.values(), strict=True):
        os.replace(new, file)
    broker.restart()

    broker.wait_for_log("u'renewed'")


def test_nothing_is_read_again_while_it_is_the_same(certificates, files):
    contexts = TLSContexts(
        Broker.parse("mqtts://b", "", "", str(certificates.ca_file), files["MQTT_CERT_FILE"], files["MQTT_KEY_FILE"])
    )
    first = contexts.get()

    assert contexts.get() is first
    os.utime(files["MQTT_CERT_FILE"], (0, 0))
    assert contexts.get() is not first


@tls
def test_simulated_devices_show_it_to_the_broker_of_the_settings_alone(strict_broker, settings, certificates, files):
    settings.MQTT_URL, settings.MQTT_CA_FILE = strict_broker.url, str(certificates.ca_file)
    settings.MQTT_CERT_FILE, settings.MQTT_KEY_FILE = files.values()

    ours, other = find_broker(strict_broker.url), find_broker("mqtts://other")
    assert ours and other
    assert (ours.cert_file, other.cert_file) == (files["MQTT_CERT_FILE"], "")
    assert make_client(ours).reconnect() == 0
    settings.MQTT_KEY_FILE = "/nowhere"
    with pytest.raises(CommandError, match="MQTT_KEY_FILE '/nowhere' cannot be read"):
        find_broker(strict_broker.url)


class TestChecks:
    @pytest.fixture
    def found(self, settings, files):
        """What is said with other files than these, and another URL."""

        def found(url="mqtts://broker", **names):
            settings.MQTT_URL = url
            for name, file in {**files, **names}.items():
                setattr(settings, name, str(file))
            messages = run_checks(tags=["notifications"])
            assert all(message.hint for message in messages)
            return [(message.id, message.msg) for message in messages]

        return found

    def test_nothing_is_wrong(self, found, files, tmp_path):
        both = tmp_path / "both.pem"
        both.write_bytes(b"".join(Path(file).read_bytes() for file in files.values()))

        assert found() == []
        assert found(MQTT_CERT_FILE=both, MQTT_KEY_FILE=both) == []

    @pytest.mark.parametrize("name", ["MQTT_CERT_FILE", "MQTT_KEY_FILE"])
    def test_a_file_that_is_missing_or_no_file(self, found, name, tmp_path):
        for file, why in [("/nowhere.pem", "No such file or directory"), (tmp_path, "Is a directory")]:
            assert found(**{name: file}) == [("notifications.W005", f"{name} '{file}' cannot be read: {why}.")]

    def test_files_that_hold_something_else(self, found, files):
        certificate, key = files.values()

        assert found(MQTT_CERT_FILE=key) == [
            ("notifications.W005", f"MQTT_CERT_FILE '{key}' holds no certificate in PEM format.")
        ]
        assert found(MQTT_KEY_FILE=certificate) == [
            ("notifications.W005", f"MQTT_KEY_FILE '{certificate}' holds no private key in PEM format.")
        ]

    @pytest.mark.parametrize("kind", ["ec", "rsa"])
    def test_a_key_of_another_certificate(self, found, tmp_path, kind):
        other = tmp_path / "other.key"
        options = {"ec": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["RSA"]}[kind]
        openssl("genpkey", "-algorithm", *options, "-out", other)

        assert found(MQTT_KEY_FILE=other) == [
            (
                "notifications.W005",
                f"The key in MQTT_KEY_FILE '{other}' is not that of the certificate in MQTT_CERT_FILE.",
            )
        ]

    def test_a_key_with_a_passphrase(self, found, files, tmp_path):
        locked = tmp_path / "locked.key"
        openssl("pkey", "-in", files["MQTT_KEY_FILE"], "-aes256", "-passout", "pass:secret", "-out", locked)

        assert found(MQTT_KEY_FILE=locked) == [
            ("notifications.W005", "The key in MQTT_KEY_FILE has a passphrase, which nobody is there to type.")
        ]

    @pytest.mark.parametrize(("given", "missing"), [("CERT", "KEY"), ("KEY", "CERT")])
    def test_one_without_the_other(self, found, given, missing):
        said = f"MQTT_{given}_FILE is set, but MQTT_{missing}_FILE is not: nothing can be announced over mqtts://."

        assert found(**{f"MQTT_{missing}_FILE": ""}) == [("notifications.W006", said)]

    def test_a_connection_that_does_not_use_it(self, found):
        said = "MQTT_CERT_FILE is set, but MQTT_URL does not begin with mqtts://, so the broker is not shown it."

        assert found("mqtt://broker") == [("notifications.W007", said)]
        assert found("") == []


def openssl(*options):
    subprocess.run(["openssl", *map(str, options)], check=True, capture_output=True)
