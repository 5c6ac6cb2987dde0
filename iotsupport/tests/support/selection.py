"""Which tests run here, and in which order. A plugin of pytest, named in the root ``conftest.py``.

Each test runs on SQLite. Those for which a database can make a difference say so with ``both_databases``, and run on
PostgreSQL, too: with the first of its parameters alone where it says ``once=True``. What is about PostgreSQL itself,
marked with ``postgresql``, runs there alone. ``make test`` runs both halves side by side. A test that starts processes
is marked with ``processes``, or uses a fixture of :data:`PROCESS_FIXTURES`: ``make quick`` leaves it out. Marked with
neither, it is not let start one.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from iotsupport.tests.support.databases import DATABASE, DATABASES
from iotsupport.tests.support.ordering import shares_with_its_module, shuffled

# Whatever uses one of these has processes, or starts some.
PROCESS_FIXTURES = {
    "broker",
    "browser",
    "certificates",
    "connected",
    "disk",
    "either",
    "installation",
    "make_broker",
    "shared_broker",
    "template",
}

# Python's audit events (Library Reference, "Audit events table") of a process that starts another.
STARTING_EVENTS = {"os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}

# Their tests share what is made once for the module: one of pytest-xdist's workers runs all of them. The longest first.
TOGETHER = [
    f"{path}.py"
    for path in [
        "iotsupport/tests/test_nodes",
        "iotsupport/tests/test_nodes_noting",
        "iotsupport/tests/test_browser",
        "iotsupport/tests/test_nginx",
        "iotsupport/tests/test_nginx_noting",
        "iotsupport/tests/test_device_sign_in_server",
        "iotsupport/tests/test_run",  # these wait for each other
        "iotsupport/tests/test_gunicorn_conf",
        "iotsupport/tests/test_hostile_clients",
        "iotsupport/tests/test_postgresql",
        "iotsupport/tests/test_slow_clients",
        "iotsupport/tests/test_concurrency",
        "iotsupport/tests/test_broken_surroundings",
        "iotsupport/tests/test_metrics_server",
        "iotsupport/tests/test_announcing_server",
        "iotsupport/tests/test_announcements_browser",
        "iotsupport/tests/test_versions_browser",
        "iotsupport/tests/test_editing_browser",
        "iotsupport/tests/test_types_browser",
        "iotsupport/tests/test_changes_browser",
        "iotsupport/tests/test_sign_in_browser",
        "iotsupport/tests/test_disk_trouble",
        "notifications/tests/test_simulate_devices",
        "iotsupport/tests/test_uploads_server",
        "iotsupport/tests/test_pool",
        "iotsupport/tests/test_oidc",
    ]
]

# What a module says in which some test runs on PostgreSQL.
OPTING_IN = re.compile(r"\bmark\.(?:both_databases|postgresql)\b|\bmarathon\b")

# What takes long begins first: what is left at the end is so short that no core waits for the other.
LONGEST_FIRST = ["marathon", "processes"]


def pytest_configure(config: pytest.Config) -> None:
    if DATABASE not in DATABASES:
        raise pytest.UsageError(f"TEST_DATABASE is {DATABASE!r}, but it must be {' or '.join(DATABASES)}.")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """On PostgreSQL, do not even read the modules of which no test runs there: each of the run's processes would."""
    if DATABASE == "postgresql" and collection_path.match("test_*.py") and not names_a_mark(collection_path):
        return True
    return None  # others are asked


def names_a_mark(module: Path) -> bool:
    """Whether some test in it can belong to PostgreSQL; those of ``marathons.py`` do where they are whole."""
    return bool(OPTING_IN.search(module.read_text()))


# First: -m judges by the marks that are set here, and pytest-xdist by the order.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not belong to this database, mark what has processes, and put the longest first."""
    for item in items:
        if shares_with_its_module(item) and module_of(item.nodeid) not in TOGETHER:
            raise pytest.UsageError(f"{module_of(item.nodeid)} makes something once for its tests: add it to TOGETHER.")
        if PROCESS_FIXTURES & set(getattr(item, "fixturenames", [])):
            item.add_marker("processes")
    for path in {item.path for item in items if belongs_to("postgresql", marks_of(item))}:
        if not names_a_mark(path):
            raise pytest.UsageError(f"{path} does not name the mark of its tests itself: PostgreSQL would not read it.")
    here = [item for item in items if belongs_to(DATABASE, marks_of(item))]
    kept = set(here)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    seed = os.environ.get("RANDOM_ORDER")
    items[:] = shuffled(here, seed) if seed else sorted(here, key=rank_of)


# New objects until it is looked for garbage: a page makes thousands, and nearly all of them go by themselves.
OBJECTS_BEFORE_GARBAGE = 20_000


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is loaded stays to the end: it is not looked through for garbage, now (``conftest.py``) or later."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(OBJECTS_BEFORE_GARBAGE)
        gc.enable()


def rank_of(item: pytest.Item) -> int:
    return rank(module_of(item.nodeid), marks_of(item))


def marks_of(item: pytest.Item) -> set[str]:
    names = {mark.name for mark in item.iter_markers()}
    return names - {"both_databases"} if is_a_repeat(item) else names


def is_a_repeat(item: pytest.Item) -> bool:
    """Whether it has other parameters than the first of a test that runs ``once`` on PostgreSQL."""
    mark = item.get_closest_marker("both_databases")
    called = getattr(item, "callspec", None)
    return bool(mark and mark.kwargs.get("once") and called and any(called.indices.values()))


def belongs_to(database: str, marks: Set[str]) -> bool:
    """Whether a test with these marks runs on a database."""
    if database == "postgresql":
        return bool(marks & {"both_databases", "postgresql"}) and "sqlite" not in marks
    return "postgresql" not in marks


def rank(module: str, marks: Set[str]) -> int:
    """A test's place among the others: the lower, the earlier."""
    if module in TOGETHER:
        return TOGETHER.index(module)
    kind = next((place for place, mark in enumerate(LONGEST_FIRST) if mark in marks), len(LONGEST_FIRST))
    return len(TOGETHER) + kind


def module_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def scope_of(nodeid: str) -> str:
    """What one worker runs all of."""
    return module_of(nodeid) if module_of(nodeid) in TOGETHER else nodeid


class Scheduling(LoadScopeScheduling):
    """Gives each test to whichever worker is free, but those of a module in :data:`TOGETHER` to one.

    ``--dist loadgroup`` would do that by marks, if pytest-xdist 3.8 could still change the names of pytest 9.2's tests.
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """Forget what is done: after each test, pytest-xdist counts what a worker was ever given."""
        super().mark_test_complete(node, item_index, duration)
        given = self.assigned_work[node]
        scope = scope_of(self.registered_collections[node][item_index])
        if all(given[scope].values()):
            del given[scope]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


class ProcessGuard:
    """Lets no test start a process that is not marked for it. An audit hook cannot be removed: there is one a run."""

    def __init__(self) -> None:
        self.running: pytest.Item | None = None
        sys.addaudithook(self._judge)

    def _judge(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTING_EVENTS and self.running and "processes" not in marks_of(self.running):
            raise RuntimeError(f"{self.running.nodeid} starts a process: mark it with pytest.mark.processes.")


_guard = ProcessGuard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _guard.running = item
    try:
        return (yield)
    finally:
        _guard.running = None
