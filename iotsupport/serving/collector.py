"""How the worker comes by the bodies of requests, without a thread and before the application takes them.

Small ones are anybody's. Of a larger one, the application is asked whose it is and how much that may be, given the head
alone: only then is it read.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from selectors import EVENT_READ
from typing import TYPE_CHECKING, Any

from gunicorn.http import wsgi
from gunicorn.http.body import ChunkedReader

from iotsupport.serving import bodies, refusals
from iotsupport.serving.bodies import (
    Allowance,
    BodyInChunks,
    BodyTooLarge,
    BodyTrouble,
    Reservations,
    StreamedBody,
    UnreadBody,
)
from iotsupport.serving.connections import Connection, Step, half_of_the_largest_crowd
from iotsupport.serving.lanes import Lane

if TYPE_CHECKING:
    from iotsupport.serving.worker import Worker

# How long a body that may come waits for room, and a stranger's request for its turn.
IN_LINE_SECONDS = 30.0

# Of the threads, strangers have so many: each that computes has the main thread wait for the interpreter, and signing
# in takes seconds. So many others wait for their turn.
STRANGERS_AT_ONCE = 4
STRANGERS_IN_LINE = 500


class Collector:
    """The bodies of one worker. All but the application's answer happens in its main thread."""

    def __init__(self, worker: Worker, grace_seconds: float) -> None:
        self._worker, self._grace_seconds = worker, grace_seconds
        self._reservations: Reservations[Connection] = Reservations(bodies.RESERVED_BYTES)
        self._in_line: dict[Connection, float] = {}
        self._strangers: Lane[Connection] = Lane(STRANGERS_AT_ONCE)
        # Threads wait for these; the others are for requests that have come whole.
        self._streams: set[Connection] = set()
        self._most_streams = max(worker.cfg.threads * 3 // 4, 1)

    def begin(self, conn: Connection) -> None:
        """Have a request answered whose head is parsed."""
        request = conn.parser.mesg
        # gunicorn would send it when the application begins, which waits for the body.
        conn.expects_continue, request._expected_100_continue = request._expected_100_continue, False
        if isinstance(request.body.reader, ChunkedReader):
            self._run_without(conn, BodyInChunks("Send the body with its Content-Length, not in chunks."))
        elif not conn.body_length:
            self._run(conn)
        else:
            conn.find_network()
            if conn.body_length <= bodies.SMALL_BODY_BYTES:
                self._collect(conn)
            elif self._worker.hold(conn, len(conn.body)):
                self._ask(conn)

    def read(self, conn: Connection) -> None:
        """Take what has come of a body."""
        received = os.read(conn.sock.fileno(), min(conn.body_length - len(conn.body), bodies.CHUNK_BYTES))
        if received:
            conn.body += received
            self._go_on(conn)
        else:
            self.give_up(conn, bodies.incomplete)

    def give_up(self, conn: Connection, trouble: Callable[[int, int], BodyTrouble]) -> None:
        self._worker.refuse(conn, refusals.of_trouble(trouble(len(conn.body), conn.body_length)))

    def release(self, conn: Connection) -> None:
        """Let others have the room that a request had."""
        self._streams.discard(conn)
        self._strangers.leave(conn)
        self._in_line.pop(conn, None)
        if not self._reservations.give_back(conn):
            return
        for waiting in list(self._in_line):
            if not self._reservations.take(waiting, waiting.body_length):
                break
            del self._in_line[waiting]
            self._worker.take(self._collect, waiting)

    def refuse_late(self, now: float) -> None:
        """Refuse those who have waited for room, or for their turn, too long."""
        self._refuse_all(conn for conn, deadline in list(self._in_line.items()) if deadline <= now)
        self._refuse_all(conn for conn in self._strangers.waiting() if conn.deadline <= now)

    def _refuse_all(self, conns: Iterable[Connection]) -> None:
        for conn in conns:
            self._worker.take(partial(self._worker.refuse, refusal=refusals.FULL), conn)

    def _run(self, conn: Connection) -> None:
        self._begin_in_turn(conn, self._worker.run_in_thread)

    def _begin_in_turn(self, conn: Connection, begin: Step) -> None:
        """Have a thread begin with a request: at once, or for a stranger, when those before are done."""
        has_to_wait: Callable[..., bool] = getattr(self._worker.wsgi, "has_to_wait", _need_not_wait)
        request = conn.parser.mesg
        if has_to_wait(request.method, request.path, request.headers):
            self._worker.leave(conn)
            conn.find_network()
            conn.deadline = time.monotonic() + IN_LINE_SECONDS
            self._strangers.enter(conn, begin)
            if len(waiting := self._strangers.waiting()) > STRANGERS_IN_LINE:
                self._refuse_all(half_of_the_largest_crowd(waiting))
        else:
            begin(conn)

    def _collect(self, conn: Connection) -> None:
        conn.body_started = time.monotonic()
        self._ask_for_body(conn)
        self._go_on(conn)

    def _go_on(self, conn: Connection) -> None:
        if not self._reservations.has(conn) and not self._worker.hold(conn, len(conn.body)):
            return
        if len(conn.body) == conn.body_length:
            conn.parser.mesg.body = io.BytesIO(conn.take_body())
            self._run(conn)
        else:
            self._worker.poll(conn, EVENT_READ, self.read, 0)
            conn.deadline = bodies.deadline(conn.body_started, len(conn.body), self._grace_seconds)

    def _ask(self, conn: Connection) -> None:
        self._begin_in_turn(conn, self._ask_in_thread)

    def _ask_in_thread(self, conn: Connection) -> None:
        self._worker.ledger.keep(conn)
        self._worker.leave(conn)
        asked = self._worker.tpool.submit(self._admit, conn)
        asked.add_done_callback(
            lambda answer: self._worker.method_queue.defer(self._worker.take, partial(self._admitted, answer), conn)
        )

    def _admit(self, conn: Connection) -> Allowance | None:
        _, environ = wsgi.create(conn.parser.mesg, conn.sock, conn.client, conn.server, self._worker.cfg)
        environ["wsgi.input"] = io.BytesIO()
        admit: Callable[[dict[str, Any]], Allowance | None] = getattr(self._worker.wsgi, "admit_body", _admit_all)
        return admit(environ)

    def _admitted(self, answer: Future[Allowance | None], conn: Connection) -> None:
        self._worker.ledger.release(conn)
        self._strangers.leave(conn)
        error = answer.exception()
        if isinstance(error, Exception):
            self._worker.fail(conn, error)
            return
        allowance = answer.result()
        if allowance is None:
            self._worker.refuse(conn, refusals.AWAY)
        elif conn.body_length > allowance.most_bytes:
            message = f"The request has {conn.body_length} bytes; at most {allowance.most_bytes} are taken here."
            self._run_without(conn, BodyTooLarge(message))
        elif allowance.is_streamed:
            self._stream(conn)
        elif self._reservations.take(conn, conn.body_length):
            self._collect(conn)
        else:
            self._in_line[conn] = time.monotonic() + IN_LINE_SECONDS

    def _stream(self, conn: Connection) -> None:
        if len(self._streams) >= self._most_streams:
            self._worker.refuse(conn, refusals.FULL)
            return
        self._streams.add(conn)
        self._ask_for_body(conn)
        conn.parser.mesg.body = StreamedBody(conn.sock, conn.take_body(), conn.body_length, self._grace_seconds)
        self._run(conn)

    def _run_without(self, conn: Connection, reason: BodyTrouble) -> None:
        conn.take_body()
        conn.parser.mesg.force_close()
        conn.parser.mesg.body = UnreadBody(reason)
        self._run(conn)

    def _ask_for_body(self, conn: Connection) -> None:
        if conn.expects_continue:
            conn.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            conn.sock.flush()


def _admit_all(environ: dict[str, Any]) -> Allowance:
    """For an application that has no opinion."""
    return Allowance(int(environ["CONTENT_LENGTH"]), bodies.SMALL_BODY_FIELDS, is_streamed=True)


def _need_not_wait(*about: object) -> bool:
    """For an application that knows no strangers."""
    return False
