"""Uploads while they arrive: written through, limited, and gone without a trace where they are not wanted."""

from __future__ import annotations

import errno
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from django.core.exceptions import ValidationError
from django.core.files.uploadhandler import StopUpload
from django.db import connection
from django.test import Client
from django.test.client import RequestFactory

from assets.models import Asset
from assets.uploads import AssetUploadHandler, UploadedAsset
from iotsupport.mirror import files as mirror
from iotsupport.mirror.files import MirrorError
from iotsupport.tests.support.api_client import (
    make_administrator,
    make_user,
    nothing_changed,
    refusal,
    session_client,
    token_client,
)
from iotsupport.tests.support.disk import Disk, may_mount
from iotsupport.tests.support.multipart import CONTENT_TYPE, Arriving, body, part, post, upload

MEGABYTE = 1024 * 1024

pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """What goes only with the garbage may stay for hours on a quiet server."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def blobs(directories: Path) -> Path:
    return directories / "blobs"


class TestArriving:
    def test_bytes_are_written_as_they_come(self, script, blobs):
        written: list[tuple[int, int]] = []

        def watch(taken: int) -> None:
            written.append((taken, sum(path.stat().st_size for path in blobs.iterdir())))

        response = Arriving(2 * MEGABYTE, watch).send(script)

        assert response.json()["size"] == 2 * MEGABYTE
        # The parser looks two chunks ahead, and the file has a small buffer.
        assert all(on_disk > taken - 4 * 65536 for taken, on_disk in written)

    def test_memory_holds_some_chunks_and_not_the_file(self, script):
        upload(script, b"first")  # what is imported and cached by the first request does not count
        tracemalloc.start()
        try:
            response = Arriving(16 * MEGABYTE).send(script)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert response.json()["size"] == 16 * MEGABYTE
        # In bytes. The mirror copies in chunks of one megabyte; PostgreSQL is sent each of them in some copies.
        assert peak < (4 if connection.vendor == "sqlite" else 10) * MEGABYTE

    def test_bytes_past_the_limit_are_read_and_not_kept(self, script, blobs, settings):
        settings.ASSET_MAX_BYTES = MEGABYTE
        largest = 0

        def watch(taken: int) -> None:
            nonlocal largest
            largest = max(largest, sum(path.stat().st_size for path in blobs.iterdir()))

        arriving = Arriving(4 * MEGABYTE, watch)
        with nothing_changed():
            response = arriving.send(script)

        assert refusal(response) == (413, "TOO_LARGE")
        assert 0 < largest <= MEGABYTE
        assert arriving.read() == b"", "A sender that is cut off never hears why."

    @pytest.mark.both_databases
    def test_an_upload_of_the_largest_size_is_taken(self, script, settings):
        settings.ASSET_MAX_BYTES = MEGABYTE

        assert Arriving(MEGABYTE).send(script).json()["size"] == MEGABYTE

    @pytest.mark.parametrize("make_client", [token_client, session_client])
    def test_a_connection_that_breaks_leaves_nothing(self, make_client):
        client = make_client(make_administrator())

        def watch(taken: int) -> None:
            if taken > MEGABYTE:
                raise ConnectionResetError("Connection reset by peer")

        with nothing_changed():
            response = Arriving(4 * MEGABYTE, watch).send(client)

        assert refusal(response)[0] in {400, 403}

    @pytest.mark.parametrize("kept", [10, 1000, MEGABYTE])
    def test_a_body_that_ends_too_early_leaves_nothing(self, script, kept):
        whole = body(part(bytes(MEGABYTE)))

        with nothing_changed():
            response = script.generic("POST", "/assets", whole[:kept], CONTENT_TYPE)

        assert refusal(response) == (400, "NO_FILE")

    @pytest.mark.parametrize("make_client", [token_client, session_client])
    def test_a_part_that_cannot_be_read_leaves_nothing(self, make_client):
        broken = part(b"AAAA" * 50_000 + b"A", headers="Content-Transfer-Encoding: base64\r\n")

        with nothing_changed():
            response = post(make_client(make_administrator()), broken)

        assert refusal(response) == (400, "BAD_REQUEST")

    def test_too_many_fields_leave_nothing(self, script, settings):
        settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 10

        with nothing_changed():
            response = post(script, part(b"bytes"), *[part(b"", None, f"field{i}") for i in range(20)])

        assert refusal(response) == (400, "BAD_REQUEST")

    def test_files_in_other_fields_leave_nothing(self, script, blobs):
        upload_of_one = post(script, part(b"other", "other.bin", "other"), part(b"bytes"))

        assert upload_of_one.status_code == 200
        assert [path.name for path in blobs.iterdir()] == [Asset.objects.get().sha256]


class TestStrangers:
    @pytest.fixture(
        params=["nobody", "login", "lured", "powerless"],
    )
    def send(self, request) -> Callable[[Arriving], Any]:
        """Send a body as somebody who may not upload it."""
        if request.param == "nobody":
            return lambda arriving: arriving.send(Client(enforce_csrf_checks=True))
        if request.param == "login":
            visitor = Client(enforce_csrf_checks=True)
            visitor.get("/admin/login/")  # from here on with a CSRF cookie: the form is parsed to look for its token
            return lambda arriving: arriving.send(visitor, "/admin/login/")
        if request.param == "lured":
            stranger = session_client(make_user(is_staff=True), with_csrf=False)
            return lambda arriving: arriving.send(stranger)
        return lambda arriving: arriving.send(session_client(make_user(is_staff=True)))

    def test_fill_no_disk(self, send, blobs):
        found: list[Path] = []

        with nothing_changed():
            response = send(Arriving(MEGABYTE, lambda taken: found.extend(blobs.iterdir())))

        assert response.status_code in {401, 403, 413}
        assert found == []


class TestTheHandler:
    """As forms see it: what arrives is an ``UploadedAsset``, with bytes or with the reason why not."""

    @pytest.fixture
    def parse(self) -> Callable[..., UploadedAsset]:
        def parse(content: bytes, filename: str = "firmware.bin") -> UploadedAsset:
            request = RequestFactory().generic("POST", "/", body(part(content, filename)), CONTENT_TYPE)
            request.user = make_administrator()
            return cast(UploadedAsset, request.FILES["file"])

        return parse

    def test_gives_staged_bytes_with_their_digests(self, parse):
        upload = parse(b"bytes")

        assert (upload.size, upload.require_blob().size) == (5, 5)
        assert upload.require_blob().md5 == "4b3a6218bb3e3a7303e8a171a60fcf92"
        upload.close()

    def test_keeps_the_whole_name(self, parse):
        with parse(b"", "x" * 300 + ".bin") as upload:
            assert upload.full_name == "x" * 300 + ".bin"

    def test_remembers_that_there_were_too_many_bytes(self, parse, settings):
        settings.ASSET_MAX_BYTES = 3

        with pytest.raises(ValidationError) as caught:
            parse(b"bytes").require_blob()

        assert caught.value.code == "TOO_LARGE"

    def test_remembers_that_there_is_no_directory(self, parse, blobs):
        blobs.rmdir()

        with pytest.raises(MirrorError, match="The blobs directory is missing. Create it"):
            parse(b"bytes").require_blob()

    @pytest.mark.both_databases
    def test_brings_the_bytes_to_the_disk_before_any_transaction(self, parse, blobs, monkeypatch):
        def fail(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        # A disk that finds out late, such as one over the network.
        monkeypatch.setattr(mirror.os, "fsync", fail)

        uploaded = parse(b"bytes")

        with pytest.raises(MirrorError, match="No room is left on the disk of the blobs directory"):
            uploaded.require_blob()
        assert list(blobs.iterdir()) == []

    def test_drops_what_was_interrupted(self, blobs):
        request = RequestFactory().post("/")
        request.user = make_administrator()
        handler = AssetUploadHandler(request)
        handler.new_file("file", "firmware.bin", "", None)
        handler.receive_data_chunk(b"bytes", 0)
        assert len(list(blobs.iterdir())) == 1

        handler.upload_interrupted()

        assert list(blobs.iterdir()) == []
        handler.upload_interrupted()

    def test_never_stops_an_upload(self):
        """Django's own exception for that cuts the sender off."""
        assert not issubclass(MirrorError, StopUpload)


