"""What one node does with what it hears, without a server."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from devices.models import DeviceConfig
from iotsupport.mirror import nodes
from iotsupport.mirror.files import MirrorError, StagedFile
from iotsupport.mirror.nodes import CHANNEL, FAILURES_AT_ONCE, Change, Follower, follow, read_change
from iotsupport.signals import following
from iotsupport.tests.support.waiting import LIMIT, eventually

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("transactional_db")]

MAC = "aa-bb-cc-dd-ee-ff"
FILENAME = f"{MAC}.json"


@pytest.fixture
def listening() -> Iterator[psycopg.Connection[Any]]:
    params = connection.get_connection_params()
    params.pop("pool", None)
    with psycopg.connect(**params, autocommit=True) as listening:
        listening.execute(f"LISTEN {CHANNEL}")
        yield listening


@pytest.fixture
def follower(monkeypatch: pytest.MonkeyPatch) -> Iterator[Follower]:
    """It tries again soon, and is to be started."""
    monkeypatch.setattr(nodes, "RETRY_SECONDS", 0.05)
    follower = Follower()
    yield follower
    follower.stop()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged; the app's loggers do not propagate."""
    logger = logging.getLogger("iotsupport")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def followed() -> Iterator[list[str]]:
    """What happens: ``noted``, then ``announced``."""
    happened: list[str] = []

    def note(filename: str, **kwargs: Any) -> Callable[[list[str]], None]:
        happened.append("noted")
        return lambda filenames: happened.append("announced")

    following.connect(note, sender=DeviceConfig)
    yield happened
    following.disconnect(note, sender=DeviceConfig)


@pytest.fixture
def path(directories: Path) -> Path:
    """The file of a configuration that another node changed."""
    path = directories / "configs" / FILENAME
    save_elsewhere("{}")
    return path


def save_elsewhere(content: str, mac_address: str = MAC) -> str:
    """Only the row changes. Returns the file's name."""
    rows = DeviceConfig.objects.filter(mac_address=mac_address)
    if not rows.exists():
        DeviceConfig.objects.put(mac_address, '{"version": "old"}')
    rows.update(content=content)
    return f"{mac_address}.json"


def tell(*filenames: str) -> None:
    """As the node does on which they were saved."""
    for filename in filenames:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, f"elsewhere configs {filename}"])


def wait_for_log(log: pytest.LogCaptureFixture, text: str) -> None:
    eventually(lambda: text in log.text, lambda: log.text)


def wait_for_content(path: Path, content: str) -> None:
    eventually(lambda: path.is_file() and path.read_text() == content, lambda: os.listdir(path.parent))


def replace_by_directory(path: Path) -> None:
    """Nobody can make a file there."""
    path.unlink()
    path.mkdir()


def test_only_what_is_committed_is_told(listening: psycopg.Connection[Any]) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        DeviceConfig.objects.put("00-00-00-00-00-00", "{}")
        raise ZeroDivisionError

    DeviceConfig.objects.put(MAC, "{}")

    heard = [read_change(notification.payload) for notification in listening.notifies(timeout=LIMIT, stop_after=1)]
    assert heard == [Change(DeviceConfig, FILENAME, is_own=True)]


def test_a_change_of_another_node(directories: Path) -> None:
    assert read_change("elsewhere configs a b.json") == Change(DeviceConfig, "a b.json", is_own=False)
    assert read_change("elsewhere nothing a.json") is None


def test_a_machine_without_a_boot_id_saves_as_well(
    listening: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nodes, "BOOT_ID", tmp_path / "missing")

    DeviceConfig.objects.put(MAC, "{}")

    assert len(list(listening.notifies(timeout=LIMIT, stop_after=1))) == 1


def test_it_is_noted_before_the_file_changes_and_announced_after(path: Path, followed: list[str]) -> None:
    follow(DeviceConfig, FILENAME, "default")

    assert followed == ["noted", "announced"]
    assert path.read_text() == "{}"


def test_what_is_equal_is_left_alone(followed: list[str]) -> None:
    DeviceConfig.objects.put(MAC, "{}")

    follow(DeviceConfig, FILENAME, "default")

    assert followed == []


def test_nothing_is_noted_for_a_disk_that_takes_no_bytes(
    path: Path, followed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(staged: StagedFile, chunk: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(StagedFile, "write", refuse)

    with pytest.raises(MirrorError, match="No room is left"):
        follow(DeviceConfig, FILENAME, "default")

    assert followed == []
    assert path.read_text() == '{"version": "old"}'


def test_newer_bytes_are_noted_again_before_they_are_put_in_place(path: Path) -> None:
    seen = []

    def save_once_more(**kwargs: Any) -> Callable[[list[str]], None]:
        seen.append(path.read_text())
        save_elsewhere('{"version": "newest"}')
        return lambda filenames: None

    following.connect(save_once_more, sender=DeviceConfig)
    try:
        follow(DeviceConfig, FILENAME, "default")
    finally:
        following.disconnect(save_once_more, sender=DeviceConfig)

    assert seen == ['{"version": "old"}'] * 2
    assert path.read_text() == '{"version": "newest"}'


# --- A thread that listens ---------------------------------------------------------------------------------------


def test_what_could_not_be_compared_is_compared_again(
    path: Path, follower: Follower, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "COMPARE_SECONDS", 0.1)
    monkeypatch.setattr(nodes, "COMPARE_FACTOR", 0)
    away = path.parent.with_name("away")
    path.parent.rename(away)
    follower.start()
    wait_for_log(log, "Could not follow the other servers: The configs directory is missing")

    away.rename(path.parent)

    wait_for_content(path, "{}")


def test_what_could_be_compared_is_not_compared_again(
    path: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs a reading of every file."""
    monkeypatch.setattr(nodes, "COMPARE_SECONDS", 0.0)
    monkeypatch.setattr(nodes, "COMPARE_FACTOR", 0)
    follower.start()
    wait_for_content(path, "{}")

    path.write_text("what only a comparison finds")
    for number in range(3):
        other = save_elsewhere(f'{{"number": {number}}}', "00-00-00-00-00-00")
        tell(other)
        wait_for_content(path.with_name(other), f'{{"number": {number}}}')
    follower.stop()  # at the end of a round that began later

    assert path.read_text() == "what only a comparison finds"


def test_what_cannot_be_followed_does_not_hold_up_the_rest(
    path: Path, follower: Follower, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "COMPARE_SECONDS", 10 * LIMIT)  # so that only what was heard is tried again
    others = [save_elsewhere("{}", f"00-00-00-00-00-0{number}") for number in range(FAILURES_AT_ONCE)]
    paths = [path.with_name(name) for name in [*others, FILENAME]]
    for obstructed in paths:
        replace_by_directory(obstructed)
    follower.start()
    wait_for_log(log, "Could not follow the other servers")
    tell(*others, FILENAME)
    for name in [*others, FILENAME]:
        wait_for_log(log, f"{name} was saved, but cannot be followed here yet")

    path.rmdir()

    wait_for_content(path, "{}")
    for obstructed in paths[:-1]:
        obstructed.rmdir()
        wait_for_content(obstructed, "{}")


def test_requests_may_take_every_connection_of_the_pool_while_nothing_is_heard(path: Path, follower: Follower) -> None:
    follower.start()
    wait_for_content(path, "{}")
    connection.close()  # the test's own goes back as well
    pool = connection.pool  # type: ignore[attr-defined]

    with ExitStack() as requests:
        for _ in range(pool.max_size):
            requests.enter_context(pool.connection(timeout=LIMIT / 2))
