"""After a commit the files of all its rows follow together: each is tried, and is announced once it is in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from devices.models import DeviceConfig
from iotsupport.mirror import after_commit
from iotsupport.mirror import files as mirror
from iotsupport.mirror.files import TEMPORARY_PREFIX, MirrorBehindError, MirrorStorage, mirror_storage, try_lock
from iotsupport.tests.support.server import files
from iotsupport.tests.support.waiting import LIMIT
from notifications.messages import Message
from notifications.publisher import publisher

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("transactional_db")]


@pytest.fixture
def configs(directories: Path) -> Path:
    return directories / "configs"


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the publisher hears that it may announce."""
    heard: list[str] = []

    def announce(message: Message, *, is_claimed: bool) -> None:
        heard.append(message.filename)

    monkeypatch.setattr(type(publisher), "is_on", property(lambda self: True))
    monkeypatch.setattr(publisher, "hand_over", announce)
    return heard


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which directories were locked, each time."""
    taken: list[str] = []
    lock = MirrorStorage.lock

    @contextmanager
    def spy(storage: MirrorStorage) -> Iterator[None]:
        taken.append(storage.directory.name)
        with lock(storage):
            yield

    monkeypatch.setattr(MirrorStorage, "lock", spy)
    return taken


def name(number: int) -> str:
    return f"02-00-00-00-00-{number:02x}.json"


def save(number: int, content: str = "{}") -> DeviceConfig:
    return DeviceConfig.objects.put(name(number).removesuffix(".json"), content)


def save_some(*numbers: int) -> None:
    with transaction.atomic():
        for number in numbers:
            save(number)


def block(path: Path) -> None:
    """Nothing can be renamed to this, and it cannot be removed."""
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "file").touch()


def test_the_files_of_a_transaction_follow_in_one_turn(
    configs: Path, locks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iotsupport.mirror.after_commit.HOLD_SECONDS", LIMIT)  # however busy the machine is
    save_some(*range(20))
    assert locks == ["configs"]
    assert sorted(files(configs)) == [name(number) for number in range(20)]

    with CaptureQueriesContext(connection) as queries:
        DeviceConfig.objects.all().delete()

    assert files(configs) == {}
    assert locks == ["configs", "configs"]
    assert len([query for query in queries if query["sql"].startswith("SELECT mac_address")]) == 1


def test_each_file_is_tried_and_one_error_tells_how_many_are_behind(configs: Path, announced: list[str]) -> None:
    block(configs / name(1))
    block(configs / name(2))

    with pytest.raises(MirrorBehindError) as caught:
        save_some(1, 2, 3)

    assert str(caught.value).startswith("The change is saved, but 2 files are not up to date: ")
    assert str(caught.value).endswith(f" The first is {name(1)}.")
    assert (configs / name(3)).read_text() == "{}"
    assert announced == [name(3)]


def test_each_file_is_tried_when_rows_are_deleted(configs: Path) -> None:
    save_some(1, 2, 3)
    block(configs / name(1))

    with pytest.raises(MirrorBehindError, match=f"The change is saved, but the file of {name(1)} is not up to date: "):
        DeviceConfig.objects.all().delete()

    assert not DeviceConfig.objects.exists()
    assert [path.name for path in configs.iterdir()] == [name(1)]


def test_the_old_file_of_a_renamed_row_goes_where_the_new_one_cannot_be_put(configs: Path) -> None:
    config = save(1)
    block(configs / name(2))
    config.mac_address = name(2).removesuffix(".json")

    with pytest.raises(MirrorBehindError, match=name(2)):
        config.save()

    assert [path.name for path in configs.iterdir()] == [name(2)]


def test_what_raises_when_it_is_called_keeps_nobody_from_the_rest(
    configs: Path, announced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(message: Message, *, is_claimed: bool) -> None:
        announced.append(message.filename)
        raise RuntimeError("not sent")

    monkeypatch.setattr(publisher, "hand_over", fail)

    save_some(1, 2)

    assert announced == [name(1), name(2)]


def test_what_a_savepoint_takes_back_is_neither_written_nor_announced(configs: Path, announced: list[str]) -> None:
    with transaction.atomic():
        save(1, '{"version": 1}')
        with pytest.raises(RuntimeError), transaction.atomic():
            save(1, '{"version": 2}')
            save(2)
            raise RuntimeError
        assert len(list(configs.glob(f"{TEMPORARY_PREFIX}*"))) == 1

    assert files(configs) == {name(1): b'{"version": 1}'}
    assert announced == [name(1)]


def test_what_is_rolled_back_does_not_follow_with_the_next_transaction(configs: Path, announced: list[str]) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        save(1)
        raise RuntimeError
    save(2)

    assert list(files(configs)) == [name(2)]
    assert announced == [name(2)]


def test_a_file_that_changes_several_times_in_a_transaction_is_as_the_last(configs: Path, announced: list[str]) -> None:
    with transaction.atomic():
        save(1, '{"version": 1}')
        save(1, '{"version": 2}').delete()
        save(1, '{"version": 3}')
        save(2).delete()

    assert files(configs) == {name(1): b'{"version": 3}'}
    assert set(announced) == {name(1)}


def test_many_files_let_others_have_the_directory_in_between(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = []

    def look(seconds: float) -> None:
        with mirror_storage("configs").lock_path.open("rb") as file:
            free.append(seconds > mirror.LOCK_POLL_SECONDS and try_lock(file))

    monkeypatch.setattr(after_commit, "HOLD_SECONDS", 1e-9)
    monkeypatch.setattr(after_commit.time, "sleep", look)

    save_some(1, 2, 3)

    assert free == [True] * 2
    assert len(files(configs)) == 3


def test_a_locked_directory_is_waited_for_once(
    configs: Path, locks: list[str], announced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(4)
    monkeypatch.setattr(mirror, "LOCK_SECONDS", 0.0)

    with mirror_storage("configs").lock_path.open("rb") as file:
        assert try_lock(file)
        with pytest.raises(MirrorBehindError, match="3 files are not up to date: Another process keeps"):
            save_some(1, 2, 3)

    assert locks == ["configs"] * 2
    assert announced == [name(4)]


def test_a_database_that_goes_away_after_the_commit_is_asked_once(
    configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(filenames: list[str], using: str) -> dict[str, str]:
        asked.append(len(filenames))
        raise OperationalError("gone")

    monkeypatch.setattr(DeviceConfig, "wanted_files", fail)

    with pytest.raises(MirrorBehindError, match="3 files are not up to date: gone"):
        save_some(1, 2, 3)

    assert asked == [3]
    assert list(configs.glob(f"{TEMPORARY_PREFIX}*")) == []
