"""Strangers' passwords are looked at one after the other, by all processes of a server together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iotsupport.accounts import password_checks
from iotsupport.accounts.password_checks import BURST, MOST_WAITING, SHARE, Busy, PasswordChecks
from iotsupport.tests.support.waiting import LIMIT, eventually


class Clock:
    seconds = cpu_seconds = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_checks(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], PasswordChecks]:
    """As each process of a server has them."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return lambda: PasswordChecks(lambda: clock.seconds, lambda: clock.cpu_seconds)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def fail(checks: PasswordChecks, clock: Clock, cost: float = 1.0) -> None:
    with checks.one():
        clock.cpu_seconds += cost


def seconds_of(checks: PasswordChecks) -> float:
    with pytest.raises(Busy) as busy, checks.one():
        raise AssertionError
    return busy.value.seconds


def test_processes_share_what_strangers_may_cost(make_checks, clock):
    one, other = make_checks(), make_checks()
    for number in range(BURST):
        fail([one, other][number % 2], clock)

    assert seconds_of(one) == seconds_of(other) == 1 / SHARE
    clock.seconds += 1 / SHARE
    fail(other, clock)
    assert seconds_of(one) == 1 / SHARE


@pytest.mark.parametrize("costs", [[3.0] * BURST, [0.125] * BURST, [30.0, 0.125]])
def test_how_many_a_minute_follows_from_what_they_cost(make_checks, clock, costs):
    checks = make_checks()
    for cost in costs:
        fail(checks, clock, cost)

    assert seconds_of(checks) == pytest.approx(costs[-1] / SHARE)


def test_a_right_password_costs_others_nothing(make_checks, clock):
    checks = make_checks()
    for _ in range(BURST * 3):
        with checks.one() as check:
            clock.cpu_seconds += 1
            check.is_free = True


def test_what_was_written_before_the_machine_started_again_holds_nobody_up(make_checks, clock):
    clock.seconds = 1_000_000.0
    for _ in range(BURST):
        fail(make_checks(), clock)

    clock.seconds = 10.0  # counted anew from each start
    fail(make_checks(), clock)


def test_a_check_that_breaks_lets_the_next_begin(make_checks, clock):
    checks = make_checks()
    for _ in range(BURST):
        with pytest.raises(ValueError, match="broken"), checks.one():
            clock.cpu_seconds += 1
            raise ValueError("broken")

    assert seconds_of(checks) == 1 / SHARE


@pytest.mark.parametrize("directory", [None, "missing"])
def test_without_a_place_for_the_file_each_process_looks_for_itself(
    make_checks, clock, monkeypatch, tmp_path, directory
):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / directory) if directory else "")
    one, other = make_checks(), make_checks()
    for _ in range(BURST):
        fail(one, clock)

    assert seconds_of(one) == 1 / SHARE
    fail(other, clock)


def test_few_wait_for_who_is_looked_at(make_checks, threads):
    checks, is_over = make_checks(), threading.Event()
    together: list[int] = []

    def look() -> int:
        with checks.one() as check:
            check.is_free = True
            together.append(1)
            seen = len(together)
            assert is_over.wait(LIMIT)
            together.pop()
            return seen

    looking = [threads.submit(look) for _ in range(1 + MOST_WAITING)]
    eventually(lambda: together and checks._places._value == 0)
    assert seconds_of(checks) >= 1
    is_over.set()

    assert [each.result(LIMIT) for each in looking] == [1] * (1 + MOST_WAITING)
    with checks.one():
        pass


@pytest.mark.parametrize("is_another_process", [False, True])
def test_nobody_waits_for_long(make_checks, monkeypatch, is_another_process):
    monkeypatch.setattr(password_checks, "PATIENCE_SECONDS", 0.05)
    checks = make_checks()
    other = make_checks() if is_another_process else checks
    with checks.one():
        assert seconds_of(other) >= 1

    with other.one():
        pass
