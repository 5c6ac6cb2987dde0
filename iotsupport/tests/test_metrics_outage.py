"""``/metrics`` tells what is known, whatever does not answer."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import OperationalError
from django.test import Client

from iotsupport import __version__
from iotsupport.monitoring import disks, metrics
from iotsupport.tests.support.api_client import failing_statements

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]

BUILD = f'\niot_build_info{{version="{__version__}"}} 1.0\n'


def ask(client: Client) -> tuple[str, set[str]]:
    """The page, and the names of the metrics that have a value."""
    response = client.get("/metrics")
    assert response.status_code == 200
    page = response.content.decode()
    return page, set(re.findall(r"^([a-z_]+)", page, re.MULTILINE))


def test_while_the_database_fails_all_that_only_it_knows_is_left_out(client: Client):
    _, known = ask(client)

    with failing_statements(OperationalError("away")):
        page, left = ask(client)

    # Whatever collectors there are: of configurations, boards and announcements.
    of_database = {metric.name for metric in metrics.database_metrics.collect()}
    assert of_database >= {"iot_config_files_count", "iot_devices", "iot_silent_devices", "mqtt_owed_announcements"}
    assert known - left == of_database
    assert "\niot_database_up 0.0\n" in page
    assert BUILD in page
    assert left >= {"mqtt_connection_state", "iot_disk_free_bytes", "iot_config_operations_total"}


@pytest.mark.parametrize(
    ("glance", "gone"),
    [("_shared_counts", "iot_config_operations_total"), ("_shared_disks", "iot_disk_free_bytes")],
)
def test_what_hangs_is_left_out_and_nothing_else(
    client: Client, monkeypatch: pytest.MonkeyPatch, glance: str, gone: str
):
    _, known = ask(client)

    def hang() -> Any:
        raise TimeoutError

    monkeypatch.setattr(getattr(metrics, glance), "get", hang)
    page, left = ask(client)

    assert gone in known - left
    assert {"iot_disk_free_bytes", "iot_config_operations_total", "iot_devices"} - left == {gone}
    assert BUILD in page
    assert "\niot_database_up 1.0\n" in page


def test_tells_of_the_room_that_is_left_and_names_no_directory(client: Client, settings: LazySettings, tmp_path: Path):
    settings.ASSETS_DIR = tmp_path / "missing"

    page, _ = ask(client)

    found = os.statvfs(settings.DATA_DIR)
    [free] = re.findall(r'^iot_disk_free_bytes\{directory="data"\} (\S+)', page, re.MULTILINE)
    [size] = re.findall(r'^iot_disk_size_bytes\{directory="data"\} (\S+)', page, re.MULTILINE)
    assert float(size) == found.f_blocks * found.f_frsize
    assert 0 <= float(free) <= float(size)
    words = set(re.findall(r'^iot_disk_free_bytes\{directory="(\w+)"\}', page, re.MULTILINE))
    assert words == disks.directories().keys() - {"assets"}
    assert str(tmp_path) not in page
