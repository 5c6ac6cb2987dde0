"""The bytes of every version: there as long as a version names them, and no longer."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction

from assets import blobs
from assets.models import Asset
from assets.uploads import StagedBlob
from iotsupport.mirror.files import MirrorError, StagedFile, mirror_storage, try_lock
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.waiting import LIMIT

pytestmark = pytest.mark.usefixtures("transactional_db")

BYTES = b"some bytes"
SHA256 = hashlib.sha256(BYTES).hexdigest()


class RolledBack(Exception):
    pass


@pytest.fixture
def kept(directories):
    """Names in the directory of blobs, the hidden ones too."""

    def kept() -> list[str]:
        return sorted(path.name for path in (directories / "blobs").iterdir())

    return kept


@pytest.fixture
def path(directories) -> Path:
    """Where the bytes are kept."""
    return directories / "blobs" / SHA256


def stage(content: bytes = BYTES) -> StagedBlob:
    staged = StagedBlob()
    staged.write(content)
    return staged


def _files_in(values: dict[str, Any]) -> list[Any]:
    return [value for value in values.values() if isinstance(value, io.IOBase)]


def keep(content: bytes = BYTES) -> None:
    with transaction.atomic():
        stage(content).keep()


def kill_an_upload(directory: Path) -> str:
    """Return the name of the file that it leaves."""
    script = """
import django, os, sys
django.setup()
from iotsupport.mirror.files import MirrorStorage, StagedFile
staged = StagedFile(MirrorStorage(sys.argv[1]))
print(staged.path.name, flush=True)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", script, directory], cwd=BASE_DIR, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    return killed.stdout.strip()


def is_named(*names: str):
    return lambda sha256: sha256 in names


def collect_elsewhere() -> list[str]:
    """As a thread of its own does."""
    try:
        return blobs.collect_garbage(is_named())
    finally:
        connection.close()


class TestStaging:
    def test_hashes_what_arrives(self):
        staged = StagedBlob()
        staged.write(BYTES[:4])
        staged.write(BYTES[4:])

        assert staged.size == len(BYTES)
        assert staged.sha256 == SHA256
        assert staged.md5 == hashlib.md5(BYTES, usedforsecurity=False).hexdigest()

    def test_refuses_the_first_byte_past_the_limit(self, settings):
        settings.ASSET_MAX_BYTES = len(BYTES)
        staged = stage()

        with pytest.raises(ValidationError) as caught:
            staged.write(b"x")

        assert caught.value.code == "TOO_LARGE"
        assert staged.size == len(BYTES)

    def test_leaves_nothing_when_it_is_closed_or_forgotten(self, kept):
        closed, forgotten = stage(), stage()
        assert len(kept()) == 2

        closed.close()
        del forgotten

        assert kept() == []

    def test_asks_nobody_for_its_place_when_it_is_forgotten(self, kept, settings):
        """Garbage is collected at any moment, also while its thread makes a storage, which others must not do then."""
        forgotten = stage()
        settings.STORAGES = {}

        del forgotten

        assert kept() == []


