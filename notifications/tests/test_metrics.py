"""What ``/metrics`` tells of what is owed: facts of the database, whoever answers, whenever it is asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from prometheus_client.parser import text_string_to_metric_families

from iotsupport.tests.support.api_client import counted
from iotsupport.tests.support.fixtures import *  # noqa: F403
from notifications import metrics
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.models import Announcement

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]


def scrape(client: Client) -> dict[str, float]:
    """The samples that have no labels."""
    page = client.get("/metrics").content.decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return {sample.name: sample.value for sample in samples if not sample.labels}


def record(filename: str, *, seconds: float | None) -> None:
    since = None if seconds is None else timezone.now() - timedelta(seconds=seconds)
    Announcement.objects.create(topic=ASSETS_TOPIC, filename=filename, owed_since=since)


@pytest.mark.both_databases
def test_nothing_owed_is_0_and_no_gap(client: Client):
    record("a.bin", seconds=None)

    samples = scrape(client)

    assert samples["mqtt_owed_announcements"] == 0
    assert samples["mqtt_owed_oldest_age_seconds"] == 0


@pytest.mark.both_databases
def test_counts_what_is_owed_and_the_age_of_the_oldest(client: Client):
    record("a.bin", seconds=100)
    record("b.bin", seconds=5000)
    record("c.bin", seconds=None)

    samples = scrape(client)

    assert samples["mqtt_owed_announcements"] == 2
    assert 5000 <= samples["mqtt_owed_oldest_age_seconds"] < 5100


@pytest.mark.both_databases
def test_a_clock_that_was_set_back_makes_no_negative_age(client: Client):
    record("a.bin", seconds=-3600)

    assert scrape(client)["mqtt_owed_oldest_age_seconds"] == 0


@pytest.mark.both_databases
def test_asks_once_for_both(client: Client):
    record("a.bin", seconds=100)

    with CaptureQueriesContext(connection) as captured:
        client.get("/metrics")

    assert sum("notifications_debt" in query["sql"] for query in captured) == 1


@pytest.mark.both_databases
def test_without_the_table_the_rest_is_there(client: Client):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE notifications_debt RENAME TO gone")  # rolled back with the test

    samples = scrape(client)

    assert "mqtt_owed_announcements" not in samples
    assert samples["mqtt_enabled"] == 0


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0, "success"),
        (16, "no_subscribers"),
        (128, "other_refusal"),
        (131, "other_refusal"),
        (135, "not_authorized"),
        (144, "other_refusal"),
        (151, "quota_exceeded"),
        (153, "other_refusal"),
    ],
)
def test_counts_acknowledgements_by_outcome(code: int, outcome: str):
    with counted("mqtt_acknowledgements_total", topic=CONFIGS_TOPIC, outcome=outcome):
        metrics.count_acknowledgement(CONFIGS_TOPIC, ReasonCode(PacketTypes.PUBACK, identifier=code))


def test_what_was_never_acknowledged_is_an_outcome_and_a_failed_attempt():
    with (
        counted("mqtt_acknowledgements_total", topic=CONFIGS_TOPIC, outcome="none"),
        counted("mqtt_publish_total", topic=CONFIGS_TOPIC, status="failure"),
    ):
        metrics.count_unacknowledged(CONFIGS_TOPIC)


def test_shows_every_outcome_from_the_start(client: Client):
    """A rate of what appears only when it happens misses the first time."""
    page: Any = client.get("/metrics").content.decode()

    for topic in [CONFIGS_TOPIC, ASSETS_TOPIC]:
        for outcome in [*metrics.OUTCOMES.values(), "other_refusal", "none"]:
            assert f'mqtt_acknowledgements_total{{outcome="{outcome}",topic="{topic}"}}' in page
