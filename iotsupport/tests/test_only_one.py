"""The lock by which one server serves a data directory; ``test_gunicorn_conf.py`` sees it on a real one."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from iotsupport import settings as our_settings
from iotsupport.serving import only_one
from iotsupport.tests.support.waiting import LIMIT
from iotsupport.trial.run import Run, StartError

ADDRESS = "http://127.0.0.1:8000"
# More than any system gives out.
NO_PROCESS = 2**31 - 1


@pytest.fixture(autouse=True)
def another(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a master, without what other tests left."""
    monkeypatch.setattr(only_one, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(only_one, "ENDING_SECONDS", 0.1)
    monkeypatch.setattr(only_one, "_descriptors", [])
    monkeypatch.delenv(only_one.VARIABLE, raising=False)
    yield
    only_one.give_away()


def begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as another process, which has nothing of this one."""
    monkeypatch.setattr(only_one, "_descriptors", [])


def write(directory: Path, *servers: dict[str, Any]) -> None:
    (directory / only_one.FILE_NAME).write_text(json.dumps(servers))


def said(pid: int, address: str = ADDRESS) -> dict[str, Any]:
    return {"pid": pid, "address": address, "started": "2026-11-03T08:00:00+00:00"}


def test_a_second_server_is_told_which_one_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    only_one.take(tmp_path)
    only_one.say_where([ADDRESS, "unix:/run/iot.sock"])
    first = only_one._descriptors
    begin(monkeypatch)

    with pytest.raises(only_one.TakenError, match=f"process {os.getpid()} at {ADDRESS}, unix:/run/iot.sock, started 2"):
        only_one.take(tmp_path)

    found = only_one.running_server(tmp_path)
    assert found is not None
    assert found[:2] == (os.getpid(), f"{ADDRESS}, unix:/run/iot.sock")
    os.close(*first)
    assert only_one.running_server(tmp_path) is None
    only_one.take(tmp_path)


def test_a_server_that_ends_in_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    only_one.take(tmp_path)
    first = only_one._descriptors
    begin(monkeypatch)
    monkeypatch.setattr(only_one.time, "sleep", lambda seconds: os.close(first.pop()))

    only_one.take(tmp_path)

    assert len(only_one._descriptors) == 1


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_server_that_listens_no_more_is_waited_for_until_it_is_gone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(only_one, "ENDING_SECONDS", LIMIT)
    listener = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    listener.bind(str(tmp_path / "iot.sock") if kind == "unix" else ("127.0.0.1", 0))
    listener.listen()
    only_one.take(tmp_path)
    address = f"unix:{tmp_path}/iot.sock" if kind == "unix" else f"http://127.0.0.1:{listener.getsockname()[1]}"
    only_one.say_where([address])
    first = only_one._descriptors
    begin(monkeypatch)
    with pytest.raises(only_one.TakenError, match=re.escape(address)):
        only_one.take(tmp_path)

    listener.close()
    with ThreadPoolExecutor() as threads:
        taken = threads.submit(only_one.take, tmp_path)
        with pytest.raises(TimeoutError):
            taken.result(timeout=0.3)
        os.close(*first)
        taken.result(timeout=LIMIT)


def test_one_that_has_not_said_where_is_refused_for_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    only_one.take(tmp_path)
    (tmp_path / only_one.FILE_NAME).write_text('{"pid": ')
    first = only_one._descriptors
    begin(monkeypatch)

    with pytest.raises(only_one.TakenError, match="it has just begun, and not said yet where"):
        only_one.take(tmp_path)
    os.close(*first)


def test_of_two_masters_of_one_server_the_last_that_lives_is_told(tmp_path: Path):
    """After SIGUSR2; whichever of them ends, the other one is found."""
    with open(tmp_path / only_one.FILE_NAME, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        for servers, pid in [
            ([said(os.getppid()), said(os.getpid())], os.getpid()),
            ([said(os.getppid()), said(NO_PROCESS)], os.getppid()),
            ([said(NO_PROCESS - 1), said(NO_PROCESS)], NO_PROCESS),  # of another container
        ]:
            write(tmp_path, *servers)
            found = only_one.running_server(tmp_path)
            assert found is not None and found.pid == pid


def test_one_master_takes_over_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    only_one.take(tmp_path)
    write(tmp_path, said(os.getppid()), said(NO_PROCESS))
    environ = {only_one.VARIABLE: "77"}
    only_one.leave_to(environ)
    [left] = only_one._descriptors
    assert environ == {only_one.VARIABLE: str(left)} and os.get_inheritable(left)
    begin(monkeypatch)
    monkeypatch.setenv(only_one.VARIABLE, str(left))

    only_one.take(tmp_path)
    only_one.say_where([ADDRESS])

    assert only_one.VARIABLE not in os.environ and not os.get_inheritable(left)
    known = json.loads((tmp_path / only_one.FILE_NAME).read_text())
    assert [each["pid"] for each in known] == [os.getppid(), os.getpid()]


def test_what_is_inherited_of_another_directory_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ["old", "new"]:
        (tmp_path / name).mkdir()
    only_one.take(tmp_path / "old")
    monkeypatch.setenv(only_one.VARIABLE, str(*only_one._descriptors))
    begin(monkeypatch)

    only_one.take(tmp_path / "new")

    assert only_one.running_server(tmp_path / "old") is None
    assert only_one.running_server(tmp_path / "new") is not None


def test_where_nothing_can_be_locked_there_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    environ = {only_one.VARIABLE: "77"}
    with pytest.raises(FileNotFoundError):
        only_one.take(tmp_path / "missing")

    only_one.say_where([ADDRESS])
    only_one.leave_to(environ)

    assert environ == {}
    assert only_one.running_server(tmp_path / "missing") is None


def test_a_trial_beside_a_server_is_refused_before_anything_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(our_settings, "DATA_DIR", tmp_path)
    only_one.take(tmp_path)
    only_one.say_where([ADDRESS])

    with pytest.raises(StartError) as refused:
        Run(demo=False)

    assert f"process {os.getpid()} at {ADDRESS}" in str(refused.value)
    assert "End that one first, or give this one a directory of its own" in str(refused.value)
