"""Django's backend for SQLite with many who write at once, and connections that are kept between requests.

Whoever writes waits for its turn first (:mod:`iotsupport.database.sqlite.turns`): before a transaction begins, and
before a statement that writes outside of one. While a process serves, a connection that is closed is kept for the next
request (:mod:`iotsupport.database.sqlite.kept`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

from django.db.backends.sqlite3 import base

from iotsupport.database.sqlite import PrivateConnection, is_file, kept, set_busy_timeout
from iotsupport.database.sqlite.turns import NO_TURN, Turn, queue_of

# What begins a statement that writes, of those that run outside of a transaction: the rest of it is definitions.
WRITES = {"INSERT", "UPDATE", "DELETE", "REPLAC"}

# Whoever waited so long for its turn waits so much less for SQLite's lock.
NOTICED_SECONDS = 0.1


class Cursor(base.SQLiteCursorWrapper):
    """Django's; a statement that writes outside of a transaction waits for its turn."""

    def __init__(self, connection: sqlite3.Connection, wrapper: DatabaseWrapper) -> None:
        super().__init__(connection)
        self._wrapper = wrapper

    def execute(self, query: str, params: Any = None) -> Any:
        if self.connection.in_transaction or query.lstrip()[:6].upper() not in WRITES:
            return super().execute(query, params)
        with self._wrapper.turn():
            return super().execute(query, params)

    def executemany(self, query: str, param_list: Any) -> Any:
        if self.connection.in_transaction:
            return super().executemany(query, param_list)
        with self._wrapper.turn():
            return super().executemany(query, param_list)


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with a turn for each transaction, and what is said in this module's docstring."""

    connection: Any

    patience_seconds: float | None = None
    """How long others are waited for, where that is not as long as the settings say; half of it in the queue."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._usual_seconds = 5.0
        self._turn = NO_TURN
        self._cursors: WeakSet[Cursor] = WeakSet()
        self._has_failed = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for it, and have it while the block runs. Raises what SQLite does when it is locked for too long."""
        turn = self._wait()
        try:
            yield
        finally:
            self._wait_as_usual(turn)
            turn.leave()

    def _start_transaction_under_autocommit(self) -> None:
        with self.wrap_database_errors:
            turn = self._wait()
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            turn.leave()
            raise
        finally:
            self._wait_as_usual(turn)
        self._turn = turn

    def _wait(self) -> Turn:
        name = str(self.settings_dict["NAME"])
        if not is_file(name):
            return NO_TURN
        began = time.monotonic()
        try:
            turn = queue_of(name).wait(self.timeout_seconds)
        except TimeoutError as late:
            if self.patience_seconds is not None:
                return NO_TURN  # where many write, its turn would never come in time
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_BUSY, "SQLITE_BUSY"
            raise error from late
        waited = time.monotonic() - began
        if waited >= NOTICED_SECONDS and self.patience_seconds is None:
            turn.is_late = True
            set_busy_timeout(self.connection, max(self.timeout_seconds - waited, 0))
        return turn

    def _wait_as_usual(self, turn: Turn) -> None:
        if turn.is_late:
            set_busy_timeout(self.connection, self.timeout_seconds)

    @property
    def timeout_seconds(self) -> float:
        """How long turn and lock are waited for, together; or each, where there is little patience for both."""
        return self._usual_seconds if self.patience_seconds is None else self.patience_seconds / 2

    def _leave_turn(self) -> None:
        turn, self._turn = self._turn, NO_TURN
        turn.leave()

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        self._leave_turn()

    def _rollback(self) -> None:
        self._has_failed |= self.errors_occurred  # which is forgotten with what is rolled back
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._leave_turn()

    # --- Connections ---

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        self._has_failed = False
        self._cursors = WeakSet()
        self._usual_seconds = float(conn_params.get("timeout", self._usual_seconds))
        return kept.take(str(conn_params["database"])) or super().get_new_connection(conn_params)

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = self.connection.cursor(factory=self._make_cursor)
        self._cursors.add(cursor)
        return cursor

    def _make_cursor(self, connection: sqlite3.Connection) -> Cursor:
        return Cursor(connection, self)

    def is_usable(self) -> bool:
        # Asked where something failed: one that was opened while its file could not be written never could.
        return not self.errors_occurred

    def _close(self) -> None:
        try:
            if not self._keep():
                self._let_go()
                super()._close()  # type: ignore[misc]
        finally:
            self._leave_turn()

    def _let_go(self) -> None:
        """End what SQLite would go on with: a closed connection keeps its transaction while a cursor is left of it.

        One is, for as long as somebody holds the traceback of what failed: nobody else could write meanwhile.
        """
        with suppress(sqlite3.Error):
            self._close_cursors()
            self.connection.rollback()

    def _close_cursors(self) -> None:
        for cursor in list(self._cursors):
            cursor.close()

    def _keep(self) -> bool:
        if self.in_atomic_block or self.errors_occurred or self._has_failed:
            return False
        if not isinstance(self.connection, PrivateConnection) or self.connection.in_transaction:
            return False
        self._close_cursors()  # one that was not read to its end would show what is past to the next request, too
        return kept.keep(self.connection)