@pytest.mark.skipif(not may_mount(), reason="Only root may mount a small disk, where mounting is allowed.")
@pytest.mark.processes
class TestDiskTrouble:
    OLD = b"old" * 1000

    @pytest.fixture(params=["assets", "blobs"])
    def disk(self, request, directories) -> Iterator[Disk]:
        """A disk of 64 KiB below one of the two directories."""
        with Disk(directories / request.param, size_kib=64) as disk:
            yield disk

    @pytest.fixture
    def saved(self, disk) -> Asset:
        return Asset.objects.upload("firmware.bin", [self.OLD])

    def assert_refused(self, response: Any, beginning: str) -> None:
        assert refusal(response) == (503, "STORAGE_UNAVAILABLE")
        assert response.json()["error"].startswith(beginning)
        assert response.json()["error"].endswith("then try again.")

    @pytest.mark.parametrize("name", ["firmware.bin", "new.bin"])
    def test_a_file_that_does_not_fit_changes_nothing(self, script, saved, name):
        with nothing_changed():
            response = upload(script, b"x" * 70_000, name)

        self.assert_refused(response, "No room is left on the disk of the ")

    def test_a_file_that_does_not_fit_is_read_to_its_end(self, script, saved):
        arriving = Arriving(MEGABYTE)

        response = arriving.send(script)

        self.assert_refused(response, "No room is left on the disk of the ")
        assert arriving.read() == b""

    @pytest.mark.both_databases(once=True)
    @pytest.mark.parametrize("size", [1, 5_000])
    def test_a_full_disk_changes_nothing(self, script, saved, disk, size):
        disk.fill()

        with nothing_changed():
            response = upload(script, b"x" * size)

        self.assert_refused(response, "No room is left on the disk of the ")
        assert script.get("/assets").json()[0]["size"] == len(self.OLD)

    def test_a_disk_with_room_again_takes_the_file(self, script, saved, disk):
        disk.fill()
        upload(script, b"x" * 5_000)
        disk.free()

        assert upload(script, b"x" * 5_000).status_code == 200

    def test_a_read_only_disk_changes_nothing(self, script, saved, disk):
        disk.make_read_only()

        with nothing_changed():
            response = upload(script, b"new")

        self.assert_refused(response, "The ")
        assert "directory cannot be written" in response.json()["error"]
