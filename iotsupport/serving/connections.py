"""A client's connection: a socket that never waits to send, and what of a request has come."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import struct
import sys
import termios
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gunicorn.http import RequestParser
from gunicorn.http.body import LengthReader
from gunicorn.http.message import Request
from gunicorn.workers.gthread import TConn

from iotsupport.serving import clients
from iotsupport.serving.bodies import StreamedBody

# Of each part of a larger answer, in memory.
BUFFER_BYTES = 64 * 1024

# What the kernel holds of each answer beyond what is on its way; it would take megabytes.
UNSENT_BYTES = 128 * 1024

# Of what still comes on a connection after its last answer, so much is thrown away, and so much of it at once: the
# kernel need not copy what nobody looks at (tcp(7)).
LINGER_BYTES = 4 * 1024 * 1024
DISCARDED_BYTES = 512 * 1024
DISCARD = socket.MSG_TRUNC if sys.platform == "linux" else 0
_discarded = bytearray(DISCARDED_BYTES)

# A head shares its segment with the file that follows, where the system can: the client wakes up once for both.
MORE_FOLLOWS = getattr(socket, "MSG_MORE", 0)


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

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        super().setblocking(False)
        self._unsent: deque[bytearray | FilePart] = deque()

    # gunicorn sets and asks these several times for each request: no system calls. It never waits.

    def setblocking(self, flag: bool) -> None:
        pass

    def settimeout(self, value: float | None) -> None:
        pass

    def gettimeout(self) -> float | None:
        return 0.0

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


class HeadParser(RequestParser):
    """gunicorn's parser, for a head that has come whole: it never waits for a client."""

    mesg: Any  # what was parsed last: a Request, until it is forgotten

    def parse(self, head: bytes) -> Request:
        """Parse a head. Raises what gunicorn raises for one that it cannot take."""
        self.unreader.unread(head)
        return super().__next__()

    def __next__(self) -> Request:
        """Return what was parsed: gunicorn asks again, in a thread."""
        return self.mesg

    def forget(self) -> bytes:
        """Let a request go; return what has come behind it."""
        self.mesg = None
        rest: bytes = self.unreader.take_buffered()
        return rest


Step = Callable[["Connection"], None]


def _do_nothing(conn: Connection) -> None:
    pass


class Connection(TConn):
    """A client's connection: what has come of a request, and what it is waited for until when."""

    sock: ClientSocket

    def __init__(self, cfg: Any, sock: ClientSocket, address: Any, server: Any) -> None:
        super().__init__(cfg, sock, address, server)
        self.parser = HeadParser(cfg, sock, address)
        self.initialized = self.data_ready = True  # gunicorn has nothing left to do, and to wait for
        self.remote = str(address[0]) if isinstance(address, tuple) else ""
        # For whom its memory is counted.
        self.network = clients.network_of(self.remote)
        self.head = bytearray()  # what has come of the next request
        self.body = bytearray()
        self.body_length = 0
        self.body_started = 0.0
        self.expects_continue = False
        self.is_kept_alive = True
        self.events = 0
        self.step: Step = _do_nothing
        self.queued_bytes = 0  # in the kernel, when last looked at
        self.lingering_bytes = LINGER_BYTES  # that may still be thrown away
        self.deadline = 0.0

    @property
    def path(self) -> str:
        """As it was sent; empty before there is one."""
        request = self.parser.mesg
        return str(request.path) if request else ""

    def parse_head(self, head: bytes) -> None:
        """Read a head, and take what has come of the body. Raises what gunicorn raises."""
        request = self.parser.parse(head)
        # gunicorn has judged what the fields say of the body.
        reader = request.body.reader
        self.body_length = reader.length if isinstance(reader, LengthReader) else 0
        self.body = bytearray()
        if self.body_length:
            rest = self.parser.unreader.take_buffered()
            self.body += rest[: self.body_length]
            self.parser.unreader.unread(rest[self.body_length :])

    def lacks_host(self) -> bool:
        """Whether a request has no Host though it must (RFC 9112, section 3.2).

        A front server speaks HTTP/1.1 on behalf of a client that speaks HTTP/1.0, which has no Host.
        """
        request = self.parser.mesg
        names = {name for name, _ in request.headers}
        if request.version < (1, 1) or "HOST" in names:
            return False
        return "X-FORWARDED-FOR" not in names or not clients.may_be_front_server(self.remote)

    def find_network(self) -> None:
        """Count what comes for the client, also where a front server brings it."""
        forwarded = dict(self.parser.mesg.headers).get("X-FORWARDED-FOR", "")
        self.network = clients.network_of(clients.address_of(self.remote, forwarded))

    def take_body(self) -> bytes:
        """Return what has come of the body, which is kept here no more."""
        body = bytes(self.body)
        self.body = bytearray()
        return body

    def forget(self) -> None:
        """Let go what has come, also of what may come next."""
        self.head.clear()
        self.take_body()
        self.parser.forget()

    def discard(self) -> bool:
        """Throw away what came behind the last answer; return whether more may come."""
        count = self.sock.recv_into(_discarded, DISCARDED_BYTES, DISCARD)
        self.lingering_bytes -= count
        return count > 0 and self.lingering_bytes >= 0

    def is_body_read(self) -> bool:
        """Whether the body was read to its end, so that what comes next is another request."""
        body = self.parser.mesg.body
        return body.is_at_end if isinstance(body, StreamedBody) else True


def accept_some(listener: Any, most: int) -> Iterator[tuple[ClientSocket, Any]]:
    """Yield those who wait to be taken, with their addresses. Raises ``OSError`` where that cannot be done."""
    for _ in range(most):
        try:
            accepted, address = listener.accept()
        except BlockingIOError:
            return  # Another worker was faster.
        except ConnectionAbortedError:
            continue
        yield ClientSocket(accepted), address


def half_of_the_largest_crowd(conns: Iterable[Connection]) -> list[Connection]:
    """Of the client that has most of these, those that have the least time left."""
    crowds: defaultdict[str, list[Connection]] = defaultdict(list)
    for conn in conns:
        crowds[conn.network].append(conn)
    largest = max(crowds, key=lambda network: len(crowds[network]), default="")
    crowd = sorted(crowds[largest], key=lambda conn: conn.deadline)
    return crowd[: (len(crowd) + 1) // 2]


def room_for_connections() -> int:
    """How many clients there are file descriptors for: each takes two while it downloads."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if files == resource.RLIM_INFINITY else max((files - 256) // 2, 1)


def bound_what_slow_clients_cost(listener: Any) -> None:
    """Tell the kernel how much it keeps of each answer; connections inherit it."""
    if listener.FAMILY != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
