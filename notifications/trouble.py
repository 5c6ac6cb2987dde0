"""Why there is no connection to the broker, and what to do about it: by cause, since each has a cure of its own."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import NamedTuple

from paho.mqtt.reasoncodes import ReasonCode

from notifications.broker import Broker

SEE_ITS_LOG = "See in the broker's log why."

# MQTT 5, section 3.2.2.2; paho says the codes of 3.1.1 in these, too.
UNSUPPORTED_VERSION, BAD_CREDENTIALS, NOT_AUTHORIZED = 132, 134, 135
REFUSALS = {
    UNSUPPORTED_VERSION: "It knows neither MQTT 5 nor MQTT 3.1.1: use a newer broker.",
    133: "It refuses our client ids, which begin with iotsupport-: allow them in its configuration.",
    136: f"It serves nobody just now; it is tried again by itself. {SEE_ITS_LOG}",
    137: f"It has no room for more; it is tried again by itself. {SEE_ITS_LOG}",
    138: "It has banned this client: lift that in its configuration.",
    159: "It takes fewer connections a second than are made; it is tried again by itself.",
}
WRONG_CREDENTIALS = (
    "It does not let in this user name with this password: correct MQTT_USERNAME and MQTT_PASSWORD, or make the user"
    " there."
)
NO_CREDENTIALS = "It lets in nobody without a user name: set MQTT_USERNAME and MQTT_PASSWORD."

# What a broker says in TLS of a certificate of ours, or of its absence: RFC 8446, section 6.2.
OURS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")

# X509_V_ERR_… of OpenSSL's x509_vfy.h.
CERTIFICATES = {
    9: "Its certificate is not valid yet: see that the clocks of both machines are right.",
    10: "Its certificate has expired: renew it there, and see that this machine's clock is right.",
    62: "Its certificate is for another name: use one of its names in MQTT_URL, or issue it one for this name.",
    64: "Its certificate is not for this address: use a name of the certificate in MQTT_URL, or issue one for it.",
}
AUTHORITY_ERRORS = {2, 18, 19, 20, 21, 24, 27, 79}
UNKNOWN_AUTHORITY = "Nobody who we trust issued its certificate: name its authority, a PEM file, as MQTT_CA_FILE."
WRONG_CERTIFICATE = "Its certificate cannot be trusted: issue it a new one."

NO_TLS_THERE = (
    "What answers at this port does not speak TLS: begin MQTT_URL with mqtt://, or name the broker's port for TLS (8883"
    " is usual)."
)
NOTHING_IN_COMMON = "It has no version of TLS, or no cipher, in common with this machine: update it, or its settings."
TLS_THERE = (
    "Where this port expects TLS, begin MQTT_URL with mqtts://. Where it does not, see in the broker's log why it ends"
    " the connection, and that MQTT_URL names a broker at all."
)
WANTS_OUR_CERTIFICATE = (
    "Where it asks for a certificate of ours, name it and its key as MQTT_CERT_FILE and MQTT_KEY_FILE. Where it does"
    " not, see in the broker's log why it ends the connection."
)
REFUSES_OUR_CERTIFICATE = (
    "It may not take our certificate: see in the broker's log why, that the one in MQTT_CERT_FILE has not expired, and"
    " that the broker trusts who issued it."
)
UNUSABLE_FILES = "Correct that; files are looked at again by themselves, settings when the server is restarted."
NOTHING_LISTENS = (
    "Nothing listens there: see that the broker runs, that it listens on this port for other machines, too, and that"
    " MQTT_URL names both."
)
NO_SUCH_NAME = "The host's name is not known: correct it in MQTT_URL, or write its address there."
NO_NAME_SERVER = "No name server answers: repair this machine's, or write the host's address in MQTT_URL."
SILENCE = (
    "Nothing answers there: see that the machine is up, that no firewall drops what is sent to this port, and that"
    " MQTT_URL names both."
)
SILENCE_OR_NO_TLS = f"{SILENCE} Where it listens without TLS, begin MQTT_URL with mqtt://."
NO_ROUTE = "There is no way to this machine: see that the network is up, and that MQTT_URL names the host."
MUTE = (
    "Something listens there, and does not answer as a broker does: see that MQTT_URL names the broker's port, and"
    " mqtts:// where it expects TLS; else that the broker does not hang."
)
OLD_PROTOCOL = "In that, what its access control list refuses looks like a success: see in its log that nothing is."
LOST = "It is connected to again by itself: see that the broker runs."
UNACKNOWLEDGED = "It takes messages, and does not say that it has them: see in its log why, or restart it."
UNKNOWN = "See that the broker runs and that MQTT_URL names it."


class Trouble(NamedTuple):
    """What keeps a connection from being there: ``reason`` completes "the broker …"; ``advice`` is a sentence."""

    reason: str = ""
    advice: str = ""

    def __bool__(self) -> bool:
        return bool(self.reason)


def unreachable(error: Exception, broker: Broker) -> Trouble:
    """The broker cannot be connected to, or not over TLS."""
    return Trouble(f"cannot be reached: {error}", _advice_of(error, broker))


def refused(reason_code: ReasonCode, broker: Broker) -> Trouble:
    """The broker answered the CONNECT with a refusal."""
    advice = REFUSALS.get(reason_code.value, SEE_ITS_LOG)
    if reason_code.value in {BAD_CREDENTIALS, NOT_AUTHORIZED}:
        advice = WRONG_CREDENTIALS if broker.username else NO_CREDENTIALS
    return Trouble(f"refuses the connection: {reason_code}", advice)


def knows_neither() -> Trouble:
    """The broker refused both versions of MQTT."""
    return Trouble("refuses the connection: Unsupported protocol version", REFUSALS[UNSUPPORTED_VERSION])


def ended_unanswered(broker: Broker) -> Trouble:
    """The broker ended the connection, and had not answered the CONNECT."""
    reason = "lost the connection before it answered"
    return Trouble(reason, _advice_on_ours(broker) if broker.uses_tls else TLS_THERE)


def unusable(error: ValueError) -> Trouble:
    """A file that a connection needs cannot be used now."""
    return Trouble(f"cannot be connected to: {error}", UNUSABLE_FILES)


def _advice_on_ours(broker: Broker) -> str:
    return REFUSES_OUR_CERTIFICATE if broker.cert_file else WANTS_OUR_CERTIFICATE


def _advice_of(error: Exception, broker: Broker) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        unknown = UNKNOWN_AUTHORITY if error.verify_code in AUTHORITY_ERRORS else WRONG_CERTIFICATE
        return CERTIFICATES.get(error.verify_code, unknown)
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if "ALERT" in reason and any(word in reason for word in OURS):
            return _advice_on_ours(broker)
        if "ALERT" in reason or "UNSUPPORTED_PROTOCOL" in reason:
            return NOTHING_IN_COMMON
        return NO_TLS_THERE
    if isinstance(error, ConnectionRefusedError):
        return NOTHING_LISTENS
    if isinstance(error, ConnectionResetError):  # plain MQTT is silent until something is sent
        return NO_TLS_THERE if broker.uses_tls else UNKNOWN
    if isinstance(error, socket.gaierror):
        return NO_NAME_SERVER if error.errno == socket.EAI_AGAIN else NO_SUCH_NAME
    if isinstance(error, TimeoutError):
        return SILENCE_OR_NO_TLS if broker.uses_tls else SILENCE
    if isinstance(error, OSError) and error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}:
        return NO_ROUTE
    return UNKNOWN
