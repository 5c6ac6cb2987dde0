"""Announcements, counted. The topics are the only labels: a short fixed list."""

from __future__ import annotations

import atexit
import os

from prometheus_client import Counter, Gauge, Histogram, multiprocess, values

from notifications.announcements import TOPICS

ATTEMPTS = Counter("mqtt_publish_total", "Attempts to announce a file, by outcome.", ["topic", "status"])
DURATION = Histogram(
    "mqtt_publish_duration_seconds",
    "Time taken by the publish call, which does not wait for the broker.",
    ["topic"],
    buckets=[0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1],
)
ENABLED = Gauge("mqtt_enabled", "1 while announcements are made, 0 while they are off.", multiprocess_mode="livemin")
# The least of the living processes: 1 only while every worker is connected.
CONNECTION_STATE = Gauge(
    "mqtt_connection_state", "1 while connected to the broker, else 0.", multiprocess_mode="livemin"
)

for _topic in TOPICS:
    DURATION.labels(_topic)
    for _status in ["success", "failure"]:
        ATTEMPTS.labels(_topic, _status)


def count_success(topic: str) -> None:
    ATTEMPTS.labels(topic, "success").inc()


def count_failure(topic: str) -> None:
    ATTEMPTS.labels(topic, "failure").inc()


def _leave_living() -> None:
    """A command may share the server's metrics directory; it must not go on counting as a disconnected worker."""
    multiprocess.mark_process_dead(os.getpid())


if values.ValueClass._multiprocess:
    atexit.register(_leave_living)
