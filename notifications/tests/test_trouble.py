"""Advice by cause: what is said of each way in which a broker cannot be connected to. Real sockets, real TLS."""

import errno
import socket
import ssl
import threading
from contextlib import contextmanager

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.waiting import eventually
from notifications import connection as connection_module
from notifications import trouble
from notifications.broker import Broker
from notifications.messenger import Messenger
from notifications.tests.scripted_broker import ScriptedBroker

# paho leaves the socket of a handshake that failed to the garbage collector.
tls = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")

UNREACHABLE = Broker.parse("mqtt://192.0.2.1")


@pytest.fixture
def trouble_with():
    """What the messenger says of a broker that it cannot connect to."""
    messengers = []

    def trouble_with(url, **options):
        messenger = Messenger(Broker.parse(url, **options), 100)
        messengers.append(messenger)
        messenger.start()
        eventually(lambda: messenger.trouble)
        return messenger.trouble

    yield trouble_with
    for messenger in messengers:
        messenger.close()


@contextmanager
def listener(answer):
    """Something that listens, and calls ``answer`` with each connection, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_nothing_listens(trouble_with, nobody, log):
    found = trouble_with(nobody)

    assert found == ("cannot be reached: [Errno 111] Connection refused", trouble.NOTHING_LISTENS)
    log.wait_for(f"WARNING The broker {nobody} {found.reason}. {found.advice}")


def test_the_name_is_not_known(trouble_with):
    # Too long for the domain name system, so that no name server is asked.
    found = trouble_with(f"mqtt://{'broker.' * 40}invalid")

    assert found == ("cannot be reached: [Errno -2] Name or service not known", trouble.NO_SUCH_NAME)


def test_it_is_silent(trouble_with, monkeypatch):
    monkeypatch.setattr(connection_module, "CONNECT_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = trouble_with(f"mqtt://127.0.0.1:{silent.getsockname()[1]}")

    assert found == ("does not answer", trouble.MUTE)


@tls
def test_it_is_silent_where_tls_is_expected(trouble_with, monkeypatch):
    monkeypatch.setattr(connection_module, "CONNECT_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = trouble_with(f"mqtts://127.0.0.1:{silent.getsockname()[1]}")

    assert found.advice == trouble.SILENCE_OR_NO_TLS


def answering(answer):
    """Who hears something, answers with this, and ends the connection."""

    def end(connection):
        connection.recv(1024)
        connection.sendall(answer)

    return listener(end)


@pytest.mark.parametrize("answer", [b"", b"\x15\x03\x01\x00\x02\x02\x0a", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_plain_mqtt_to_what_is_no_broker(trouble_with, answer):
    """A port with TLS ends the connection, or sends an alert first; a web server says what it says."""

    with answering(answer) as address:
        found = trouble_with(f"mqtt://{address}")

    assert found == ("lost the connection before it answered", trouble.TLS_THERE)


@tls
@pytest.mark.parametrize("answer", [b"", b"\x20\x02\x00\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_tls_to_a_port_without(trouble_with, answer):
    with answering(answer) as address:
        assert trouble_with(f"mqtts://{address}").advice == trouble.NO_TLS_THERE


@pytest.mark.parametrize(
    ("code", "options", "reason", "advice"),
    [
        (134, {"username": "me"}, "Bad user name or password", trouble.WRONG_CREDENTIALS),
        (135, {"username": "me"}, "Not authorized", trouble.WRONG_CREDENTIALS),
        (135, {}, "Not authorized", trouble.NO_CREDENTIALS),
        (136, {}, "Server unavailable", trouble.REFUSALS[136]),
        (137, {}, "Server busy", trouble.REFUSALS[137]),
        (138, {}, "Banned", trouble.REFUSALS[138]),
        (128, {}, "Unspecified error", trouble.SEE_ITS_LOG),
    ],
)
def test_it_refuses(trouble_with, code, options, reason, advice):
    with ScriptedBroker() as broker:
        broker.connack = code

        assert trouble_with(broker.url, **options) == (f"refuses the connection: {reason}", advice)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (TimeoutError("timed out"), trouble.SILENCE),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), trouble.NO_NAME_SERVER),
        (OSError(errno.EHOSTUNREACH, "No route to host"), trouble.NO_ROUTE),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), trouble.NO_ROUTE),
        (OSError(errno.EMFILE, "Too many open files"), trouble.UNKNOWN),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), trouble.UNKNOWN),
        (ValueError("whatever"), trouble.UNKNOWN),
    ],
)
def test_what_no_test_can_bring_about(error, advice):
    assert trouble.unreachable(error, UNREACHABLE) == (f"cannot be reached: {error}", advice)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (9, trouble.CERTIFICATES[9]),
        (10, trouble.CERTIFICATES[10]),
        (18, trouble.UNKNOWN_AUTHORITY),
        (19, trouble.UNKNOWN_AUTHORITY),
        (20, trouble.UNKNOWN_AUTHORITY),
        (23, trouble.WRONG_CERTIFICATE),
        (62, trouble.CERTIFICATES[62]),
        (64, trouble.CERTIFICATES[64]),
    ],
)
def test_a_certificate_that_is_not_taken(code, advice):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code

    assert trouble.unreachable(error, UNREACHABLE).advice == advice


def test_nothing_in_common():
    error = ssl.SSLError(1, "handshake failure")
    error.reason = "SSLV3_ALERT_HANDSHAKE_FAILURE"

    assert trouble.unreachable(error, UNREACHABLE).advice == trouble.NOTHING_IN_COMMON


def test_refusals_have_no_code_that_paho_does_not_know():
    for code in trouble.REFUSALS:
        assert ReasonCode(PacketTypes.CONNACK, identifier=code).is_failure


@pytest.fixture
def tls_broker(tmp_path, certificates):
    broker = Mosquitto(tmp_path, certificates=certificates).start()
    yield broker
    broker.stop()


@tls
def test_a_real_broker_with_tls(tls_broker, trouble_with):
    assert trouble_with(tls_broker.url).advice == trouble.UNKNOWN_AUTHORITY
    assert trouble_with(tls_broker.url.replace("mqtts:", "mqtt:")).advice == trouble.TLS_THERE


@tls
def test_a_real_broker_without_tls(shared_broker, trouble_with):
    assert trouble_with(shared_broker.url.replace("mqtt:", "mqtts:")).advice == trouble.NO_TLS_THERE
