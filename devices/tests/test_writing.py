"""Many configurations are written together; each of them, its version, its file and its announcement as by a save."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from devices import writing
from devices.models import DeviceConfig, DeviceType
from devices.writing import Outcome, Write, Written, write_many
from iotsupport.boards.models import Board
from iotsupport.database import is_shared
from iotsupport.editing.origins import Origin, Way, changing
from iotsupport.mirror import files as mirror
from iotsupport.mirror.after_commit import Change, changed, make_all_equal
from iotsupport.mirror.files import MirrorError
from iotsupport.tests.support.api_client import nothing_changed
from iotsupport.tests.support.server import files, sha256
from iotsupport.tests.support.waiting import LIMIT
from notifications.messages import Message
from notifications.models import Announcement
from notifications.publisher import publisher

OLD, NEW = '{"deviceName": "Lamp"}', '{ "deviceName": "Küche",\r\n "enableOTA": true }\n'

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("transactional_db")]


@pytest.fixture
def configs(directories: Path) -> Path:
    return directories / "configs"


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """What the publisher hears that it may announce."""
    heard: list[Message] = []
    monkeypatch.setattr(type(publisher), "is_on", property(lambda self: True))
    monkeypatch.setattr(publisher, "hand_over", lambda message, is_claimed: heard.append(message))
    return heard


def mac(number: int) -> str:
    return f"02-00-00-00-00-{number:02x}"


def put(*numbers: int, content: str = OLD) -> None:
    for number in numbers:
        DeviceConfig.objects.put(mac(number), content)


def new(number: int, content: str = NEW) -> Write:
    return Write(mac(number), None, content)


def change(number: int, content: str = NEW, before: str = OLD) -> Write:
    return Write(mac(number), sha256(before.encode()), content)


def outcomes(written: list[Written]) -> list[Outcome]:
    return [each.outcome for each in written]


def contents(configs: Path) -> dict[str, str]:
    """Of all files, those that are staged included."""
    return {name: content.decode() for name, content in files(configs).items()}


# --- What is written ---------------------------------------------------------------------------------------------


def test_rows_and_files_are_as_saves_would_make_them(configs: Path) -> None:
    put(1, 2, 3)
    DeviceConfig.objects.put(mac(1), NEW)
    DeviceConfig.objects.put(mac(9), NEW)

    assert outcomes(write_many([new(8), change(2)])) == [Outcome.CREATED, Outcome.CHANGED]

    as_saved, as_written = facts(mac(1), mac(9)), facts(mac(2), mac(8))
    assert as_written == as_saved
    assert contents(configs) == {f"{mac(n)}.json": OLD if n == 3 else NEW for n in [1, 2, 3, 8, 9]}


def facts(*addresses: str) -> list[Any]:
    """All that rows, versions and boards say, without what differs between any two."""
    own = {"id", "mac_address", "created_at", "updated_at", "history_id", "history_date"}
    found: list[Any] = []
    for address in addresses:
        for model in [DeviceConfig, DeviceConfig.history.model, Board]:
            rows = model._base_manager.filter(mac_address=address).order_by("pk").values()
            found.append([{name: value for name, value in row.items() if name not in own} for row in rows])
    return found


def test_times_tell_of_this_change() -> None:
    put(1)
    before = DeviceConfig.objects.get()

    write_many([change(1), new(2)])

    changed, created = DeviceConfig.objects.order_by("mac_address")
    assert changed.created_at == before.created_at
    assert before.updated_at < created.created_at <= created.updated_at < changed.updated_at
    [newest, _] = DeviceConfig.history.filter(mac_address=mac(1))
    assert newest.updated_at == changed.updated_at <= newest.history_date
    assert newest.id == changed.pk


def test_each_version_says_who_which_way_and_why(administrator: User) -> None:
    put(1)

    with changing(Origin(Way.BULK, administrator, token="nightly", reason="New broker")):
        written = write_many([change(1), new(2)])

    for each, kind in zip(written, "~+", strict=True):
        version = DeviceConfig.history.get(history_id=each.version)
        assert (version.mac_address, version.content, version.history_type) == (each.mac_address, NEW, kind)
        assert (version.history_user, version.history_way, version.history_token) == (
            administrator,
            Way.BULK,
            "nightly",
        )
        assert version.history_change_reason == "New broker"
        assert DeviceConfig.objects.get(mac_address=each.mac_address).updated_by == administrator


def test_boards_are_behind_from_then_on() -> None:
    put(1)
    Board.objects.filter(mac_address=mac(1)).update(holds_sha256=sha256(OLD.encode()), state="current")

    write_many([change(1), new(2)])

    assert dict(Board.objects.values_list("mac_address", "state")) == {mac(1): "behind", mac(2): "never_fetched"}


def test_each_is_announced_in_bulk_once_it_is_in_place(configs: Path, announced: list[Message]) -> None:
    put(1, 2)
    announced.clear()

    write_many([change(2), change(1), new(3)])

    assert [message.filename for message in announced] == [f"{mac(n)}.json" for n in [1, 2, 3]]
    assert all(message.is_bulk for message in announced)
    rows = Announcement.objects.owed().order_by("filename")
    assert [row.message for row in rows] == announced
    assert {row.claimed_by for row in rows} == {""}  # whichever process comes first sends them


def test_other_nodes_are_told_of_all_at_once() -> None:
    told: list[list[str]] = []
    put(1)

    def hear(sender: Any, filenames: list[str], using: str, **kwargs: Any) -> None:
        assert connection.in_atomic_block
        told.append(filenames)

    changed.connect(hear)
    write_many([change(1), new(2)])
    changed.disconnect(hear)

    assert told == [[f"{mac(1)}.json", f"{mac(2)}.json"]]


# --- What is not -------------------------------------------------------------------------------------------------


def test_what_is_the_same_is_left_alone(announced: list[Message]) -> None:
    put(1)
    announced.clear()

    with nothing_changed():
        assert outcomes(write_many([change(1, OLD)])) == [Outcome.UNCHANGED]

    assert announced == []


def test_what_somebody_else_did_meanwhile_stays() -> None:
    put(1, 2, content='{"theirs": 1}')

    with nothing_changed():
        written = write_many([change(1), new(2), change(3), change(4, OLD)])

    assert [(each.outcome, each.reason) for each in written] == [
        (Outcome.SKIPPED, "It was changed meanwhile."),
        (Outcome.SKIPPED, "It was created meanwhile."),
        (Outcome.SKIPPED, "It was deleted meanwhile."),
        (Outcome.SKIPPED, "It was deleted meanwhile."),
    ]
    assert [each.version for each in written] == [None] * 4


def test_what_somebody_creates_while_its_name_is_waited_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(names: list[str], using: str) -> bool:
        monkeypatch.undo()
        put(1, content='{"theirs": 1}')
        return True

    monkeypatch.setattr(DeviceConfig, "lock_names", wait)

    assert outcomes(write_many([new(1), new(2)])) == [Outcome.SKIPPED, Outcome.CREATED]
    assert DeviceConfig.objects.get(mac_address=mac(1)).content == '{"theirs": 1}'


def test_what_is_refused_keeps_no_other_back(configs: Path) -> None:
    written = write_many([new(1, "[]"), new(2), new(3, '{"a": "\ud800"}')])

    assert outcomes(written) == [Outcome.REFUSED, Outcome.CREATED, Outcome.REFUSED]
    assert written[0].reason.startswith("Line 1, column 1: write one JSON object")
    assert contents(configs) == {f"{mac(2)}.json": NEW}


def test_nothing_to_write_is_no_mistake() -> None:
    assert write_many([]) == []
    assert outcomes(write_many([new(1, "[]")])) == [Outcome.REFUSED]


def test_two_for_one_device_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="Two of these are for the same device"):
        write_many([new(1), new(1, OLD)])


# --- Types -------------------------------------------------------------------------------------------------------


@pytest.fixture
def kitchen() -> DeviceType:
    schema = '{"properties": {"pin": {"enum": [1, 2]}}}'
    return DeviceType.objects.create(name="Kitchen", folded="kitchen", schema=schema)


def types() -> dict[str, tuple[str | None, bool | None]]:
    rows = DeviceConfig.objects.values_list("mac_address", "type__name", "fits")
    return {mac_address: (name, fits) for mac_address, name, fits in rows}


def test_a_type_is_kept_or_given_or_taken_away(kitchen: DeviceType, announced: list[Message]) -> None:
    for number in range(3):
        DeviceConfig(mac_address=mac(number), content=OLD, type=kitchen).save()
    announced.clear()

    written = write_many(
        [
            change(0),
            Write(mac(1), sha256(OLD.encode()), OLD, None),
            Write(mac(2), sha256(OLD.encode()), OLD, kitchen),
            Write(mac(3), None, NEW, kitchen),
        ]
    )

    assert outcomes(written) == [Outcome.CHANGED, Outcome.CHANGED, Outcome.UNCHANGED, Outcome.CREATED]
    kept = ("Kitchen", True)
    assert types() == {mac(0): kept, mac(1): (None, None), mac(2): kept, mac(3): kept}
    assert DeviceConfig.history.get(history_id=written[1].version).type_id is None
    # Boards have these bytes of the second already.
    assert [message.filename for message in announced] == [f"{mac(0)}.json", f"{mac(3)}.json"]


def test_what_does_not_fit_its_type_is_refused(kitchen: DeviceType, configs: Path) -> None:
    DeviceConfig(mac_address=mac(0), content=OLD, type=kitchen).save()
    put(1, content='{"pin": 3}')

    written = write_many([change(0, '{"pin": 3}'), Write(mac(1), sha256(b'{"pin": 3}'), '{"pin": 3}', kitchen), new(2)])

    assert outcomes(written) == [Outcome.REFUSED, Outcome.REFUSED, Outcome.CREATED]
    for each in written[:2]:
        assert each.reason.startswith("This does not fit the type “Kitchen”. Line 1, column ")
    assert contents(configs) == {f"{mac(0)}.json": OLD, f"{mac(1)}.json": '{"pin": 3}', f"{mac(2)}.json": NEW}


def test_a_marked_one_that_stays_as_it_is_is_no_refusal(kitchen: DeviceType) -> None:
    config = DeviceConfig(mac_address=mac(0), content='{"pin": 3}', type=kitchen)
    config.although_it_does_not_fit = True
    config.save()

    assert outcomes(write_many([change(0, '{"pin": 3}', '{"pin": 3}')])) == [Outcome.UNCHANGED]


def test_texts_are_judged_before_the_transaction_begins(kitchen: DeviceType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema may take long, and meanwhile nobody else could save."""
    DeviceConfig(mac_address=mac(0), content=OLD, type=kitchen).save()
    judged: list[bool] = []

    def watch(schema: str, text: str) -> list[Any]:
        judged.append(connection.in_atomic_block)
        return []

    monkeypatch.setattr("devices.models.errors_of", watch)

    write_many([change(0), Write(mac(1), None, NEW, kitchen)])

    assert judged == [False, False]


