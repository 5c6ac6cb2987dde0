"""System checks of the MQTT settings. Warnings: wrong ones turn announcements off, and nothing else."""

from __future__ import annotations

import ssl
from typing import Any

from django.conf import settings
from django.core import checks

from notifications.broker import Broker, show, trust


def check_mqtt_url(**kwargs: Any) -> list[checks.CheckMessage]:
    """``MQTT_URL`` and the credentials can be used."""
    try:
        Broker.from_settings()
    except ValueError as error:
        hint = (
            "Write mqtt://host, mqtt://host:1883 or mqtts://host:8883. Percent-encode special characters of a user"
            " name and password in it, or set MQTT_USERNAME and MQTT_PASSWORD. Leave it empty to announce nothing."
        )
        return [checks.Warning(f"{error} Nothing will be announced.", hint=hint, id="notifications.W001")]
    return []


def check_mqtt_ca_file(**kwargs: Any) -> list[checks.CheckMessage]:
    """``MQTT_CA_FILE``, where it is set, holds certificates."""
    try:
        if settings.MQTT_CA_FILE:
            trust(settings.MQTT_CA_FILE)
    except ValueError as error:
        hint = "Name a file of CA certificates in PEM format, readable by the server's user; empty means the system's."
        return [checks.Warning(str(error), hint=hint, id="notifications.W002")]
    return []


def check_mqtt_certificate(**kwargs: Any) -> list[checks.CheckMessage]:
    """``MQTT_CERT_FILE`` and ``MQTT_KEY_FILE``, where they are set, hold a certificate and its key."""
    cert_file, key_file = settings.MQTT_CERT_FILE, settings.MQTT_KEY_FILE
    if bool(cert_file) != bool(key_file):
        given, missing = ("CERT", "KEY") if cert_file else ("KEY", "CERT")
        message = f"MQTT_{given}_FILE is set, but MQTT_{missing}_FILE is not: nothing can be announced over mqtts://."
        hint = f"Set MQTT_{missing}_FILE, too; both may name one file that holds certificate and key. Or unset both."
        return [checks.Warning(message, hint=hint, id="notifications.W006")]
    try:
        if cert_file:
            show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), cert_file, key_file)
    except ValueError as error:
        hint = (
            "Name the certificate that the broker is to be shown, and its key without a passphrase: files in PEM"
            " format, readable by the server's user. 'openssl pkey -in KEY -out NEW' takes a passphrase off."
        )
        return [checks.Warning(str(error), hint=hint, id="notifications.W005")]
    return []


def check_mqtt_tls(**kwargs: Any) -> list[checks.CheckMessage]:
    """No file is given for a connection that does not use it."""
    broker = _readable_broker()
    if broker is None or broker.uses_tls:
        return []
    messages: list[checks.CheckMessage] = []
    if broker.ca_file:
        message = "MQTT_CA_FILE is set, but MQTT_URL does not begin with mqtts://, so the connection is not encrypted."
        hint = "Begin MQTT_URL with mqtts:// (port 8883 unless given), or unset MQTT_CA_FILE."
        messages.append(checks.Warning(message, hint=hint, id="notifications.W003"))
    if broker.cert_file:
        message = "MQTT_CERT_FILE is set, but MQTT_URL does not begin with mqtts://, so the broker is not shown it."
        hint = "Begin MQTT_URL with mqtts:// (port 8883 unless given), or unset MQTT_CERT_FILE and MQTT_KEY_FILE."
        messages.append(checks.Warning(message, hint=hint, id="notifications.W007"))
    return messages


def check_mqtt_username(**kwargs: Any) -> list[checks.CheckMessage]:
    """A password comes with the name of its user."""
    broker = _readable_broker()
    if broker and broker.password and not broker.username:
        message = "There is an MQTT password, but no user name, so the password is not sent."
        hint = "Set MQTT_USERNAME, or unset MQTT_PASSWORD."
        return [checks.Warning(message, hint=hint, id="notifications.W004")]
    return []


def _readable_broker() -> Broker | None:
    try:
        return Broker.from_settings()
    except ValueError:
        return None  # check_mqtt_url says so
