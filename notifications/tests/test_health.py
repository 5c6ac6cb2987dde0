"""What ``/health`` tells of the announcements; none of it makes the server unhealthy."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from iotsupport.tests.support.fixtures import *  # noqa: F403
from notifications.messages import ASSETS_TOPIC
from notifications.models import Announcement

pytestmark = [pytest.mark.both_databases, pytest.mark.django_db, pytest.mark.usefixtures("directories")]


def test_nothing_is_owed(client: Client):
    response = client.get("/health")

    assert response.json() == {
        "status": "healthy",
        "broker": "off",
        "owed": {"announcements": 0, "oldest_seconds": 0},
    }


def test_tells_how_many_are_owed_and_for_how_long(client: Client):
    for minutes in [1, 10]:
        since = timezone.now() - timedelta(minutes=minutes)
        Announcement.objects.create(topic=ASSETS_TOPIC, filename=f"{minutes}.bin", owed_since=since)

    response = client.get("/health")

    owed = response.json()["owed"]
    assert response.status_code == 200
    assert owed["announcements"] == 2
    assert 600 <= owed["oldest_seconds"] < 700


def test_does_not_know_it_while_the_table_is_away(client: Client):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE notifications_debt RENAME TO gone")  # rolled back with the test

    response = client.get("/health")

    assert response.status_code == 200
    assert response.json() == {"status": "healthy", "broker": "off", "owed": None}
