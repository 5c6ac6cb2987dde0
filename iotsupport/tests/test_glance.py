"""What is looked up once a second, for whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iotsupport.monitoring import glance
from iotsupport.monitoring.glance import MOST_WAITING, BusyError, Glance, Recent
from iotsupport.tests.support.waiting import LIMIT, eventually, poll


@pytest.fixture(autouse=True)
def serving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    is_serving = threading.Event()
    is_serving.set()
    monkeypatch.setattr(glance, "_is_serving", is_serving)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    # However busy the machine is; some tests shorten one of them.
    monkeypatch.setattr(glance, "FRESH_SECONDS", LIMIT)
    monkeypatch.setattr(glance, "PATIENCE_SECONDS", LIMIT)


@pytest.fixture
def looks() -> list[bytes]:
    return []


def one_more(looks: list[bytes]) -> bytes:
    looks.append(b"%d" % len(looks))
    return looks[-1]


def test_many_see_what_one_looked_up(looks: list[bytes]) -> None:
    seen = Glance("test", lambda: one_more(looks))

    with ThreadPoolExecutor(8) as threads:
        assert {each.result() for each in [threads.submit(seen.get) for _ in range(100)]} == {b"0"}


def test_another_process_sees_it_too(looks: list[bytes]) -> None:
    assert Glance("test", lambda: one_more(looks)).get() == b"0"

    assert Glance("test", lambda: one_more(looks)).get() == b"0"


def test_it_is_looked_up_anew_after_a_second(looks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Glance("test", lambda: one_more(looks))
    assert seen.get() == b"0"

    monkeypatch.setattr(glance, "FRESH_SECONDS", 0)

    assert seen.get() == b"1"


def test_what_was_seen_before_the_machine_was_started_is_not_fresh(looks: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "test.page").write_bytes(glance.LOOKED_AT.pack(10**9) + b"long ago")

    assert Glance("test", lambda: one_more(looks)).get() == b"0"


@pytest.mark.parametrize("directory", ["missing", ""])
def test_without_a_place_to_share_it_each_process_looks(
    looks: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: str
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / directory) if directory else "")

    assert Glance("test", lambda: one_more(looks)).get() == b"0"
    assert Glance("test", lambda: one_more(looks)).get() == b"1"


class Slow:
    """A look that ends when it is let."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> bytes:
        self.has_begun.set()
        assert self.may_end.wait(LIMIT)
        return b"at last"


def test_nobody_waits_for_a_look_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "PATIENCE_SECONDS", 0.05)
    look = Slow()
    here = Glance("test", look)

    # Who began it, whoever asks then, and somebody in another process.
    for asked in [here, here, Glance("test", look)]:
        with pytest.raises(TimeoutError):
            asked.get()

    look.may_end.set()
    assert poll(lambda: _try(here), lambda seen: seen is not None) == b"at last"


def _try(seen: Glance) -> bytes | None:
    try:
        return seen.get()
    except TimeoutError:
        return None


def _has_no_place(seen: Glance) -> bool:
    if is_free := seen._places.acquire(blocking=False):
        seen._places.release()
    return not is_free


def test_few_wait_for_a_look() -> None:
    look = Slow()
    seen = Glance("test", look)

    with ThreadPoolExecutor(MOST_WAITING) as threads:
        waiting = [threads.submit(seen.get) for _ in range(MOST_WAITING)]
        eventually(lambda: _has_no_place(seen))
        with pytest.raises(BusyError):
            seen.get()
        look.may_end.set()
        assert {each.result() for each in waiting} == {b"at last"}


def test_where_the_system_has_no_thread_for_a_look_it_is_as_if_too_many_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    seen = Glance("test", lambda: b"fine")
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", refuse)

        with pytest.raises(BusyError, match="The look at test cannot begin: can't start new thread"):
            seen.get()

    assert seen.get() == b"fine"


def test_others_take_what_was_seen_a_moment_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "RECENT_SECONDS", LIMIT)
    monkeypatch.setattr(glance, "FRESH_SECONDS", 0)
    look = Slow()
    answers: Iterator[Callable[[], bytes]] = iter([lambda: b"before", look])
    seen = Glance("test", lambda: next(answers)())
    assert seen.get() == b"before"

    with ThreadPoolExecutor(MOST_WAITING) as threads:
        waiting = [threads.submit(seen.get) for _ in range(MOST_WAITING)]
        eventually(lambda: _has_no_place(seen))
        assert seen.get() == b"before"
        monkeypatch.setattr(glance, "RECENT_SECONDS", 0)
        with pytest.raises(BusyError):
            seen.get()
        look.may_end.set()
        assert {each.result() for each in waiting} == {b"at last"}


def test_a_look_that_fails_is_not_kept(looks: list[bytes]) -> None:
    answers = iter([None, b"works"])

    def look() -> bytes:
        answer = next(answers)
        if answer is None:
            raise ValueError
        return answer

    seen = Glance("test", look)
    with pytest.raises(ValueError):
        seen.get()

    assert seen.get() == b"works"


# --- What is quickly looked up, in each process by itself ------------------------------------------------------------


def test_in_a_second_one_looks_for_all_of_a_process(looks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Recent(lambda: one_more(looks))

    assert {seen.get() for _ in range(10)} == {b"0"}
    monkeypatch.setattr(glance, "FRESH_SECONDS", 0)
    assert seen.get() == b"1"


def test_whoever_comes_while_somebody_looks_takes_what_was_seen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "FRESH_SECONDS", 0)
    look = Slow()
    answers: Iterator[Callable[[], bytes]] = iter([lambda: b"before", look])
    seen = Recent(lambda: next(answers)())
    assert seen.get() == b"before"

    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(seen.get)
        assert look.has_begun.wait(LIMIT)
        assert seen.get() == b"before"
        look.may_end.set()
        assert looking.result() == b"at last"


def test_a_command_looks_each_time(looks: list[bytes]) -> None:
    glance._is_serving.clear()
    seen = Recent(lambda: one_more(looks))

    assert [seen.get(), seen.get()] == [b"0", b"1"]
