"""The gunicorn worker: threads run the application, and none of them waits for a slow client.

gunicorn's own ``gthread`` gives a client its thread while a request's head trickles in and until the last byte of the
answer is taken: as many slow devices as there are threads block everybody. Here the worker's main thread polls for
both; what answers at once does not even change threads. Of gunicorn's worker it keeps the parser, the WSGI calls and
the signals. It can go when gunicorn has a worker whose threads wait for no client: not to send, and not to receive.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from gunicorn.errors import ConfigError
from gunicorn.workers.gthread import ThreadWorker

from iotsupport.serving import bodies, refusals
from iotsupport.serving.bodies import Ledger
from iotsupport.serving.collector import Collector
from iotsupport.serving.connections import (
    ClientSocket,
    Connection,
    Step,
    accept_some,
    bound_what_slow_clients_cost,
    half_of_the_largest_crowd,
    room_for_connections,
)
from iotsupport.serving.quick_requests import QuickAnswer, format_head, parse_quick_request
from iotsupport.serving.refusals import Refusal

# How long a client may take for the head of a request, for a body beyond what its bytes take, and to take the next
# bytes of an answer. What takes its answer ever so slowly is served; what stalls is dropped.
HEAD_SECONDS = 20.0
BODY_SECONDS = 20.0
STALLED_SECONDS = 60.0

# How long a connection stays open for reading after its last answer: closed at once, it could lose the end of it (RFC
# 9112, section 9.6).
LINGER_SECONDS = 2.0

MAX_HEAD_BYTES = 64 * 1024

# Of a head, or of what begins with it, at once: few are larger.
READ_BYTES = 16 * 1024

# Each turn takes that many new connections, if there are: taking one in each, a board would wait for as many turns as
# strangers have connected before. Not all, so that other workers have their share.
ACCEPTED_AT_ONCE = 32

# How long a thread of the application may compute while the main thread waits for the interpreter: it does so after
# each of a download's system calls, and behind all threads that wait, too. Python's default is ten times of that.
SWITCH_SECONDS = 0.0005

HEAD_END = b"\r\n\r\n"

# What this room uses of gunicorn beyond what it documents. Any minor version may change it: pyproject.toml pins one,
# and iotsupport/tests/test_gunicorn_inside.py looks for each of these.
INSIDE_OF_GUNICORN = {
    "workers.gthread.ThreadWorker": "check_config(cfg,log) run() accept(listener) handle_error(req,client,addr,exc)"
    " finish_request(conn,fs) _keepalive_after(conn,keepalive) enqueue_req(conn) is_parent_alive() notify()"
    " set_accept_enabled(enabled) wait_for_and_dispatch_events(timeout)"
    " alive cfg log max_requests method_queue nr nr_conns poller sockets tpool worker_connections wsgi",
    "workers.gthread.PollableMethodQueue": "fileno() defer(callback) run_callbacks(_fileobj) close()",
    "workers.gthread.TConn": "cfg client data_ready initialized parser server sock",
    "http.RequestParser": "__next__() mesg unreader",
    "http.unreader.Unreader": "take_buffered() unread(data)",
    "http.message.Request": "_expected_100_continue body force_close() headers method path version",
    **{"http.body.Body": "reader", "http.body.LengthReader": "length", "http.body.ChunkedReader": ""},
    "http.wsgi": "create(req,sock,client,server,cfg)",
    "http.errors": "ConfigurationProblem InvalidHTTPVersion InvalidRequestLine InvalidRequestMethod"
    " InvalidResponseHeader InvalidResponseHeaderName LimitRequestHeaders LimitRequestLine ParseException"
    " UnsupportedTransferCoding",
    "errors.ConfigError": "",
    "systemd": "sd_notify(state,logger)",
    "util": "http_date()",
    "": "SERVER",
}


class Worker(ThreadWorker):
    """gunicorn's threaded worker, changed as this module's docstring says."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        if cfg.is_ssl:
            raise ConfigError("This worker speaks plain HTTP: let a front server speak HTTPS.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Connections in the poller; all others are in a thread.
        self._polled: set[Connection] = set()
        self._next_sweep = self._accept_again = 0.0
        self.worker_connections: int = min(self.cfg.worker_connections, room_for_connections())
        self.ledger: Ledger[Connection] = Ledger(bodies.HELD_BYTES, bodies.HELD_BYTES_OF_ONE)
        self._collector = Collector(self, BODY_SECONDS)

    def run(self) -> None:
        bodies.give_memory_back(READ_BYTES + 1024)
        sys.setswitchinterval(SWITCH_SECONDS)
        for listener in self.sockets:
            bound_what_slow_clients_cost(listener)
        # An application may have it; not where gunicorn would do something besides.
        self._answer_quickly: Callable[[dict[str, str]], QuickAnswer | None] | None = None
        if not self.log.access_log_enabled and not os.environ.get("SCRIPT_NAME"):
            self._answer_quickly = getattr(self.wsgi, "answer_quickly", None)
        self.poller.register(self.method_queue.fileno(), EVENT_READ, self.method_queue.run_callbacks)
        while self.alive and self.is_parent_alive():
            self._turn()
        self.alive: bool = False
        self._drain()
        self.tpool.shutdown(wait=False)
        self.poller.close()
        self.method_queue.close()
        for listener in self.sockets:
            listener.close()

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + 1
            self.notify()
            self._drop_late(now)
        has_room = self.nr_conns < self.worker_connections
        self.set_accept_enabled(self.alive and has_room and now >= self._accept_again)
        self.wait_for_and_dispatch_events(timeout=1.0)

    def _drain(self) -> None:
        """Let what is under way end within the grace period."""
        start = time.monotonic()
        for conn in self._polled:
            if self._is_idle(conn):
                # Its next request may be on its way.
                conn.deadline = min(conn.deadline, start + LINGER_SECONDS)
        while self.nr_conns and time.monotonic() < start + self.cfg.graceful_timeout:
            self._turn()
        for conn in list(self._polled):
            self._drop(conn)

    def _drop_late(self, now: float) -> None:
        for conn in list(self._polled):
            if conn.deadline <= now:
                self.take(self._give_up, conn)
        self._collector.refuse_late(now)
        if self.nr_conns >= self.worker_connections:
            self._make_room()

    def _make_room(self) -> None:
        """Let go those who do not ask just now; where all do, half of those of the client that has most."""
        idle = [conn for conn in self._polled if self._is_idle(conn)]
        asking = [conn for conn in self._polled if conn.step in (self._read_head, self._collector.read)]
        for conn in idle or half_of_the_largest_crowd(asking):
            self._drop(conn)

    def _give_up(self, conn: Connection) -> None:
        if conn.step == self._collector.read:
            self._collector.give_up(conn, bodies.late)
            return
        before, conn.queued_bytes = conn.queued_bytes, conn.sock.queued_bytes()
        if conn.step == self._send and conn.queued_bytes < before:
            # It reads, though not enough for the kernel to want more.
            conn.deadline = time.monotonic() + STALLED_SECONDS
            return
        if conn.step == self._send:
            conn.sock.reset_when_closed()
        self._drop(conn)

    def _is_idle(self, conn: Connection) -> bool:
        return conn.step == self._read_head and not conn.head

    def accept(self, listener: Any) -> None:
        room = self.worker_connections - self.nr_conns
        try:
            for sock, address in accept_some(listener, min(ACCEPTED_AT_ONCE, room)):
                self.nr_conns += 1
                conn = Connection(self.cfg, sock, address, listener.getsockname())
                self.poll(conn, EVENT_READ, self._read_head, HEAD_SECONDS)
        except OSError as error:
            self.log.error("No connection can be taken just now: %s", error)
            self._accept_again = time.monotonic() + 1

    def poll(self, conn: Connection, events: int, step: Step, seconds: float) -> None:
        """Take the next step with a connection when its client is ready; drop it when that takes longer."""
        if conn not in self._polled:
            self.poller.register(conn.sock, events, lambda client: self.take(conn.step, conn))
            self._polled.add(conn)
        elif events != conn.events:
            self.poller.modify(conn.sock, events, self.poller.get_key(conn.sock).data)
        conn.events, conn.step, conn.deadline = events, step, time.monotonic() + seconds

    def leave(self, conn: Connection) -> None:
        """Poll for a client no more."""
        if conn in self._polled:
            self._polled.remove(conn)
            self.poller.unregister(conn.sock)

    def _drop(self, conn: Connection) -> None:
        self.leave(conn)
        self.ledger.release(conn)
        self._collector.release(conn)
        conn.sock.close()
        self.nr_conns -= 1

    def refuse(self, conn: Connection, refusal: Refusal) -> None:
        """Answer without the application, and close the connection."""
        conn.sock.sendall(refusals.answer_to(conn.parser.mesg, refusal, self.wsgi))
        self._end(conn)

    def fail(self, conn: Connection, error: Exception) -> None:
        """As :meth:`refuse`, for what could not be parsed, or asked of the application."""
        self.handle_error(conn.parser.mesg, conn.sock, conn.client, error)
        self._end(conn)

    def _end(self, conn: Connection) -> None:
        self.ledger.release(conn)
        self._collector.release(conn)
        conn.forget()
        conn.is_kept_alive = False
        self._send(conn)

    def hold(self, conn: Connection, count: int) -> bool:
        """Count what has come of a request, and refuse the one that is too much; return whether this one stays."""
        self.ledger.hold(conn.network, conn, count)
        while (too_much := self.ledger.who_must_go(conn.network, conn)) is not None:
            self.take(partial(self.refuse, refusal=refusals.FULL), too_much)
            if too_much is conn:
                return False
        return True

    def take(self, step: Step, conn: Connection) -> None:
        """Take a step with a connection, and drop it where that fails: the client is gone."""
        try:
            step(conn)
        except BlockingIOError:
            pass  # It was not ready after all.
        except OSError as error:
            self.log.debug("Dropping a connection: %s", error)
            self._drop(conn)
        except Exception:
            self.log.exception("Dropping a connection")
            self._drop(conn)

    def _read_head(self, conn: Connection) -> None:
        received = os.read(conn.sock.fileno(), READ_BYTES)
        if not received:
            self._drop(conn)
            return
        if not conn.head:
            conn.deadline = time.monotonic() + HEAD_SECONDS
        seen = len(conn.head)
        conn.head += received
        if conn.head.find(HEAD_END, max(seen - len(HEAD_END) + 1, 0)) >= 0:
            self._begin(conn)
        elif len(conn.head) > MAX_HEAD_BYTES:
            self.refuse(conn, refusals.HEAD_TOO_LARGE)
        else:
            self.hold(conn, len(conn.head))

    def _begin(self, conn: Connection) -> None:
        """Have a request answered whose head has come."""
        head = bytes(conn.head)
        conn.head.clear()
        self.ledger.release(conn)
        if self._serve_quickly(conn, head):
            self._send(conn)
            return
        try:
            conn.parse_head(head)
        except Exception as error:
            self.fail(conn, error)
            return
        if conn.lacks_host():
            self.refuse(conn, refusals.NO_HOST)  # RFC 9112, section 3.2
        else:
            self._collector.begin(conn)

    def run_in_thread(self, conn: Connection) -> None:
        """Have the application answer: what it is to know of the request is here."""
        self.ledger.keep(conn)
        self.leave(conn)
        self.enqueue_req(conn)

    def handle_error(self, request: Any, client: ClientSocket, address: Any, error: Exception) -> None:
        """Say what went wrong before or beside the application; strangers cause most of it."""
        refusal = refusals.refusal_of(error)
        if refusal.status < 500:
            self.log.warning("Refused a request of %s: %s", address[0] if address else "a client", error)
        else:
            place = f"{request.method} {request.path}" if request else "a request"
            self.log.error("Could not answer %s", place, exc_info=error)
        client.sendall(refusals.answer_to(request, refusal, self.wsgi))

    def _serve_quickly(self, conn: Connection, head: bytes) -> bool:
        """Answer a usual download here and now: parsing it and waiting for a thread would cost more than answering."""
        environ = parse_quick_request(head, conn.remote)
        if self._answer_quickly is None or environ is None or self.nr + 1 >= self.max_requests:
            return False
        answer = self._answer_quickly(environ)
        if answer is None:
            return False
        self.nr += 1
        conn.is_kept_alive = self.alive and environ.get("HTTP_CONNECTION", "").lower() != "close"
        conn.sock.sendall(format_head(answer, is_kept_alive=conn.is_kept_alive))
        conn.sock.sendall(answer[-1])
        return True

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        # What was not read of a body is not read for the sake of the next request either.
        return keepalive and conn.is_body_read()

    def finish_request(self, conn: Connection, fs: Future[bool]) -> None:
        """Go on with a connection that comes back from its thread."""
        self.ledger.release(conn)
        self._collector.release(conn)
        conn.is_kept_alive = not fs.cancelled() and fs.exception() is None and fs.result()
        self.take(self._send, conn)

    def _send(self, conn: Connection) -> None:
        if not conn.sock.flush():
            self.poll(conn, EVENT_WRITE, self._send, STALLED_SECONDS)
            conn.queued_bytes = conn.sock.queued_bytes()
        elif conn.is_kept_alive:
            self._await_request(conn)
        else:
            conn.sock.shutdown(socket.SHUT_WR)
            self.poll(conn, EVENT_READ, self._linger, LINGER_SECONDS)

    def _await_request(self, conn: Connection) -> None:
        conn.head += conn.parser.forget()
        self.poll(conn, EVENT_READ, self._read_head, self.cfg.keepalive)
        if conn.head:
            conn.deadline = time.monotonic() + HEAD_SECONDS
            # In turn with the others, who may have asked before.
            self.method_queue.defer(self._begin_pipelined, conn)

    def _begin_pipelined(self, conn: Connection) -> None:
        if conn in self._polled and conn.step == self._read_head and HEAD_END in conn.head:
            self.take(self._begin, conn)

    def _linger(self, conn: Connection) -> None:
        if not conn.discard():
            self._drop(conn)
