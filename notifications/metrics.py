"""Metrics of the announcements. Topics and outcomes are the only labels: short fixed lists."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from contextlib import suppress

from django.db.models import Count, Min
from django.utils import timezone
from paho.mqtt.reasoncodes import ReasonCode
from prometheus_client import Counter, Gauge, Histogram, Metric, multiprocess, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from notifications.messages import TOPICS
from notifications.models import Announcement

ATTEMPTS = Counter("mqtt_publish_total", "Attempts to announce a file, by outcome.", ["topic", "status"])
DURATION = Histogram(
    "mqtt_publish_duration_seconds",
    "Time taken by the publish call, which does not wait for the broker.",
    ["topic"],
    buckets=[0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1],
)
ACKNOWLEDGEMENTS = Counter(
    "mqtt_acknowledgements_total", "What the broker answered to what was sent, by outcome.", ["topic", "outcome"]
)
ENABLED = Gauge("mqtt_enabled", "1 while announcements are made, 0 while they are off.", multiprocess_mode="livemin")
# The least of the living processes: 1 only while every worker is connected.
CONNECTION_STATE = Gauge(
    "mqtt_connection_state", "1 while connected to the broker, else 0.", multiprocess_mode="livemin"
)

# MQTT 5, section 3.4.2.1. Every other code of 128 and more is a refusal, too.
OUTCOMES = {
    0: "success",
    16: "no_subscribers",
    135: "not_authorized",
    151: "quota_exceeded",
}
OTHER_REFUSAL, UNACKNOWLEDGED = "other_refusal", "none"

for _topic in TOPICS:
    DURATION.labels(_topic)
    for _status in ["success", "failure"]:
        ATTEMPTS.labels(_topic, _status)
    for _outcome in [*OUTCOMES.values(), OTHER_REFUSAL, UNACKNOWLEDGED]:
        ACKNOWLEDGEMENTS.labels(_topic, _outcome)


def count_success(topic: str) -> None:
    ATTEMPTS.labels(topic, "success").inc()


def count_failure(topic: str) -> None:
    ATTEMPTS.labels(topic, "failure").inc()


def count_acknowledgement(topic: str, reason_code: ReasonCode) -> None:
    ACKNOWLEDGEMENTS.labels(topic, OUTCOMES.get(reason_code.value, OTHER_REFUSAL)).inc()


def count_unacknowledged(topic: str) -> None:
    """Sent, and the connection ended before the broker answered: an attempt that failed."""
    ACKNOWLEDGEMENTS.labels(topic, UNACKNOWLEDGED).inc()
    count_failure(topic)


class AnnouncementCollector(Collector):
    """What is owed, as the database has it at scrape time: the same whichever worker answers."""

    def collect(self) -> Iterable[Metric]:
        count, age = owed()
        yield GaugeMetricFamily("mqtt_owed_announcements", "Files that are still to be announced.", value=count)
        yield GaugeMetricFamily(
            "mqtt_owed_oldest_age_seconds",
            "How long the file that waits longest has waited to be announced; 0 when nothing is owed.",
            value=age,
        )


def owed() -> tuple[int, float]:
    """How many files are still to be announced, and for how many seconds the oldest has been. Asks the database."""
    facts = Announcement.objects.owed().aggregate(count=Count("pk"), oldest=Min("owed_since"))
    age = (timezone.now() - facts["oldest"]).total_seconds() if facts["oldest"] else 0.0
    return facts["count"], max(0.0, age)


def _leave_living() -> None:
    """A command may share the server's metrics directory; it must not go on counting as a disconnected worker."""
    with suppress(OSError):  # somebody else did, or nothing can be removed there
        multiprocess.mark_process_dead(os.getpid())


if values.ValueClass._multiprocess:
    atexit.register(_leave_living)
