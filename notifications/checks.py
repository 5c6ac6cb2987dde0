"""System checks of the MQTT settings. Warnings: wrong ones turn announcements off, and nothing else."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks

from notifications.broker import Broker, trust


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


def check_mqtt_tls(**kwargs: Any) -> list[checks.CheckMessage]:
    """``MQTT_CA_FILE`` is not given for a connection that does not use it."""
    broker = _readable_broker()
    if broker and broker.ca_file and not broker.uses_tls:
        message = "MQTT_CA_FILE is set, but MQTT_URL does not begin with mqtts://, so the connection is not encrypted."
        hint = "Begin MQTT_URL with mqtts:// (port 8883 unless given), or unset MQTT_CA_FILE."
        return [checks.Warning(message, hint=hint, id="notifications.W003")]
    return []


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
