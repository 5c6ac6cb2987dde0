"""Old versions are forgotten, by the command and once a day; the others keep their numbers."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assets.models import Asset
from devices.models import DeviceConfig, DeviceType
from iotsupport import housekeeping
from iotsupport.editing import forgetting
from iotsupport.editing.numbered import Numbered
from iotsupport.mirror.files import TEMPORARY_PREFIX
from iotsupport.tests.support.api_client import failing_statements, nothing_changed
from iotsupport.tests.support.saved_twice import CONFIGS, MAC

pytestmark = [pytest.mark.usefixtures("transactional_db", "directories"), pytest.mark.both_databases]

OTHER = "02-00-00-00-00-01"


@pytest.fixture(autouse=True)
def rule(settings: Any) -> None:
    settings.HISTORY_DAYS, settings.HISTORY_KEEP = 365, 2


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "PAUSE_SECONDS", 0)


def save(*ages_in_days: int, mac_address: str = MAC) -> None:
    """Save versions that are so old, in this order."""
    for days in ages_in_days:
        DeviceConfig.objects.put(mac_address, f'{{"days": {days}}}')
        version = DeviceConfig.history.latest()
        DeviceConfig.history.filter(pk=version.pk).update(history_date=timezone.now() - timedelta(days=days))


def left(mac_address: str = MAC) -> list[tuple[int, str]]:
    """Numbers and texts, the newest first."""
    versions = Numbered(DeviceConfig, mac_address)
    return [(number, version.content) for number, version in versions.newest(0, 1000, without=[])]


def run(*arguments: str) -> dict[str, str]:
    """What it says of each kind of which there is something."""
    output = StringIO()
    call_command("housekeeping", *arguments, stdout=output)
    lines = [line for line in output.getvalue().splitlines() if ": " in line]
    assert len(lines) > 10  # of the others, too
    return {name: said for name, said in (line.split(": ") for line in lines) if said != "0"}


def test_versions_that_are_too_old_are_forgotten_and_the_others_keep_their_numbers():
    save(400, 390, 380, 300, 200, 0)

    assert run() == {"old versions of device configurations": "3"}

    assert left() == [(6, '{"days": 0}'), (5, '{"days": 200}'), (4, '{"days": 300}')]
    assert Numbered(DeviceConfig, MAC).get(3) is None
    assert run() == {}


def test_numbers_stay_over_several_times(settings: Any):
    save(400, 390, 380, 370, 0)
    for days in [385, 375]:
        settings.HISTORY_DAYS = days
        run()
    save(0)

    assert [number for number, _ in left()] == [6, 5, 4]
    assert DeviceConfig.history.of(MAC).exclude(history_forgotten=None).count() == 1


def test_the_last_ones_stay_whatever_their_age_also_of_what_is_deleted():
    save(500, 400, 400)
    save(500, 400, 400, mac_address=OTHER)
    DeviceConfig.objects.get(mac_address=OTHER).delete()
    DeviceConfig.history.filter(history_type="-").update(history_date=timezone.now() - timedelta(days=400))

    run()

    assert [number for number, _ in left()] == [3, 2]
    assert [number for number, _ in left(OTHER)] == [4, 3]
    assert [version.mac_address for version in DeviceConfig.history.deleted()] == [OTHER]


def test_they_count_in_the_order_in_which_they_were_saved():
    # The clock was a year ahead, and then two behind.
    save(400, 30, 800, 0, 900, 0)

    run()

    assert [number for number, _ in left()] == [6, 5, 4, 3, 2]


def test_all_stay_where_days_are_zero(settings: Any):
    settings.HISTORY_DAYS = 0
    save(900, 800, 700)

    assert run() == {}
    assert len(left()) == 3


def test_a_dry_run_only_says_it():
    save(400, 390, 0, 0)

    with nothing_changed():
        said = run("--dry-run")

    assert said.pop("bytes that no version needs") == "to be seen when it is done"
    assert said == {"old versions of device configurations": "2"}


def test_goes_in_parts_with_others_in_between(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forgetting, "CHUNK_ROWS", 2)
    save(400, 400, 400, 400, 400, 0, 0)
    save(400, 400, 0, 0, mac_address=OTHER)

    with CaptureQueriesContext(connection) as queries:
        assert list(forgetting.forget(DeviceConfig)) == [2, 2, 2, 1]

    assert len([query for query in queries if query["sql"].startswith("BEGIN")]) in {0, 4}
    assert [number for number, _ in left()] == [7, 6]
    assert [number for number, _ in left(OTHER)] == [4, 3]


def test_more_names_than_are_looked_at_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forgetting, "PAGE_NAMES", 2)
    for number in range(5):
        save(400, 0, 0, mac_address=f"02-00-00-00-00-0{number}")

    assert forgetting.count(DeviceConfig) == 5
    assert sum(forgetting.forget(DeviceConfig)) == 5


def test_bytes_go_that_no_version_needs_and_no_others(directories: Path):
    same = Asset.objects.upload("other.bin", [b"one"]).sha256
    for content in [b"one", b"two", b"three", b"four"]:
        Asset.objects.upload("firmware.bin", [content])
    old = Asset.history.of("firmware.bin").order_by("history_id").values_list("pk", flat=True)[:2]
    Asset.history.filter(pk__in=list(old)).update(history_date=timezone.now() - timedelta(days=400))

    said = run()

    assert said == {"old versions of assets": "2", "bytes that no version needs": "1"}
    kept = {blob.read_bytes() for blob in (directories / "blobs").iterdir()}
    assert kept == {b"one", b"three", b"four"}
    assert same in {blob.name for blob in (directories / "blobs").iterdir()}


def test_versions_of_types_go_the_same_way():
    device_type = DeviceType.objects.create(name="lamp", schema="{}")
    for number in range(3):
        device_type.description = str(number)
        device_type.save()
    DeviceType.history.update(history_date=timezone.now() - timedelta(days=400))

    assert run() == {"old versions of device types": "2"}
    assert [number for number, _ in Numbered(DeviceType, "lamp").newest(0, 9, without=[])] == [4, 3]


def test_files_go_that_a_killed_process_has_begun(directories: Path):
    left = directories / "configs" / f"{TEMPORARY_PREFIX}a"
    left.write_bytes(b"{")

    assert [run("--dry-run")["unfinished files"], run()] == ["1", {"unfinished files": "1"}]
    assert not left.exists()


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize(
    ("ages", "count"),
    [([400], 0), ([400, 390, 380], 1), ([400, 0, 400, 400, 0], 1), ([0, 400, 400, 0, 0], 0), ([400, 390, 0, 380], 2)],
)
def test_a_dry_run_says_what_is_done_then(ages: list[int], count: int):
    save(*ages)

    assert forgetting.count(DeviceConfig) == count
    assert sum(forgetting.forget(DeviceConfig)) == count


def test_a_dry_run_costs_no_more_statements_with_more_names():
    costs: list[int] = []
    for mac_address in [MAC, OTHER]:
        save(400, 0, 0, mac_address=mac_address)
        with CaptureQueriesContext(connection) as queries:
            assert forgetting.count(DeviceConfig) == len(costs) + 1
        costs.append(len(queries))

    assert costs == [1, 1]


def test_the_daily_thread_does_the_same():
    save(400, 390, 0, 0)

    assert housekeeping.tidy() == 2
    assert [number for number, _ in left()] == [4, 3]


def test_says_that_the_database_is_away():
    with (
        failing_statements(OperationalError("away")),
        pytest.raises(CommandError, match="The database does not answer"),
    ):
        run()


def test_a_link_to_a_version_shows_no_other_one_afterwards(signed_in: Client):
    save(400, 390, 200, 0)
    run()

    pages = [signed_in.get(f"{CONFIGS}versions/{MAC}/", {"old": number, "new": 4}) for number in [3, 2]]

    assert "Version 3 and version 4 (now)" in pages[0].text
    assert "Version 2 is not kept any more." in pages[1].text
