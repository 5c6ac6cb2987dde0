"""Where the broker is, and how to get in: what the MQTT settings say."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from django.conf import settings

from iotsupport import access

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}

# MQTT 5, section 1.5.4: the length of a string has two bytes.
MAX_STRING_BYTES = 65535

# What OpenSSL says where a key and a certificate are not of one pair.
MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


class UnusableCertificate(ValueError):
    """Our own certificate, or its key, cannot be used."""


@dataclass(frozen=True)
class Broker:
    """A broker's address and credentials. ``str()`` of it holds no credentials."""

    host: str
    port: int
    uses_tls: bool = False
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.uses_tls else 'mqtt'}://{host}:{self.port}"

    @classmethod
    def from_settings(cls) -> Self | None:
        """The broker of the settings, ``None`` where there is none. Raises ``ValueError``, see :meth:`parse`."""
        if not settings.MQTT_URL:
            return None
        files = settings.MQTT_CA_FILE, settings.MQTT_CERT_FILE, settings.MQTT_KEY_FILE
        return cls.parse(settings.MQTT_URL, settings.MQTT_USERNAME, settings.MQTT_PASSWORD, *files)

    @classmethod
    def parse(
        cls,
        url: str,
        username: str = "",
        password: str = "",
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
    ) -> Self:
        """Read ``mqtt://host[:1883]`` or ``mqtts://host[:8883]``; what is given beside the URL wins over what it holds.

        Raises ``ValueError`` with a sentence that quotes nothing, for a password may be anywhere in a wrong URL.
        """
        parts = _split(url)
        return cls(
            host=_read_host(parts),
            port=_read_port(parts),
            uses_tls=parts.scheme == "mqtts",
            username=_check_credential(username or _decode(parts.username)),
            password=_check_credential(password or _decode(parts.password)),
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """How to check the broker's certificate, and which one of ours to show it; ``None`` without TLS.

        Raises ``ValueError`` with a sentence, see :func:`trust` and :func:`show`.
        """
        if not self.uses_tls:
            return None
        context = trust(self.ca_file)
        if self.cert_file or self.key_file:
            show(context, self.cert_file, self.key_file)
        return context


class TLSContexts:
    """The TLS context of a broker's connections: made anew where one of its files is another one by then.

    Certificates are renewed while the server runs.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._files = [file for file in [broker.ca_file, broker.cert_file, broker.key_file] if file]
        self._made: tuple[list[tuple[int, ...]], ssl.SSLContext | None] | None = None

    def get(self) -> ssl.SSLContext | None:
        """Return what :meth:`Broker.tls_context` does, and raise what it raises."""
        if not self._broker.uses_tls:
            return None
        found = [_identity(file) for file in self._files]
        if self._made is None or self._made[0] != found:
            self._made = None
            self._made = found, self._broker.tls_context()
        return self._made[1]


def trust(ca_file: str) -> ssl.SSLContext:
    """Trust the authorities of a PEM file, or the system's where the name is empty.

    Raises ``ValueError`` with a sentence where the file cannot be read or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError as error:
        raise ValueError(f"MQTT_CA_FILE '{ca_file}' holds no certificate in PEM format.") from error
    except OSError as error:
        raise ValueError(f"MQTT_CA_FILE '{ca_file}' cannot be read{access.describe(error)}") from error
    if ca_file:
        # Whoever is named is meant. Python 3.13 would refuse an authority without a key usage, as `openssl req -x509`
        # makes it; versions before it, one that another has issued. Chain, name and dates are checked all the same.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def show(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    """Have a broker that asks for our certificate be shown the one of a PEM file; its key may be in the same file.

    Raises :class:`UnusableCertificate` with a sentence where the two cannot be read, or are no certificate and its key.
    """
    files = {"MQTT_CERT_FILE": cert_file, "MQTT_KEY_FILE": key_file}
    for name, file in files.items():
        if not file:
            [other] = files.keys() - {name}
            raise UnusableCertificate(f"{other} is set, but {name} is not: a certificate goes with its key.")
        try:
            open(file, "rb").close()
        except OSError as error:
            raise UnusableCertificate(f"{name} '{file}' cannot be read{access.describe(error)}") from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert_file)
    except (OSError, ssl.SSLError) as error:
        raise UnusableCertificate(f"MQTT_CERT_FILE '{cert_file}' holds no certificate in PEM format.") from error
    try:
        context.load_cert_chain(cert_file, key_file, _refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason in MISMATCHES:
            sentence = f"The key in MQTT_KEY_FILE '{key_file}' is not that of the certificate in MQTT_CERT_FILE."
        elif error.reason:
            sentence = f"The certificate or its key cannot be used: {error.reason.replace('_', ' ').lower()}."
        else:
            sentence = f"MQTT_KEY_FILE '{key_file}' holds no private key in PEM format."
        raise UnusableCertificate(sentence) from error
    except OSError as error:
        raise UnusableCertificate(f"MQTT_KEY_FILE '{key_file}' cannot be read{access.describe(error)}") from error


def _refuse_passphrase() -> str:
    # OpenSSL would ask for it on the terminal.
    raise UnusableCertificate("The key in MQTT_KEY_FILE has a passphrase, which nobody is there to type.")


def _identity(file: str) -> tuple[int, ...]:
    """Of what has this name now; empty where nothing has."""
    try:
        status = os.stat(file)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("MQTT_URL is not a URL: check its brackets and special characters.") from None
    if parts.scheme not in DEFAULT_PORTS or not url.lower().startswith(f"{parts.scheme}://"):
        raise ValueError("MQTT_URL must begin with mqtt:// or mqtts://.")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("MQTT_URL must end after the port: it has no path, query or fragment.")
    return parts


def _read_host(parts: SplitResult) -> str:
    host = parts.hostname
    if not host:
        raise ValueError("MQTT_URL names no host.")
    try:
        # As the socket module does; what fails here would end the network thread.
        host.encode("idna")
    except UnicodeError:
        raise ValueError("MQTT_URL names a host that cannot exist.") from None
    if not host.isprintable() or " " in host:
        raise ValueError("MQTT_URL names a host that cannot exist.")
    return host


def _read_port(parts: SplitResult) -> int:
    try:
        port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("MQTT_URL must have a port from 1 to 65535, or none.")
    return port


def _decode(credential: str | None) -> str:
    try:
        return unquote(credential or "", errors="strict")
    except UnicodeDecodeError:
        raise ValueError("MQTT_URL holds a user name or password that is not UTF-8.") from None


def _check_credential(credential: str) -> str:
    """MQTT 5, sections 1.5.4 and 3.1.3: UTF-8 without the null character, of a limited length."""
    try:
        is_usable = len(credential.encode()) <= MAX_STRING_BYTES and "\0" not in credential
    except UnicodeEncodeError:
        is_usable = False
    if not is_usable:
        raise ValueError("The MQTT user name or password cannot be sent: it is too long, or is not UTF-8 text.")
    return credential
