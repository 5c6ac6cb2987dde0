"""What is owed for one file is found by index, however many files there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from notifications.messages import CONFIGS_TOPIC, Message
from notifications.models import Announcement

pytestmark = pytest.mark.django_db

MANY = 450


@pytest.fixture(autouse=True)
def announced() -> None:
    now = timezone.now()
    files = [Announcement(topic=CONFIGS_TOPIC, filename=f"{number}.json", announced_at=now) for number in range(MANY)]
    Announcement.objects.bulk_create(files)


def plans_of(act: Callable[[], object]) -> list[str]:
    """Of each query that reads or changes rows."""
    with CaptureQueriesContext(connection) as captured:
        act()
    statements = [each["sql"] for each in captured if each["sql"].split()[0] in {"SELECT", "UPDATE", "DELETE"}]
    assert statements
    with connection.cursor() as cursor:
        return [
            "\n".join(row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {statement}".replace("%", "%%")).fetchall())
            for statement in statements
        ]


def record() -> Message:
    return Announcement.objects.record(CONFIGS_TOPIC, "7.json", is_bulk=False, claimed_by="me")


def test_marking_an_announcement_finds_its_row_by_index() -> None:
    message = record()

    plans = plans_of(lambda: Announcement.objects.mark_announced([message]))

    assert not [each for each in plans if "SCAN" in each]


def test_cancelling_that_of_a_deleted_file_finds_its_row_by_index() -> None:
    plans = plans_of(lambda: Announcement.objects.cancel(CONFIGS_TOPIC, "7.json"))

    assert not [each for each in plans if "SCAN" in each]
