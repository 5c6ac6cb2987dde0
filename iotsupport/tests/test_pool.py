"""PostgreSQL's connections: nobody waits without end for one that answers nothing, unless the work takes as long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import django.db
import pytest
from django.db.utils import ConnectionHandler

from iotsupport.database.postgresql import base
from iotsupport.errors import is_outage
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.postgresql import PostgreSQL
from iotsupport.tests.support.waiting import LIMIT

# Seconds, with which the tests need not wait long.
SHORT = 0.3


@pytest.fixture
def is_serving(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Of the process; not set yet."""
    is_serving = threading.Event()
    monkeypatch.setattr(base, "_is_serving", is_serving)
    monkeypatch.setattr(base, "_is_silent", threading.Event())
    # However busy the machine is; some tests shorten one of them.
    monkeypatch.setattr(base, "ANSWER_SECONDS", float(LIMIT))
    monkeypatch.setattr(base, "CHECK_SECONDS", float(LIMIT))
    return is_serving


def open_connections(url: str) -> Any:
    """A database's connections, one for each thread, as an installation has them."""
    options = {"connect_timeout": 2, "pool": {"min_size": 0, "max_size": 4, "timeout": 2, "reconnect_timeout": 0}}
    found = {**_database(url), "CONN_HEALTH_CHECKS": True, "OPTIONS": options}
    return ConnectionHandler({"default": {}, "tried": found})


def _database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "ENGINE": "iotsupport.database.postgresql",
        "HOST": parts.hostname,
        "PORT": parts.port,
        "NAME": parts.path[1:],
        "USER": parts.username,
        "PASSWORD": parts.password,
    }


def test_two_may_close_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = open_connections(f"postgresql://x:x@127.0.0.1:{free_port()}/x")
    has_begun, may_end = threading.Event(), threading.Event()
    close = base.Pool.close

    def close_slowly(pool: base.Pool, *args: Any) -> None:
        if not has_begun.is_set():
            has_begun.set()
            assert may_end.wait(LIMIT)
        close(pool, *args)

    monkeypatch.setattr(base.Pool, "close", close_slowly)
    pool = connections["tried"].pool
    with ThreadPoolExecutor(1) as threads:
        closing = threads.submit(connections["tried"].close_pool)
        assert has_begun.wait(LIMIT)
        connections["tried"].close_pool()
        newer = connections["tried"].pool
        base.DatabaseWrapper.discard(pool)
        may_end.set()
        closing.result()

    assert connections["tried"].pool is newer is not pool
    connections["tried"].close_pool()


# --- With a server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    postgresql = PostgreSQL().start()
    yield postgresql
    postgresql.close()


@pytest.fixture
def connections(postgresql: PostgreSQL, is_serving: threading.Event, django_db_blocker: Any) -> Iterator[Any]:
    connections = open_connections(f"{postgresql.url}/postgres")
    with django_db_blocker.unblock():
        yield connections
        connections["tried"].close()
        connections["tried"].close_pool()


def ask(connections: Any, question: str = "SELECT 1") -> Any:
    with connections["tried"].cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()[0]


class TestWithAServer:
    pytestmark = [pytest.mark.postgresql, pytest.mark.processes]

    def test_an_answer_that_does_not_come_is_not_waited_for(
        self, postgresql: PostgreSQL, connections: Any, is_serving: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        is_serving.set()
        assert ask(connections) == 1

        with postgresql.frozen(), monkeypatch.context() as hurried:
            hurried.setattr(base, "ANSWER_SECONDS", SHORT)
            hurried.setattr(base, "CHECK_SECONDS", SHORT)
            # One that is asked, then one that is to be made.
            for _ in range(2):
                with pytest.raises(django.db.OperationalError) as caught:
                    ask(connections)
                assert is_outage(caught.value)
                connections["tried"].close()

        assert ask(connections) == 1

    def test_while_it_is_silent_one_tries_and_the_others_are_refused(
        self, postgresql: PostgreSQL, connections: Any, is_serving: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        is_serving.set()
        assert ask(connections) == 1
        connections["tried"].close()  # back to the pool

        with postgresql.frozen(), monkeypatch.context() as hurried:
            hurried.setattr(base, "CHECK_SECONDS", SHORT)
            with pytest.raises(django.db.OperationalError, match="does not answer"):
                ask(connections)

        with base._trying, pytest.raises(django.db.OperationalError, match="is being tried"):  # by somebody else
            ask(connections)
        assert ask(connections) == 1
        connections["tried"].close()
        with base._trying:
            assert ask(connections) == 1

    def test_a_statement_that_takes_too_long_is_ended_by_the_server(
        self, connections: Any, is_serving: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base, "STATEMENT_SECONDS", 1.0)  # which the short one has, too
        is_serving.set()

        with pytest.raises(django.db.OperationalError, match="statement timeout") as caught:
            ask(connections, "SELECT pg_sleep(60)")

        assert is_outage(caught.value)
        assert ask(connections) == 1

    def test_the_work_of_a_command_takes_as_long_as_it_takes(
        self, connections: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ["STATEMENT_SECONDS", "ANSWER_SECONDS", "CHECK_SECONDS"]:
            monkeypatch.setattr(base, name, SHORT)

        assert ask(connections, "SELECT 'done' FROM pg_sleep(1)") == "done"