class TestKeeping:
    def test_puts_the_bytes_under_their_digest(self, path):
        keep()

        assert path.read_bytes() == BYTES

    @pytest.mark.both_databases
    def test_has_them_on_the_disk_before_the_commit(self, path):
        with transaction.atomic():
            stage().keep()

            assert path.read_bytes() == BYTES

    def test_syncs_the_file_and_the_directory(self, path):
        synced: list[bool] = []
        fsync = os.fsync

        def watch(descriptor: int) -> None:
            synced.append(os.path.isdir(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        with mock.patch("os.fsync", autospec=True, side_effect=watch):
            keep()

        assert synced == [False, True]

    @pytest.mark.both_databases
    def test_leaves_nothing_when_it_is_rolled_back(self, kept):
        with pytest.raises(RolledBack), transaction.atomic():
            staged = stage()
            staged.keep()
            raise RolledBack
        staged.close()

        assert kept() == []

    @pytest.mark.both_databases
    def test_leaves_nothing_when_it_is_rolled_back_and_forgotten(self, kept):
        def upload() -> None:
            with transaction.atomic():
                stage().keep()
                raise RolledBack

        with suppress(RolledBack):
            upload()

        assert kept() == []

    @pytest.mark.parametrize("make", [stage, lambda: StagedFile(mirror_storage("blobs"))], ids=["blob", "file"])
    def test_leaves_nothing_in_whatever_order_the_garbage_collector_comes_by(self, kept, monkeypatch, make):
        """A traceback ties what was staged to itself; the collector ends the parts of such a knot in any order."""
        trouble: list[Any] = []
        monkeypatch.setattr(sys, "unraisablehook", lambda caught: trouble.append(caught.exc_value))
        staged = make()
        staged.itself = staged
        # What survives a collection because of an older object, is older than what does because of a younger one.
        older = _files_in(vars(staged))
        younger = [staged]
        del staged
        gc.collect()

        older.clear()
        younger.clear()
        with warnings.catch_warnings(action="error"):
            gc.collect()

        assert (kept(), trouble) == ([], [])

    @pytest.mark.both_databases
    def test_leaves_bytes_that_another_version_has(self, kept):
        keep()

        with pytest.raises(RolledBack), transaction.atomic():
            staged = stage()
            staged.keep()
            raise RolledBack
        staged.close()

        assert kept() == [SHA256]

    @pytest.mark.both_databases
    def test_of_the_same_bytes_twice_at_once_keeps_them_when_the_first_is_rolled_back(self, path):
        first, second = stage(), stage()
        with pytest.raises(RolledBack), transaction.atomic():
            first.keep()
            second.keep()
            raise RolledBack
        # One connection has one transaction at a time, so the second's is told here in two.
        with transaction.atomic():
            second.keep()
        first.close()
        second.close()

        assert path.read_bytes() == BYTES

    @pytest.mark.both_databases
    def test_of_the_same_bytes_twice_at_once_keeps_them_when_the_second_is_rolled_back(self, path):
        first, second = stage(), stage()
        with transaction.atomic():
            first.keep()
            with pytest.raises(RolledBack), transaction.atomic():
                second.keep()
                raise RolledBack
            second.close()

        assert path.read_bytes() == BYTES

    @pytest.mark.both_databases
    def test_may_be_tried_again(self, path):
        """As after an ``IntegrityError``: somebody else created the row at the same moment."""
        staged = stage()
        with pytest.raises(RolledBack), transaction.atomic():
            staged.keep()
            raise RolledBack

        with transaction.atomic():
            staged.keep()

        assert path.read_bytes() == BYTES

    def test_mends_damaged_bytes(self, path):
        keep()
        path.write_bytes(b"damaged")

        keep()

        assert path.read_bytes() == BYTES


class TestReading:
    def test_yields_what_was_kept(self):
        keep()

        assert blobs.copy(SHA256, "assets").path.read_bytes() == BYTES

    @pytest.mark.parametrize("damage", [b"", b"some byte", b"some bytez", b"some bytes!"])
    def test_tells_of_damage(self, path, damage):
        keep()
        path.write_bytes(damage)

        with pytest.raises(MirrorError, match="missing or damaged. Upload the file again."):
            blobs.copy(SHA256, "assets")

    def test_tells_of_missing_bytes(self):
        with pytest.raises(MirrorError, match="missing or damaged. Upload the file again."):
            blobs.copy(SHA256, "assets")


class TestCollectingGarbage:
    @pytest.mark.both_databases
    def test_removes_what_nothing_names(self, kept):
        keep()
        keep(b"unwanted")

        removed = blobs.collect_garbage(is_named(SHA256))

        assert removed == [hashlib.sha256(b"unwanted").hexdigest()]
        assert kept() == [SHA256]

    @pytest.mark.both_databases
    def test_keeps_what_the_history_names(self, kept):
        asset = Asset.objects.upload("firmware.bin", [BYTES])
        Asset.objects.upload("firmware.bin", [b"newer"])
        asset.refresh_from_db()
        asset.delete()
        before = kept()

        assert Asset.collect_garbage() == []
        assert kept() == before
        assert len(before) == 2

    @pytest.mark.both_databases
    def test_keeps_what_is_in_flight(self, kept):
        staged = stage(b"arriving")
        with transaction.atomic():
            stage().keep()
            before = kept()

            assert blobs.collect_garbage(is_named()) == []

            assert kept() == before
        staged.close()

    @pytest.mark.both_databases
    def test_asks_whether_bytes_are_named_while_no_upload_can_be_committed(self, path):
        """Otherwise an upload that is committed between the question and the lock would lose its bytes."""
        keep()
        was_locked = []

        def is_referenced(sha256: str) -> bool:
            with path.open("rb") as file:
                was_locked.append(not try_lock(file))
            return True

        blobs.collect_garbage(is_referenced)

        # On PostgreSQL, what is shared is asked about before.
        assert was_locked[-1]

    def test_removes_what_is_not_in_flight_any_more(self, kept):
        keep()

        assert blobs.collect_garbage(is_named()) == [SHA256]
        assert kept() == []

    @pytest.mark.both_databases
    def test_waits_some_moments_for_who_collects_as_well(self, kept, monkeypatch):
        keep()
        monkeypatch.setattr(blobs, "PATIENCE_SECONDS", LIMIT)
        with blobs._open_lock() as lock, ThreadPoolExecutor() as threads:
            assert try_lock(lock)
            others = threads.submit(collect_elsewhere)
            with pytest.raises(TimeoutError):
                others.result(timeout=0.2)
            assert kept() == [SHA256]

            lock.close()

            assert others.result(timeout=LIMIT) == [SHA256]

    @pytest.mark.processes
    def test_removes_what_killed_uploads_left(self, kept, directories):
        left = kill_an_upload(directories / "blobs")
        assert left in kept()

        assert blobs.collect_garbage(is_named()) == [left]
        assert kept() == []

    @pytest.mark.both_databases
    def test_keeps_what_a_new_upload_puts_there_meanwhile(self, path):
        keep()

        def is_referenced(sha256: str) -> bool:
            keep()  # the same bytes, committed after the look into the database
            return False

        assert blobs.collect_garbage(is_referenced) == []
        assert path.read_bytes() == BYTES
