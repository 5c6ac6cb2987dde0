"""What the page on the state of this server says of the broker and of announcements."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from iotsupport.monitoring import workers
from iotsupport.state.findings import Finding, Level
from iotsupport.times import how_long
from notifications import trouble
from notifications.broker import Broker
from notifications.metrics import owed
from notifications.models import Announcement
from notifications.publisher import OLD_PROTOCOL, publisher
from notifications.templatetags.notifications import LATE

CONNECTED, ENABLED = "mqtt_connection_state", "mqtt_enabled"

OFF = "Notifications are off: devices hear of a change when they next ask by themselves."
CORRECT_URL = "Correct MQTT_URL as below, under Settings, then restart the server."
SEE_LOG = "They are tried again by themselves. See in the broker's log and access control list why it takes none."
WAIT_FOR_BROKER = "They are announced when the broker is back."


def look() -> Iterator[Finding]:
    """The broker with its reason, as this process and every other worker has it; and what is owed."""
    if publisher.is_on:
        yield _broker()
        yield from _workers()
    elif settings.MQTT_URL:
        yield Finding("Broker", Level.WRONG, f"MQTT_URL cannot be used. {OFF}", CORRECT_URL)
    else:
        yield Finding("Broker", Level.FACT, OFF, "To have them told, set MQTT_URL, then restart the server.")
    yield _owed()


def _broker() -> Finding:
    broker = Broker.from_settings()
    disconnection = publisher.disconnection()
    if disconnection is not None:
        since, found = disconnection
        says = f"{broker} {found.reason or 'is not connected'} (for {how_long(timezone.now() - since)})"
        return Finding("Broker", Level.WRONG, says, found.advice or trouble.UNKNOWN)
    if publisher.protocol() == OLD_PROTOCOL:
        return Finding("Broker", Level.LOOK, f"{broker}, connected by MQTT {OLD_PROTOCOL}.", trouble.OLD_PROTOCOL)
    return Finding("Broker", Level.FINE, f"{broker}, connected")


def _workers() -> Iterator[Finding]:
    """Each has a connection of its own."""
    known = {worker.pid: worker.gauges[CONNECTED] for worker in workers.living() if worker.gauges.get(ENABLED)}
    away = [f"{pid}" for pid, is_connected in known.items() if not is_connected]
    if away:
        says = f"{len(away)} of {len(known)} have none: {', '.join(away)}"
        advice = "The log says for each why. Where others are connected, see how many clients the broker takes."
        yield Finding("Connections of workers", Level.WRONG, says, advice)
    elif known:
        yield Finding("Connections of workers", Level.FINE, f"all {len(known)} have theirs")


def _owed() -> Finding:
    name = "To be announced"
    count, seconds = owed()
    if not count:
        return Finding(name, Level.FINE, "nothing")
    age = timedelta(seconds=seconds)
    says = f"{count:,} file{'' if count == 1 else 's'}, the oldest for {how_long(age)}"
    if age <= LATE or not publisher.is_on:
        return Finding(name, Level.FINE, says)
    oldest = Announcement.objects.owed().order_by("owed_since", "pk").first()
    reason = f"; its last error was: {oldest.last_error}" if oldest and oldest.last_error else ""
    advice = SEE_LOG if publisher.state() == "connected" else WAIT_FOR_BROKER
    return Finding(name, Level.LOOK, says + reason, advice)
