"""Who changes a row has it alone: also one that is not there yet."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from devices.models import DeviceConfig
from iotsupport.tests.support.server import files
from iotsupport.tests.support.waiting import LIMIT, poll

MAC = "aa-bb-cc-dd-ee-ff"

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("transactional_db")]


def replace(content: str) -> bool:
    """Return whether there was something to replace."""
    with DeviceConfig.objects.locked(MAC) as config:
        is_there = config.pk is not None
        config.content = content
    return is_there


def test_it_is_saved_when_the_block_ends(directories: Path) -> None:
    assert [replace('{"version": 1}'), replace('{"version": 2}')] == [False, True]

    assert DeviceConfig.objects.get().content == '{"version": 2}'
    assert files(directories / "configs") == {f"{MAC}.json": b'{"version": 2}'}


def test_what_the_block_raises_refuses_the_change(directories: Path) -> None:
    replace('{"version": 1}')

    with pytest.raises(ZeroDivisionError), DeviceConfig.objects.locked(MAC) as config:
        config.content = '{"version": 2}'
        raise ZeroDivisionError

    assert DeviceConfig.objects.get().content == '{"version": 1}'
    assert files(directories / "configs") == {f"{MAC}.json": b'{"version": 1}'}


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "create",
    [
        lambda: replace('{"version": 1}'),
        lambda: DeviceConfig(mac_address=MAC, content='{"version": 1}').save(),
        lambda: DeviceConfig(mac_address=MAC.upper().replace("-", ":"), content='{"version": 1}').save(),
    ],
    ids=["locked", "saved", "saved in another spelling"],
)
def test_of_two_who_create_it_at_once_the_second_finds_what_the_first_saved(create: Callable[[], Any]) -> None:
    assert at_once(create, lambda: replace('{"version": 2}')) is True

    assert DeviceConfig.objects.get().content == '{"version": 2}'
    assert DeviceConfig.history.count() == 2


@pytest.mark.postgresql
def test_of_two_who_change_it_at_once_the_second_reads_what_the_first_saved() -> None:
    def change() -> str:
        with DeviceConfig.objects.locked(MAC) as config:
            read, config.content = config.content, '{"version": 3}'
        return read

    replace('{"version": 1}')

    assert at_once(lambda: replace('{"version": 2}'), change) == '{"version": 2}'


def at_once(first: Callable[[], Any], second: Callable[[], Any]) -> Any:
    """Let the first commit when the second waits for it; return what the second does."""
    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            first()
            waiting = threads.submit(elsewhere, second)
            with ThreadPoolExecutor(1) as others:
                poll(lambda: others.submit(elsewhere, count_waiting).result(), bool)
        return waiting.result(LIMIT)


def elsewhere(work: Callable[[], Any]) -> Any:
    """With a connection of its own."""
    try:
        return work()
    finally:
        connection.close()


def count_waiting() -> int:
    """How many wait for another one's transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return int(cursor.fetchone()[0])
