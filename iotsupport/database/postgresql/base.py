"""PostgreSQL that may be slow, frozen or away while requests are served.

Django's backend and psycopg's pool wait without end for a server that took a query and answers nothing (a frozen
virtual machine, a disk that hangs): its own ``statement_timeout`` is frozen with it, and the kernel takes what is sent.
While a process serves, each answer is waited for with a limit of our own, and while there is none, one request at a
time tries again: the others are refused at once. Commands wait as long as their work takes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg.abc import PQGen
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

# After so long, the server ends a statement itself.
STATEMENT_SECONDS = 15.0
# So long any answer is waited for: longer, for one that is only slow says so.
ANSWER_SECONDS = 20.0
# So long the answer to no question at all, which a server that works gives at once.
CHECK_SECONDS = 2.0

_is_serving = threading.Event()
# Set while the server is known to answer nothing.
_is_silent = threading.Event()
# Held by whoever tries whether it does again.
_trying = threading.Lock()
# Held while a pool is taken from where all threads find it.
_taking_out = threading.Lock()
# Why the last connection could not be made; empty where it could.
_why: list[str] = []
# A thread's own limit.
_limits = threading.local()


def serve(**kwargs: Any) -> None:
    """Wait for nothing without end, from now on."""
    _is_serving.set()


class NoAnswerError(psycopg.OperationalError):
    """The server took a question, or a connection, and answers nothing."""


class Connection(psycopg.Connection[Any]):
    """One of psycopg's that is lost when an answer takes too long."""

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Self:
        try:
            connection = super().connect(*args, **kwargs)
        except psycopg.Error as error:
            _why[:] = [str(error)]
            if isinstance(error, psycopg.errors.ConnectionTimeout):
                _begin_silence()
            raise
        _why.clear()
        return connection

    def wait(self, gen: PQGen[Any], *args: Any, **kwargs: Any) -> Any:
        if not _is_serving.is_set():
            return super().wait(gen, *args, **kwargs)
        seconds = getattr(_limits, "seconds", ANSWER_SECONDS)
        try:
            return super().wait(_bounded(gen, time.monotonic() + seconds), *args, **kwargs)
        except NoAnswerError:
            _begin_silence()
            # An answer that came later would be taken for that to the next question.
            self.pgconn.finish()
            raise


def _bounded(gen: PQGen[Any], deadline: float) -> PQGen[Any]:
    """Do as psycopg's generator, which is asked again some times a second while nothing comes."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() >= deadline:
                raise NoAnswerError("The database does not answer.")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


def _begin_silence() -> None:
    if _is_serving.is_set():
        _is_silent.set()


class Pool(ConnectionPool[Connection]):
    """psycopg's, but nobody waits long for a connection that is known not to come."""

    def getconn(self, timeout: float | None = None) -> Connection:
        """Return a connection that works. Raises ``psycopg.OperationalError``."""
        with _one_at_a_time():
            connection = self._find(time.monotonic() + (self.timeout if timeout is None else timeout))
        _is_silent.clear()
        return connection

    def _find(self, deadline: float) -> Connection:
        self.open()  # Made by a thread while another one closed what was there before.
        while True:
            try:
                connection = super().getconn(max(deadline - time.monotonic(), 0))
            except (PoolClosed, PoolTimeout) as error:
                # The pool alone knows why, and only logs it.
                raise type(error)(": ".join([str(error), *_why])) from None
            try:
                with _patience(CHECK_SECONDS):
                    self.check_connection(connection)
            except NoAnswerError:
                self.putconn(connection)
                raise
            except psycopg.Error:  # It was lost, and is left out now.
                self.putconn(connection)
            else:
                return connection

    def reconnect_failed(self) -> None:
        """Tell whoever waits for a connection now that there is none; the next request starts with a new pool.

        Left alone, each request waits for its whole timeout, though the server refuses at once; and when it is back,
        the lost connections are found one by one, with a longer pause after each.
        """
        # Closing waits for the pool's threads, of which this is one.
        threading.Thread(target=DatabaseWrapper.discard, args=[self], daemon=True).start()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """While the server is silent, let one thread try. Raises :class:`NoAnswerError` for the others."""
    if not _is_silent.is_set():
        yield
        return
    if not _trying.acquire(blocking=False):
        raise NoAnswerError("The database does not answer. Whether it does again, is being tried.")
    try:
        yield
    finally:
        _trying.release()


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let this thread wait so long for an answer."""
    _limits.seconds = seconds
    try:
        yield
    finally:
        del _limits.seconds


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with :class:`Pool`; any number of threads may close it."""

    _connection_pools: dict[str, Pool]

    @property
    def pool(self) -> Pool | None:
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        found = self._connection_pools.get(self.alias)
        if found is None:
            made: Pool = Pool(
                kwargs={**self.get_connection_params(), "autocommit": True},
                connection_class=Connection,
                configure=self._configure,
                open=False,
                **options,
            )
            found = self._connection_pools.setdefault(self.alias, made)
        return found

    def close_pool(self) -> None:
        """Close it, so that the next who needs it makes a new one. Idempotent."""
        with _taking_out:
            pool = self._connection_pools.pop(self.alias, None)
        if pool is not None:
            pool.close()

    @classmethod
    def discard(cls, pool: Pool) -> None:
        """Close a pool, and let nobody find it any more; a newer one stays. Idempotent."""
        with _taking_out:
            for alias, found in list(cls._connection_pools.items()):
                if found is pool:
                    del cls._connection_pools[alias]
        pool.close()

    def _configure(self, connection: Connection) -> None:
        self._configure_connection(connection)  # type: ignore[attr-defined]
        if _is_serving.is_set():
            connection.execute(f"SET statement_timeout = {int(STATEMENT_SECONDS * 1000)}")


# Of the parent: its threads are not here, so that nobody gets a connection of them; and whoever closes one ends the
# parent's. They are never collected.
_pools_of_parent: list[dict[str, Pool]] = []


def _leave_pools() -> None:
    global _trying, _taking_out
    _trying, _taking_out = threading.Lock(), threading.Lock()  # a thread that is not here may have had them
    _pools_of_parent.append(dict(DatabaseWrapper._connection_pools))
    DatabaseWrapper._connection_pools.clear()


os.register_at_fork(after_in_child=_leave_pools)