def test_a_type_that_somebody_gives_it_meanwhile_judges_it_too(
    kitchen: DeviceType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(0)
    judge_ahead = writing._judge_ahead

    def give_meanwhile(items: list[Any]) -> None:
        judge_ahead(items)
        DeviceConfig.objects.update(type=kitchen)

    monkeypatch.setattr(writing, "_judge_ahead", give_meanwhile)

    with nothing_changed_but_type():
        assert outcomes(write_many([change(0, '{"pin": 3}')])) == [Outcome.REFUSED]


@contextmanager
def nothing_changed_but_type() -> Iterator[None]:
    before = list(DeviceConfig.objects.values("content", "updated_at")), DeviceConfig.history.count()
    yield
    assert (list(DeviceConfig.objects.values("content", "updated_at")), DeviceConfig.history.count()) == before


def test_a_type_that_somebody_gives_it_meanwhile_is_not_taken_away(kitchen: DeviceType) -> None:
    for number in range(3):
        DeviceConfig(mac_address=mac(number), content=OLD, type=kitchen).save()
    bath = DeviceType.objects.create(name="Bath", folded="bath", schema="{}")
    sha256_of_old = sha256(OLD.encode())

    with nothing_changed():
        written = write_many(
            [
                Write(mac(0), sha256_of_old, OLD, None, before_type=bath.pk),
                Write(mac(1), sha256_of_old, OLD, bath, before_type=None),
                Write(mac(2), sha256_of_old, OLD, kitchen, before_type=bath.pk),
            ]
        )

    assert [(each.outcome, each.reason) for each in written] == [
        (Outcome.SKIPPED, "It was given another type meanwhile."),
        (Outcome.SKIPPED, "It was given another type meanwhile."),
        (Outcome.UNCHANGED, ""),
    ]


# --- Before the commit -------------------------------------------------------------------------------------------


def test_new_bytes_are_on_the_disk_before_the_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """While that is open, nobody else can save."""
    put(1)
    synced: list[str] = []
    opened: list[int] = []
    enter, sync = transaction.Atomic.__enter__, os.fsync

    def note_sync(descriptor: int) -> None:
        synced.append(os.pread(descriptor, 100, 0).decode())
        sync(descriptor)

    def note_begin(atomic: Any) -> None:
        opened.append(len(synced))
        enter(atomic)

    monkeypatch.setattr(mirror.os, "fsync", note_sync)
    monkeypatch.setattr(transaction.Atomic, "__enter__", note_begin)

    write_many([change(1), new(2, '{"two": 2}'), change(3, OLD)])

    assert sorted(synced) == sorted([NEW, '{"two": 2}'])
    assert set(opened) == {2}


def test_files_are_synced_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk makes several wait as long as one: each of these is let go only when there is another."""
    together = threading.Barrier(2, timeout=LIMIT)
    monkeypatch.setattr(mirror.os, "fsync", lambda descriptor: together.wait())

    assert outcomes(write_many([new(number) for number in range(4)])) == [Outcome.CREATED] * 4


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize("step", ["open", "write", "fsync"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_disk_that_takes_nothing_refuses_all_and_keeps_nothing(
    configs: Path, announced: list[Message], monkeypatch: pytest.MonkeyPatch, step: str, error: OSError
) -> None:
    put(1)
    announced.clear()
    with nothing_changed(), monkeypatch.context() as patched:
        patched.setattr(mirror.os, step, failing_at_the_third(step, error))
        with pytest.raises(MirrorError, match=r"No room is left|cannot be written"):
            write_many([new(2), change(1), new(3), new(4)])

    assert announced == []
    assert not Announcement.objects.exclude(filename=f"{mac(1)}.json").exists()


def failing_at_the_third(step: str, error: OSError) -> Callable[..., Any]:
    do, calls = getattr(os, step), threading.Semaphore(2)

    def fail(*arguments: Any, **options: Any) -> Any:
        if calls.acquire(blocking=False):
            return do(*arguments, **options)
        raise error

    return fail


@pytest.mark.parametrize(
    "step",
    ["_save", "_keep_versions", "mirror_saved_together", "note_saved_together", "saved_together.send", "note"],
)
def test_what_fails_in_the_middle_leaves_nothing(
    configs: Path, announced: list[Message], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    put(1)
    announced.clear()

    def fail(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError

    if step != "note":
        monkeypatch.setattr(f"devices.writing.{step}", fail)

    with nothing_changed(), pytest.raises(ZeroDivisionError) as caught:  # whose traceback keeps all of it
        write_many([new(2), change(1)], fail)

    assert caught.tb

    assert announced == []
    assert Announcement.objects.count() == 1
    assert dict(Board.objects.values_list("mac_address", "config_sha256")) == {mac(1): sha256(OLD.encode())}


def test_what_the_caller_notes_is_committed_with_the_rows() -> None:
    put(1)
    noted: list[Any] = []

    def note(written: list[Written]) -> None:
        assert connection.in_atomic_block
        noted.append((outcomes(written), DeviceConfig.objects.get(mac_address=mac(1)).content, written[0].version))

    written = write_many([change(1), change(2)], note)

    assert noted == [([Outcome.CHANGED, Outcome.SKIPPED], NEW, written[0].version)]


def test_in_a_longer_transaction_files_wait_for_its_commit(configs: Path) -> None:
    put(1)
    with transaction.atomic():
        write_many([change(1), new(2)])
        assert (configs / f"{mac(1)}.json").read_text() == OLD

    assert contents(configs) == {f"{mac(1)}.json": NEW, f"{mac(2)}.json": NEW}


def test_a_longer_transaction_that_is_rolled_back_takes_all_of_it_back(configs: Path) -> None:
    put(1)
    with nothing_changed(), pytest.raises(ZeroDivisionError), transaction.atomic():
        write_many([change(1), new(2)])
        raise ZeroDivisionError


# --- After the commit --------------------------------------------------------------------------------------------


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[Change]:
    """The changes whose commits are done, for the test to follow: as if other processes were in between."""
    postponed: list[Change] = []
    monkeypatch.setattr(Change, "follow_commit", lambda change: postponed.append(change))
    return postponed


def test_who_saves_between_commit_and_file_wins(configs: Path, late: list[Change]) -> None:
    write_many([new(1), new(2)])
    put(1, content='{"later": 1}')
    *first, second = late

    make_all_equal([second])
    make_all_equal(first)

    assert contents(configs) == {f"{mac(1)}.json": '{"later": 1}', f"{mac(2)}.json": NEW}


def test_what_is_deleted_between_commit_and_file_is_gone(
    configs: Path, late: list[Change], announced: list[Message]
) -> None:
    write_many([new(1), new(2)])
    DeviceConfig.objects.get(mac_address=mac(1)).delete()

    make_all_equal(late)

    assert contents(configs) == {f"{mac(2)}.json": NEW}
    assert [message.filename for message in announced] == [f"{mac(2)}.json"]


def test_a_file_that_cannot_be_put_in_place_is_told_and_not_announced(configs: Path, announced: list[Message]) -> None:
    put(1)
    announced.clear()
    (configs / f"{mac(2)}.json").mkdir()

    written = write_many([change(1), new(2), new(3)])

    assert outcomes(written) == [Outcome.CHANGED, Outcome.BEHIND, Outcome.CREATED]
    assert written[1].reason.startswith(f"The change is saved, but the file of {mac(2)}.json is not up to date: ")
    assert written[1].version is not None
    assert [message.filename for message in announced] == [f"{mac(1)}.json", f"{mac(3)}.json"]
    assert len(list(configs.iterdir())) == 3


def test_a_reader_keeps_the_old_file_while_it_is_replaced(configs: Path) -> None:
    put(1, 2)

    with (configs / f"{mac(1)}.json").open() as reader:
        write_many([change(1), change(2)])

        assert reader.read() == OLD


def test_no_file_is_left_open() -> None:
    put(1, 2)
    write_many([change(1), change(2), new(3), new(4, "[]")])
    before = os.listdir("/proc/self/fd")

    written = write_many([change(1, OLD, NEW), change(2, "[]", NEW), change(3, OLD, OLD), new(5)])
    assert outcomes(written) == [Outcome.CHANGED, Outcome.REFUSED, Outcome.SKIPPED, Outcome.CREATED]

    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_old_files_are_freed_while_nobody_keeps_the_directory_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take milliseconds for each."""
    put(1, 2)
    lock, events = mirror.MirrorStorage.lock, list[str]()

    @contextmanager
    def watch(storage: mirror.MirrorStorage) -> Iterator[None]:
        with lock(storage):
            kept = [os.fstat(int(name)).st_nlink for name in os.listdir("/proc/self/fd") if is_of(storage, name)]
            yield
            gone = [name for name in os.listdir("/proc/self/fd") if is_gone(storage, name)]
            events.append(f"{len(kept)} staged, {len(gone)} still to be freed")

    monkeypatch.setattr(mirror.MirrorStorage, "lock", watch)
    write_many([change(1), change(2)])

    assert events == ["2 staged, 2 still to be freed"]


def is_of(storage: mirror.MirrorStorage, descriptor: str) -> bool:
    return path_of(descriptor).startswith(str(storage.directory / ".new-"))


def is_gone(storage: mirror.MirrorStorage, descriptor: str) -> bool:
    path = path_of(descriptor)
    return path.startswith(str(storage.directory)) and path.endswith("(deleted)")


def path_of(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:  # of the listing itself
        return ""


# --- Cost --------------------------------------------------------------------------------------------------------


def test_many_cost_as_many_statements_as_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iotsupport.mirror.after_commit.HOLD_SECONDS", LIMIT)  # however busy the machine is
    put(*range(30))

    few = statements([change(0), change(1), new(100), new(101)])
    many = statements([*[change(n) for n in range(2, 30)], *[new(n) for n in range(102, 130)]])

    assert len(many) == len(few)
    assert len(few) <= (17 if is_shared(connection) else 13), few


def statements(writes: list[Write]) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        assert all(outcome.is_saved for outcome in outcomes(write_many(writes)))
    return [query["sql"][:60] for query in queries]


def test_a_batch_has_room_for_all_its_open_files() -> None:
    """Twice that of them are open while it is put in place; 1,024 is what a process usually may."""
    assert writing.TOGETHER * 2 < 1024 / 2
