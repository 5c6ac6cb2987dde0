"""The gunicorn worker: threads run the application, and none of them waits for a slow client.

gunicorn's own ``gthread`` gives a client its thread while a request's head trickles in and until the last byte of the
answer is taken: as many slow devices as there are threads block everybody. Here the worker's main thread polls for
both; what answers at once does not even change threads. Of gunicorn's worker it keeps the parser, the WSGI calls and
the signals.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import select
import socket
import struct
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from gunicorn import SERVER, util  # type: ignore[import-untyped]
from gunicorn.errors import ConfigError  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

# How long a client may take for the head of a request, for the next bytes of a body, and to take the next bytes of an
# answer. What takes its answer ever so slowly is served; what stalls is dropped.
HEAD_SECONDS = 20.0
BODY_SECONDS = 20.0
STALLED_SECONDS = 60.0

# How long a connection stays open for reading after its last answer: closed at once, it could lose the end of it
# (RFC 9112, section 9.6).
LINGER_SECONDS = 2.0

MAX_HEAD_BYTES = 64 * 1024

# What the kernel holds of each answer beyond what is on its way; it would take megabytes.
UNSENT_BYTES = 128 * 1024

# Of each part of a larger answer, in memory.
BUFFER_BYTES = 64 * 1024

# A head shares its segment with the file that follows, where the system can: the client wakes up once for both.
MORE_FOLLOWS = getattr(socket, "MSG_MORE", 0)

HEAD_END = b"\r\n\r\n"

# A request that needs no parser: short, without a body, and with no field but these, each once.
QUICK_REQUEST = re.compile(rb"(GET|HEAD) ([/\w.-]+) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[ -~]*\r\n){,20})\r\n", re.ASCII)
QUICK_FIELDS = {
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-length",  # ESP-IDF says 0
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "pragma",
    "range",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-sendfile-type",
}
QUICK_HOST = re.compile(r"[\w.:\[\]-]+", re.ASCII)
QUICK_MAX_BYTES = 4096


class FilePart:
    """The rest of a file to be sent, with a descriptor of its own."""

    def __init__(self, descriptor: int, offset: int, count: int) -> None:
        self.descriptor = os.dup(descriptor)
        self._offset, self._count = offset, count

    def send(self, client: int) -> bool:
        """Send what fits; return whether it was the last."""
        sent = os.sendfile(client, self.descriptor, self._offset, self._count)
        if not sent:
            raise ConnectionAbortedError("The file is shorter than its answer said.")
        self._offset += sent
        self._count -= sent
        return not self._count


class ClientSocket(socket.socket):
    """A client's socket that never waits to send: what the client does not take now is kept for :meth:`flush`."""

    def __init__(self, accepted: socket.socket, body_readers: threading.Semaphore) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        super().setblocking(False)
        self._body_readers = body_readers
        self._read_seconds: float | None = BODY_SECONDS
        self._unsent: deque[bytearray | FilePart] = deque()

    # gunicorn sets and asks these several times for each request: no system calls.

    def setblocking(self, flag: bool) -> None:
        self._read_seconds = BODY_SECONDS if flag else 0.0

    def settimeout(self, value: float | None) -> None:
        self._read_seconds = value

    def gettimeout(self) -> float | None:
        return self._read_seconds

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Wait for a part of a request's body, in a thread. Raises ``TimeoutError``."""
        try:
            return super().recv(size, flags)
        except BlockingIOError:
            self._wait_for_body()
            return super().recv(size, flags)

    def _wait_for_body(self) -> None:
        if not self._body_readers.acquire(blocking=False):
            raise TimeoutError("Too many requests wait for the rest of their bodies.")
        try:
            poll = select.poll()
            poll.register(self, select.POLLIN)
            if not poll.poll(BODY_SECONDS * 1000 if self._read_seconds is None else self._read_seconds * 1000):
                raise TimeoutError("The rest of the request's body does not come.")
        finally:
            self._body_readers.release()

    def sendall(self, data: Any, flags: int = 0) -> None:
        last = self._unsent[-1] if self._unsent else None
        if not isinstance(last, bytearray):
            last = bytearray()
            self._unsent.append(last)
        last += data
        if len(last) > BUFFER_BYTES:
            self.flush()

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        count = os.fstat(file.fileno()).st_size - offset if count is None else count
        if count:
            self._unsent.append(FilePart(file.fileno(), offset, count))
            self.flush()
        return count

    def flush(self) -> bool:
        """Send what the client takes now; return whether nothing is left. Raises ``OSError`` where it is gone."""
        try:
            while self._unsent:
                part = self._unsent[0]
                if isinstance(part, FilePart):
                    is_last = part.send(self.fileno())
                else:
                    del part[: self.send(part, MORE_FOLLOWS if len(self._unsent) > 1 else 0)]
                    is_last = not part
                if is_last:
                    self._discard()
        except BlockingIOError:
            return False
        return True

    def queued_bytes(self) -> int:
        """How much of what was sent the client has not acknowledged."""
        return int.from_bytes(fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def reset_when_closed(self) -> None:
        """Have the kernel forget what it still keeps for the client."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        while self._unsent:
            self._discard()
        super().close()

    def _discard(self) -> None:
        part = self._unsent.popleft()
        if isinstance(part, FilePart):
            os.close(part.descriptor)


Step = Callable[["Connection"], None]
# Status line, headers, body.
QuickAnswer = tuple[str, Iterable[tuple[str, str]], bytes]


def _answer_nothing(environ: dict[str, str]) -> QuickAnswer | None:
    return None


def _do_nothing(conn: Connection) -> None:
    pass


class Connection(TConn):
    """A client, and what it is waited for between two calls of the application."""

    sock: ClientSocket

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.data_ready = True  # gunicorn's own wait for the first byte is not needed
        self.head = bytearray()  # what has come of the next request
        self.is_kept_alive = True
        self.events = 0
        self.step: Step = _do_nothing
        self.queued_bytes = 0  # in the kernel, when last looked at
        self.deadline = 0.0


class Worker(ThreadWorker):
    """See the module's docstring."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        if cfg.is_ssl:
            raise ConfigError("This worker speaks plain HTTP: let a front server speak HTTPS.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Connections in the poller; all others are in a thread.
        self._polled: set[Connection] = set()
        self._next_sweep = self._accept_again = 0.0
        # Never more than there are descriptors for: a download takes two.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if files != resource.RLIM_INFINITY:
            self.worker_connections: int = max(min(self.cfg.worker_connections, (files - 256) // 2), 1)
        # The rest of the threads is for requests that have come whole.
        self._body_readers = threading.Semaphore(max(self.cfg.threads * 3 // 4, 1))

    def run(self) -> None:
        for listener in self.sockets:
            _bound_what_slow_clients_cost(listener)
        # An application may have it; not where gunicorn would do something besides.
        self._answer_quickly: Callable[[dict[str, str]], QuickAnswer | None] = _answer_nothing
        if not self.log.access_log_enabled and not os.environ.get("SCRIPT_NAME"):
            self._answer_quickly = getattr(self.wsgi, "answer_quickly", _answer_nothing)
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
        is_full = self.nr_conns >= self.worker_connections
        for conn in list(self._polled):
            if conn.deadline <= now:
                self._take(self._give_up, conn)
            elif is_full and self._is_idle(conn):
                self._drop(conn)

    def _give_up(self, conn: Connection) -> None:
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
        try:
            accepted, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # Another worker was faster.
        except OSError as error:
            self.log.error("No connection can be taken just now: %s", error)
            self._accept_again = time.monotonic() + 1
            return
        self.nr_conns += 1
        client = ClientSocket(accepted, self._body_readers)
        conn = Connection(self.cfg, client, address, listener.getsockname())
        self._poll(conn, EVENT_READ, self._read_head, HEAD_SECONDS)

    def _poll(self, conn: Connection, events: int, step: Step, seconds: float) -> None:
        """Take the next step with a connection when its client is ready; drop it when that takes longer."""
        if conn not in self._polled:
            self.poller.register(conn.sock, events, lambda client: self._take(conn.step, conn))
            self._polled.add(conn)
        elif events != conn.events:
            self.poller.modify(conn.sock, events, self.poller.get_key(conn.sock).data)
        conn.events, conn.step, conn.deadline = events, step, time.monotonic() + seconds

    def _leave(self, conn: Connection) -> None:
        if conn in self._polled:
            self._polled.remove(conn)
            self.poller.unregister(conn.sock)

    def _drop(self, conn: Connection) -> None:
        self._leave(conn)
        conn.sock.close()
        self.nr_conns -= 1

    def _take(self, step: Step, conn: Connection) -> None:
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
        received = os.read(conn.sock.fileno(), MAX_HEAD_BYTES)
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
            conn.is_kept_alive = False
            util.write_error(conn.sock, 431, "Request Header Fields Too Large", "")
            self._send(conn)

    def _begin(self, conn: Connection) -> None:
        """Have a request answered whose head has come."""
        head = bytes(conn.head)
        conn.head.clear()
        if self._serve_quickly(conn, head):
            self._send(conn)
            return
        conn.init()
        conn.parser.unreader.unread(head)
        self._leave(conn)
        self.enqueue_req(conn)

    def _serve_quickly(self, conn: Connection, head: bytes) -> bool:
        """Answer a usual download here and now: parsing it and waiting for a thread would cost more than answering."""
        environ = parse_quick_request(head)
        if environ is None or self.nr + 1 >= self.max_requests:
            return False
        answer = self._answer_quickly(environ)
        if answer is None:
            return False
        self.nr += 1
        conn.is_kept_alive = self.alive and environ.get("HTTP_CONNECTION", "").lower() != "close"
        status_line, headers, body = answer
        fields = [
            f"HTTP/1.1 {status_line}",
            f"Server: {SERVER}",
            f"Date: {util.http_date()}",
            f"Connection: {'keep-alive' if conn.is_kept_alive else 'close'}",
        ]
        fields += [f"{name}: {value}" for name, value in headers]
        conn.sock.sendall("\r\n".join([*fields, "", ""]).encode("latin-1"))
        conn.sock.sendall(body)
        return True

    def finish_request(self, conn: Connection, fs: Future[bool]) -> None:
        """Go on with a connection that comes back from its thread."""
        conn.is_kept_alive = not fs.cancelled() and fs.exception() is None and fs.result()
        self._take(self._send, conn)

    def _send(self, conn: Connection) -> None:
        if not conn.sock.flush():
            self._poll(conn, EVENT_WRITE, self._send, STALLED_SECONDS)
            conn.queued_bytes = conn.sock.queued_bytes()
        elif conn.is_kept_alive:
            self._await_request(conn)
        else:
            conn.sock.shutdown(socket.SHUT_WR)
            self._poll(conn, EVENT_READ, self._linger, LINGER_SECONDS)

    def _await_request(self, conn: Connection) -> None:
        if conn.parser is not None:
            conn.head += conn.parser.unreader.take_buffered()
        self._poll(conn, EVENT_READ, self._read_head, self.cfg.keepalive)
        if conn.head:
            conn.deadline = time.monotonic() + HEAD_SECONDS
            # In turn with the others, who may have asked before.
            self.method_queue.defer(self._begin_pipelined, conn)

    def _begin_pipelined(self, conn: Connection) -> None:
        if conn in self._polled and conn.step == self._read_head and HEAD_END in conn.head:
            self._take(self._begin, conn)

    def _linger(self, conn: Connection) -> None:
        if not os.read(conn.sock.fileno(), BUFFER_BYTES):
            self._drop(conn)


def parse_quick_request(head: bytes) -> dict[str, str] | None:
    """Return what WSGI calls the parts of a request that needs no parser; None for any other."""
    match = QUICK_REQUEST.fullmatch(head) if len(head) <= QUICK_MAX_BYTES else None
    if match is None:
        return None
    method, path, fields = match[1].decode(), match[2].decode(), match[3].decode()
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path}
    for line in fields.split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name = name.lower()
        key = f"HTTP_{name.upper().replace('-', '_')}"
        if name not in QUICK_FIELDS or key in environ:
            return None
        environ[key] = value.strip(" ")
    is_usual = (
        environ.pop("HTTP_CONTENT_LENGTH", "0") == "0"
        and environ.get("HTTP_CONNECTION", "keep-alive").lower() in {"close", "keep-alive"}
        and QUICK_HOST.fullmatch(environ.get("HTTP_HOST", ""))
    )
    return environ if is_usual else None


def _bound_what_slow_clients_cost(listener: Any) -> None:
    """Tell the kernel how much it keeps of each answer; connections inherit it."""
    if listener.FAMILY != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
