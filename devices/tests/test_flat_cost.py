"""What is done for one configuration does not grow with the number of configurations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from devices.models import DeviceConfig
from iotsupport.mirror.after_commit import make_equal
from iotsupport.mirror.files import mirror_storage

pytestmark = pytest.mark.django_db

# Of the list, more than two pages.
FEW, MANY = 3, 210
LIST = "/admin/devices/deviceconfig/"


def mac_address(number: int) -> str:
    return f"02-00-00-00-{number // 256:02x}-{number % 256:02x}"


def fill(start: int, stop: int) -> None:
    configs = [DeviceConfig(mac_address=mac_address(number), content=content(number)) for number in range(start, stop)]
    for config in configs:
        config.read_content()
    DeviceConfig.objects.bulk_create(configs)
    DeviceConfig.history.bulk_history_create(configs)


def content(number: int, version: int = 0) -> str:
    return f'{{"deviceName": "Device {number}", "enableOTA": true, "version": {version}}}'


def queries_of(act: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        act()
    return [query["sql"] for query in captured]


def save(version: int = 1) -> None:
    config = DeviceConfig.objects.get(mac_address=mac_address(1))
    config.content = content(1, version)
    config.save()


def plan(sql: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}".replace("%", "%%"))
        return "\n".join(row[3] for row in cursor.fetchall())


def plans_of(act: Callable[[], object]) -> list[str]:
    """Of each query that reads or changes rows."""
    statements = [sql for sql in queries_of(act) if sql.split()[0] in {"SELECT", "UPDATE", "DELETE"}]
    assert statements
    return [plan(sql) for sql in statements]


@pytest.mark.both_databases
def test_a_save_asks_as_often_among_many(directories: Path) -> None:
    fill(0, FEW)
    save(1)
    among_few = queries_of(lambda: save(2))
    fill(FEW, MANY)

    among_many = queries_of(lambda: save(3))

    assert len(among_many) == len(among_few)


@pytest.mark.both_databases
def test_a_save_writes_a_row_its_version_and_its_board_and_reads_nothing(directories: Path) -> None:
    fill(0, FEW)
    config = DeviceConfig.objects.get(mac_address=mac_address(1))
    config.content = content(1, 1)

    queries = queries_of(config.save)

    # Other nodes are told, on PostgreSQL.
    writes = [sql.split()[0] for sql in queries if "SAVEPOINT" not in sql and "pg_notify" not in sql]
    assert writes == ["UPDATE", "INSERT", "INSERT"]


@pytest.mark.both_databases
def test_a_save_in_the_admin_reads_its_row_once(directories: Path, signed_in: Client) -> None:
    fill(0, FEW)
    config = DeviceConfig.objects.get(mac_address=mac_address(1))
    form = {"content": content(1, 1), "based_on": config.etag}

    queries = queries_of(lambda: signed_in.post(f"{LIST}{config.pk}/change/", form))

    assert len([sql for sql in queries if sql.startswith("SELECT") and '"content"' in sql]) == 1
    assert len([sql for sql in queries if sql.startswith("UPDATE")]) == 1


@pytest.mark.parametrize("path", [LIST, f"{LIST}?q=Device", f"{LIST}?q=02-00", f"{LIST}?enable_ota__exact=1"])
def test_the_list_in_the_admin_asks_as_often_for_many(directories: Path, signed_in: Client, path: str) -> None:
    fill(0, FEW)
    signed_in.get(path)
    for_few = queries_of(lambda: signed_in.get(path))
    fill(FEW, MANY)

    for_many = queries_of(lambda: signed_in.get(path))

    assert len(for_many) == len(for_few)


@pytest.mark.parametrize("path", [LIST, f"{LIST}?q=Device", f"{LIST}?enable_ota__exact=1"])
def test_the_list_in_the_admin_counts_once(directories: Path, signed_in: Client, path: str) -> None:
    fill(0, MANY)

    queries = queries_of(lambda: signed_in.get(path))

    assert len([sql for sql in queries if "COUNT(" in sql]) == 1


@pytest.mark.parametrize("path", [LIST, f"{LIST}?q=Device", f"{LIST}?p=2"])
def test_the_list_in_the_admin_reads_one_page(directories: Path, signed_in: Client, path: str) -> None:
    fill(0, MANY)

    queries = queries_of(lambda: signed_in.get(path))

    [rows] = [sql for sql in queries if '"updated_at"' in sql]
    assert " LIMIT 100" in rows


@pytest.mark.parametrize("path", [LIST, f"{LIST}?q=Device", f"{LIST}?o=2"])
def test_the_list_in_the_admin_reads_no_configuration(directories: Path, signed_in: Client, path: str) -> None:
    fill(0, FEW)

    queries = queries_of(lambda: signed_in.get(path))

    assert [sql for sql in queries if '"content"' in sql] == []


def test_a_row_of_the_list_in_the_admin_takes_no_template_of_its_own(directories: Path, signed_in: Client) -> None:
    fill(0, FEW)
    signed_in.get(LIST)
    for_few = signed_in.get(LIST)
    fill(FEW, 100)

    for_a_page = signed_in.get(LIST)

    assert f"{mac_address(99)} (Device 99)" in for_a_page.content.decode()
    assert len(for_a_page.templates) == len(for_few.templates)


@pytest.mark.both_databases
@pytest.mark.parametrize("suffix", [".json", ""], ids=["file", "object"])
def test_one_configuration_asks_as_often_among_many(directories: Path, script: Client, suffix: str) -> None:
    fill(0, FEW)
    save()
    path = f"/configs/{mac_address(1)}{suffix}"
    script.get(path)
    among_few = queries_of(lambda: script.get(path))
    fill(FEW, MANY)

    among_many = queries_of(lambda: script.get(path))

    assert len(among_many) == len(among_few)


def test_a_download_asks_nothing(directories: Path, client: Client, django_assert_num_queries: Any) -> None:
    fill(0, FEW)
    mirror_storage("configs").directory.joinpath(f"{mac_address(1)}.json").write_text(content(1))

    with django_assert_num_queries(0):
        response = client.get(f"/configs/{mac_address(1)}.json")

    assert response.getvalue() == content(1).encode()


@pytest.mark.sqlite("EXPLAIN QUERY PLAN is SQLite's")
def test_a_save_finds_its_rows_by_index(directories: Path) -> None:
    fill(0, MANY)

    plans = plans_of(save)

    assert not [each for each in plans if "SCAN" in each]


@pytest.mark.sqlite("EXPLAIN QUERY PLAN is SQLite's")
def test_the_mirror_finds_its_row_by_index(directories: Path) -> None:
    fill(0, MANY)

    plans = plans_of(lambda: make_equal(DeviceConfig, f"{mac_address(1)}.json", "default"))

    assert not [each for each in plans if "SCAN" in each]


@pytest.mark.sqlite("EXPLAIN QUERY PLAN is SQLite's")
def test_the_first_page_of_the_list_is_read_in_the_order_of_an_index(directories: Path, signed_in: Client) -> None:
    fill(0, MANY)
    [rows] = [sql for sql in queries_of(lambda: signed_in.get(LIST)) if '"updated_at"' in sql]

    # The index is walked until the page is full; sorting would read all rows first.
    assert "SCAN devices_deviceconfig USING INDEX" in plan(rows)
    assert "TEMP B-TREE" not in plan(rows)


@pytest.mark.sqlite("EXPLAIN QUERY PLAN is SQLite's")
def test_the_list_in_the_admin_counts_in_an_index(directories: Path, signed_in: Client) -> None:
    fill(0, MANY)
    [count] = [sql for sql in queries_of(lambda: signed_in.get(LIST)) if "COUNT(" in sql]

    assert "USING COVERING INDEX" in plan(count)


@pytest.mark.sqlite("EXPLAIN QUERY PLAN is SQLite's")
def test_a_page_of_the_api_starts_by_index(directories: Path, script: Client) -> None:
    fill(0, MANY)
    [rows] = [sql for sql in queries_of(lambda: script.get("/configs")) if '"device_entity_id"' in sql]

    assert "SEARCH devices_deviceconfig USING INDEX" in plan(rows)
    assert "TEMP B-TREE" not in plan(rows)
