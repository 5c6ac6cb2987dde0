"""The bytes of versions in PostgreSQL, where other nodes fetch them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from assets import blobs
from assets.models import Asset
from assets.shared import SharedChunk
from iotsupport.mirror.files import MirrorError
from iotsupport.tests.support.waiting import poll

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("transactional_db", "no_chunks")]

BYTES = bytes(range(256)) * 10_000
SHA256 = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture
def no_chunks(transactional_db: None) -> Any:
    yield
    SharedChunk.objects.all().delete()


def upload(filename: str = "firmware.bin") -> Asset:
    return Asset.objects.upload(filename, [BYTES])


def forget_here(directories: Path) -> None:
    """As on another node, which was not sent the bytes."""
    (directories / "blobs" / SHA256).unlink()


def elsewhere(work: Callable[[], Any]) -> Any:
    """In a thread, with a connection of its own."""

    def run() -> Any:
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(run).result()


def test_what_is_not_here_is_fetched(directories: Path) -> None:
    upload()
    forget_here(directories)

    assert blobs.copy(SHA256, "assets").path.read_bytes() == BYTES
    assert (directories / "blobs" / SHA256).read_bytes() == BYTES


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_shared_in_part_is_not_kept(directories: Path, number: int) -> None:
    upload()
    forget_here(directories)
    SharedChunk.objects.filter(number=number).delete()

    with pytest.raises(MirrorError, match="missing or damaged"):
        blobs.copy(SHA256, "assets")

    assert list((directories / "blobs").iterdir()) == []


def test_a_rolled_back_upload_shares_nothing() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        upload()
        raise ZeroDivisionError

    assert not SharedChunk.objects.exists()


def test_what_no_version_names_is_removed() -> None:
    upload()
    Asset.objects.all().delete()
    Asset.history.all().delete()

    Asset.collect_garbage()

    assert not SharedChunk.objects.exists()


def test_an_upload_that_is_not_committed_keeps_what_it_shares() -> None:
    upload()
    Asset.objects.all().delete()
    Asset.history.all().delete()

    with transaction.atomic():
        upload("again.bin")
        elsewhere(Asset.collect_garbage)

    assert b"".join(SharedChunk.objects.read(SHA256)) == BYTES


def test_the_second_of_two_uploads_at_once_keeps_them_too() -> None:
    def upload_second() -> None:
        with transaction.atomic():
            upload("second.bin")
            # The first one is committed now; what it named is forgotten before this one is committed.
            elsewhere(forget_first)

    def forget_first() -> None:
        poll(lambda: Asset.objects.filter(filename="first.bin").count(), bool)
        Asset.objects.filter(filename="first.bin").delete()
        Asset.history.filter(filename="first.bin").delete()
        Asset.collect_garbage()

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            upload("first.bin")
            second = threads.submit(lambda: elsewhere(upload_second))
            poll(waiting, bool)
        second.result()

    assert b"".join(SharedChunk.objects.read(SHA256)) == BYTES


def waiting() -> int:
    """How many wait for another one's transaction."""
    return int(elsewhere(_count_waiting))


def _count_waiting() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return int(cursor.fetchone()[0])
