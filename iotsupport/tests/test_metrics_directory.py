"""Where workers add up their metrics: in memory, in a directory of one user and one installation."""

from __future__ import annotations

import os
import runpy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import LazySettings

from iotsupport import settings
from iotsupport.checks import check_metrics_directory
from iotsupport.environment import Environment
from iotsupport.monitoring import metrics_directory
from iotsupport.settings import BASE_DIR


@pytest.fixture
def tmp_path(on_disk: Path) -> Path:
    """Metrics lie in memory, where that is another disk than the data's."""
    return on_disk


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Shared memory that is the test's own; every test's data is on another disk."""
    path = Path(tempfile.mkdtemp(prefix="iotsupport-tests-", dir="/dev/shm"))  # noqa: S108
    monkeypatch.setattr(metrics_directory, "SHARED_MEMORY", path / "shm")
    (path / "shm").mkdir()
    (path / "runtime").mkdir()
    yield path
    shutil.rmtree(path)


def test_it_is_in_shared_memory(tmp_path: Path, memory: Path) -> None:
    found = metrics_directory.choose(tmp_path)

    assert found and found.parent == memory / "shm"
    assert metrics_directory.prepare(found) is None
    assert found.stat().st_mode & 0o777 == 0o700


def test_a_runtime_directory_goes_first(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_DIR", "")
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{memory / 'runtime'}:/run/other")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(memory / "missing"))

    found = Environment().metrics_directory("METRICS_DIR", tmp_path)

    assert found and found.parent == memory / "runtime"


def test_one_that_is_named_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_DIR", str(tmp_path / "metrics"))

    assert Environment().metrics_directory("METRICS_DIR", tmp_path) == tmp_path / "metrics"


def test_two_installations_have_two(tmp_path: Path, memory: Path) -> None:
    assert metrics_directory.choose(tmp_path / "one") != metrics_directory.choose(tmp_path / "other")


def test_it_is_never_on_the_disk_of_the_data(tmp_path: Path, memory: Path) -> None:
    assert metrics_directory.choose(memory / "data", str(memory / "runtime")) is None


def test_it_goes_with_the_server(tmp_path: Path, memory: Path) -> None:
    found = metrics_directory.choose(tmp_path)
    assert found
    metrics_directory.prepare(found)
    for name in ["counter_4194305.db", "health.page"]:  # no process has such a number
        (found / name).write_bytes(b"")

    metrics_directory.remove(found, tmp_path)

    assert not found.exists()
    metrics_directory.remove(found, tmp_path)


@pytest.mark.parametrize("name", [f"gauge_liveall_{os.getpid()}.db", "notes.txt"], ids=["server", "something else"])
def test_it_stays_while_another_server_counts_there_or_something_else_lies_there(
    tmp_path: Path, memory: Path, name: str
) -> None:
    found = metrics_directory.choose(tmp_path)
    assert found
    metrics_directory.prepare(found)
    (found / name).write_bytes(b"")

    metrics_directory.remove(found, tmp_path)

    assert (found / name).exists()


def test_one_that_was_named_stays(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()

    metrics_directory.remove(tmp_path / "metrics", tmp_path)

    assert (tmp_path / "metrics").exists()


@pytest.fixture
def conf(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What gunicorn reads."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # which it sets
    monkeypatch.setenv("PROMETHEUS_DISABLE_CREATED_SERIES", "")
    return runpy.run_path(str(BASE_DIR / "gunicorn.conf.py"))


def test_a_start_forgets_what_is_in_it_but_not_where_it_takes_over_from_a_server_that_runs(
    tmp_path: Path, conf: dict[str, Any]
) -> None:
    conf["when_ready"].__globals__["METRICS_DIR"] = tmp_path
    (tmp_path / "counter_4194305.db").write_bytes(b"")

    conf["when_ready"](SimpleNamespace(master_pid=1, LISTENERS=[]))
    assert (tmp_path / "counter_4194305.db").exists()
    conf["when_ready"](SimpleNamespace(master_pid=0, LISTENERS=[]))
    assert not (tmp_path / "counter_4194305.db").exists()


@pytest.mark.parametrize(("successor", "predecessor"), [(1, 0), (0, 1)])
def test_it_stays_for_the_server_that_goes_on(
    tmp_path: Path, memory: Path, conf: dict[str, Any], successor: int, predecessor: int
) -> None:
    found = metrics_directory.choose(settings.DATA_DIR)
    assert found
    metrics_directory.prepare(found)
    conf["on_exit"].__globals__["METRICS_DIR"] = found

    conf["on_exit"](SimpleNamespace(reexec_pid=successor, master_pid=predecessor))
    assert found.exists()
    conf["on_exit"](SimpleNamespace(reexec_pid=0, master_pid=0))
    assert not found.exists()


def test_what_another_user_may_have_put_there_is_not_taken(tmp_path: Path, memory: Path) -> None:
    path = metrics_directory.choose(tmp_path)
    assert path
    path.symlink_to(tmp_path)

    assert metrics_directory.choose(tmp_path) is None
    assert metrics_directory.prepare(path) == "another user made it"


def test_the_check_names_one_that_cannot_be_used(tmp_path: Path, settings: LazySettings) -> None:
    (tmp_path / "file").write_text("")
    settings.METRICS_DIR = tmp_path / "file" / "metrics"

    (warning,) = check_metrics_directory(None)

    assert warning.id == "iotsupport.W020"
    problem = "it cannot be reached: Not a directory"
    assert warning.msg == f"METRICS_DIR {tmp_path}/file/metrics cannot be written ({problem}): metrics are off."
    assert warning.hint and "Set METRICS_DIR" in warning.hint


def test_the_check_says_that_there_is_none(settings: LazySettings) -> None:
    settings.METRICS_DIR = None

    assert [warning.id for warning in check_metrics_directory(None)] == ["iotsupport.W021"]


def test_the_check_is_content_with_one_that_can_still_be_made(tmp_path: Path, settings: LazySettings) -> None:
    settings.METRICS_DIR = tmp_path / "not" / "yet"

    assert check_metrics_directory(None) == []
