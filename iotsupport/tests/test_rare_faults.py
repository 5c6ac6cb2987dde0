"""Faults that are seldom, one test for each: who is told, and what goes on."""

from __future__ import annotations

import errno
import io
import os
import pwd
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.exceptions import PermissionDenied
from django.core.handlers.wsgi import WSGIRequest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.utils import timezone

from assets.blobs import is_same_file
from assets.models import Asset
from assets.uploads import StagedBlob
from iotsupport import access, housekeeping
from iotsupport.accounts.last_uses import LastUses
from iotsupport.accounts.sessions import SessionMiddleware
from iotsupport.api import read_json
from iotsupport.database import sqlite
from iotsupport.database.sqlite import kept, turns
from iotsupport.editing import unsaved
from iotsupport.environment import Environment
from iotsupport.errors import ApiError
from iotsupport.housekeeping import tidy
from iotsupport.management.commands import prepare
from iotsupport.models import Throttle
from iotsupport.monitoring import shared_files
from iotsupport.tests.support.api_client import failing_statements
from iotsupport.tests.support.waiting import LIMIT, eventually

NOBODY = 4_000_000_000


def test_a_blob_that_somebody_removed_is_not_the_one_that_is_open(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    with path.open("wb") as file:
        assert is_same_file(path, file.fileno())
        path.unlink()

        assert not is_same_file(path, file.fileno())


def test_an_upload_whose_stream_breaks_leaves_nothing(transactional_db: None, directories: Path) -> None:
    def chunks() -> Any:
        yield b"half of it"
        assert [path.name for path in (directories / "blobs").iterdir()] != []
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        Asset.objects.upload("firmware.bin", chunks())

    assert list((directories / "blobs").iterdir()) == []
    assert not Asset.objects.exists()


def test_a_staged_file_that_was_closed_has_no_descriptor(directories: Path) -> None:
    blob = StagedBlob()
    blob.close()

    with pytest.raises(ValueError, match="closed"):
        blob.write(b"more")


def test_the_owner_of_a_file_whom_the_system_does_not_know_is_named_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    found = os.stat(tmp_path / "file")
    monkeypatch.setattr(Path, "stat", lambda path, **options: os.stat_result([*found[:4], NOBODY, *found[5:]]))
    monkeypatch.setattr(access.os, "access", lambda path, mode: False)
    with pytest.raises(KeyError):
        pwd.getpwuid(NOBODY)

    problem = access.problem(tmp_path / "file")

    assert problem is not None
    assert problem.endswith(f": it belongs to number {NOBODY}.")


def test_uses_of_tokens_are_noted_again_after_whatever_went_wrong(
    transactional_db: None, caplog: pytest.LogCaptureFixture
) -> None:
    noted, is_noted = [], threading.Event()

    def write(uses: dict[int, datetime]) -> None:
        noted.append(uses)
        if len(noted) == 1:
            raise RuntimeError("whatever it is")
        is_noted.set()

    uses, now = LastUses(write), datetime.now(UTC)
    uses._is_serving = True
    uses.note(1, now)
    eventually(lambda: caplog.messages)
    uses.note(2, now)

    assert is_noted.wait(LIMIT)
    assert noted == [{1: now}, {2: now}]
    assert caplog.messages == ["Could not note when 1 tokens were used"]


def test_what_is_refused_says_why_although_the_session_cannot_be_saved(transactional_db: None) -> None:
    def refuse(request: HttpRequest) -> HttpResponse:
        request.session["seen"] = True
        return HttpResponse("No.", status=403)

    with failing_statements(OperationalError("away")):
        response = SessionMiddleware(refuse)(RequestFactory().get("/admin/"))

    assert isinstance(response, HttpResponse)
    assert (response.status_code, response.content) == (403, b"No.")


def test_half_a_body_is_refused_whoever_serves() -> None:
    announced = RequestFactory().put("/configs/x", b"{}", content_type="application/json").environ
    environ = {**announced, "CONTENT_LENGTH": "10", "wsgi.input": io.BytesIO(b"{}")}

    with pytest.raises(ApiError) as refused:
        read_json(WSGIRequest(environ), 100)

    assert (refused.value.status, refused.value.code) == (400, "INCOMPLETE")
    assert str(refused.value) == "Only 2 of 10 bytes arrived. Send it again."


def test_a_form_that_breaks_off_is_refused_with_what_to_do(signed_in: Client, transactional_db: None) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("The client is gone.")

    options: dict[str, Any] = {"CONTENT_LENGTH": "10", "wsgi.input": Broken()}

    response = signed_in.post("/admin/login/", content_type="application/x-www-form-urlencoded", **options)

    assert response.status_code == 400
    assert "Not all of the form arrived. Nothing was changed. Send it again." in response.content.decode()


def test_a_connection_that_does_not_give_its_memory_back_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "db.sqlite3")
    monkeypatch.setattr(sqlite, "is_serving", lambda: True)
    private = sqlite3.connect(path, factory=kept.PrivateConnection)
    private.path, private.file = path, sqlite.identify(path)
    private.close()

    assert not kept.keep(private)
    assert kept.take(path) is None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EINVAL])
