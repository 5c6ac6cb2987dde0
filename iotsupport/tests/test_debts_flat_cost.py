"""What is owed for one file is found by index, however many files there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from notifications.announcements import CONFIGS_TOPIC, Announcement
from notifications.models import Debt

pytestmark = pytest.mark.django_db

MANY = 450


@pytest.fixture(autouse=True)
def announced() -> None:
    now = timezone.now()
    files = [Debt(topic=CONFIGS_TOPIC, filename=f"{number}.json", announced_at=now) for number in range(MANY)]
    Debt.objects.bulk_create(files)


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


def owe() -> Announcement:
    return Debt.objects.owe(CONFIGS_TOPIC, "7.json", is_bulk=False, claimed_by="me")


def test_settling_an_announcement_finds_its_row_by_index() -> None:
    announcement = owe()

    plans = plans_of(lambda: Debt.objects.settle([announcement]))

    assert not [each for each in plans if "SCAN" in each]


def test_forgetting_a_deleted_file_finds_its_row_by_index() -> None:
    plans = plans_of(lambda: Debt.objects.cancel(CONFIGS_TOPIC, "7.json"))

    assert not [each for each in plans if "SCAN" in each]
