"""What one node does with what it hears, without a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from devices.models import DeviceConfig
from iotsupport import mirror
from iotsupport.mirror import CHANNEL, MirrorError, StagedFile
from iotsupport.nodes import Change, File, Follower, _connect, follow, read_change
from iotsupport.signals import following

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("transactional_db")]

MAC = "aa-bb-cc-dd-ee-ff"
FILENAME = f"{MAC}.json"
FILE = File(DeviceConfig, FILENAME)


@pytest.fixture
def listening() -> Iterator[psycopg.Connection[Any]]:
    with _connect() as listening:
        listening.execute(f"LISTEN {CHANNEL}")
        yield listening


@pytest.fixture
def followed() -> Iterator[list[str]]:
    """What happens: ``noted``, then ``announced``."""
    happened: list[str] = []

    def note(filename: str, **kwargs: Any) -> Callable[[], None]:
        happened.append("noted")
        return lambda: happened.append("announced")

    following.connect(note, sender=DeviceConfig)
    yield happened
    following.disconnect(note, sender=DeviceConfig)


@pytest.fixture
def path(directories: Path) -> Path:
    """The file of a configuration that another node changed."""
    path = directories / "configs" / FILENAME
    save_elsewhere("{}")
    return path


def save_elsewhere(content: str) -> None:
    """Only the row changes."""
    if not DeviceConfig.objects.exists():
        DeviceConfig.objects.put(MAC, '{"version": "old"}')
    DeviceConfig.objects.update(content=content)


def test_only_what_is_committed_is_told(listening: psycopg.Connection[Any]) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        DeviceConfig.objects.put("00-00-00-00-00-00", "{}")
        raise ZeroDivisionError

    DeviceConfig.objects.put(MAC, "{}")

    heard = [read_change(notification.payload) for notification in listening.notifies(timeout=5, stop_after=1)]
    assert heard == [Change(DeviceConfig, FILENAME, is_own=True)]


def test_a_change_of_another_node(directories: Path) -> None:
    assert read_change("elsewhere configs a b.json") == Change(DeviceConfig, "a b.json", is_own=False)
    assert read_change("elsewhere nothing a.json") is None


def test_a_machine_without_a_boot_id_saves_as_well(
    listening: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mirror, "BOOT_ID", tmp_path / "missing")

    DeviceConfig.objects.put(MAC, "{}")

    assert len(list(listening.notifies(timeout=5, stop_after=1))) == 1


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

    def save_once_more(**kwargs: Any) -> Callable[[], None]:
        seen.append(path.read_text())
        save_elsewhere('{"version": "newest"}')
        return lambda: None

    following.connect(save_once_more, sender=DeviceConfig)
    try:
        follow(DeviceConfig, FILENAME, "default")
    finally:
        following.disconnect(save_once_more, sender=DeviceConfig)

    assert seen == ['{"version": "old"}'] * 2
    assert path.read_text() == '{"version": "newest"}'


def test_what_could_not_be_compared_is_compared_again(path: Path, directories: Path) -> None:
    follower = Follower()
    path.parent.rename(directories / "away")
    follower._catch_up()
    assert follower._compare_at < float("inf")
    (directories / "away").rename(path.parent)

    follower._catch_up()

    assert path.read_text() == "{}"
    assert follower._compare_at == float("inf")


def test_what_cannot_be_followed_does_not_hold_up_the_rest(path: Path, followed: list[str]) -> None:
    follower = Follower()
    path.parent.rename(path.parent.with_name("away"))
    others = [File(DeviceConfig, f"00-00-00-00-00-0{number}.json") for number in range(3)]
    for file in [*others, FILE]:
        assert not follower._follow(file)
    follower._try_again()
    path.parent.with_name("away").rename(path.parent)

    assert next(iter(follower._retries)) == FILE
    follower._try_again()
    assert follower._retries == {}
    assert path.read_text() == "{}"


def test_a_connection_goes_back_to_the_pool_while_nothing_is_heard(listening: psycopg.Connection[Any]) -> None:
    DeviceConfig.objects.put(MAC, "{}")

    Follower()._hear(listening)

    assert connection.connection is None