def test_where_files_cannot_be_locked_everybody_may_write_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "db.sqlite3").touch()

    def refuse(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(turns.fcntl, "fcntl", refuse)
    queue = turns.queue_of(str(tmp_path / "db.sqlite3"))

    first, second = queue.wait(LIMIT), queue.wait(LIMIT)

    first.leave()
    second.leave()


def test_where_the_queue_has_no_file_everybody_may_write_at_once(tmp_path: Path) -> None:
    (tmp_path / "db.sqlite3").touch()
    (tmp_path / f"db.sqlite3{turns.TURNS_SUFFIX}").mkdir()
    queue = turns.queue_of(str(tmp_path / "db.sqlite3"))

    first, second = queue.wait(LIMIT), queue.wait(LIMIT)

    first.leave()
    second.leave()


def test_a_script_that_may_not_is_told_so_without_a_page() -> None:
    response = unsaved.permission_denied(RequestFactory().post("/configs", {"a": "b"}), PermissionDenied())

    assert response.status_code == 403
    assert b"<form" not in response.content


def test_a_switch_that_is_neither_on_nor_off_keeps_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUG", "maybe")
    environment = Environment()

    assert environment.switch("DEBUG", False) is False
    assert "'maybe'" in environment.problems["DEBUG"]


def test_what_is_over_is_removed_tomorrow_where_the_database_went_away(
    transactional_db: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Session.objects.create(session_key="a", session_data="", expire_date=timezone.now() - timedelta(days=1))
    caplog.set_level("DEBUG", logger=housekeeping.logger.name)

    def go_away(rows: Any) -> int:
        connection.execute_wrappers.append(fail)
        raise OperationalError("away")

    def fail(*statement: Any) -> None:
        raise OperationalError("away for longer")

    monkeypatch.setattr(housekeeping, "_remove_some", go_away)
    try:
        with pytest.raises(OperationalError, match="away$"):
            tidy()
    finally:
        connection.execute_wrappers.clear()

    assert caplog.messages == ["What is over is removed tomorrow: away for longer"]
    assert Throttle.objects.get().next_at > timezone.now() + timedelta(hours=23)


def test_a_database_that_cannot_be_migrated_is_said_where_no_setting_is_to_blame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []

    def call(name: str, **options: Any) -> None:
        called.append(name)
        if name == "migrate":
            raise OperationalError("disk I/O error")

    monkeypatch.setattr(prepare, "call_command", call)

    with pytest.raises(CommandError, match="The database cannot be migrated: disk I/O error"):
        call_command("prepare", skip_checks=True)

    assert called == ["migrate", "check"]


def test_what_does_not_fit_is_shared_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = os.open(tmp_path / "health.page", os.O_RDWR | os.O_CREAT)
    write = os.pwrite
    monkeypatch.setattr(shared_files.os, "pwrite", lambda *part: write(part[0], part[1][:2], part[2]))

    shared_files.write(file, b"all of it")

    assert shared_files.read(file) == b""
    os.close(file)
