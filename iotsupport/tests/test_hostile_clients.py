"""Strangers who send much, slowly, or nonsense: what they cost, what they hear, and who is served meanwhile."""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest

from iotsupport.monitoring.logs import LINE_CHARS
from iotsupport.tests.support.server import NEW, NEW_CONF, Installation, Server
from iotsupport.tests.support.waiting import LIMIT

LOGIN = "/admin/login/"
ADD = "/admin/devices/deviceconfig/add/"
FORM = "Content-Type: application/x-www-form-urlencoded"
MADE_UP_CSRF = f"Cookie: csrftoken={'a' * 32}"
MADE_UP_SESSION = f"Cookie: csrftoken={'a' * 32}; sessionid={'b' * 32}"
MADE_UP_TOKEN = "Authorization: Bearer iot_made-up"
MEGABYTE = 1024 * 1024

# What all processes of a server may grow by, whatever comes.
MOST_GROWTH = 60 * MEGABYTE


@pytest.fixture(scope="module")
def server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="2").start(*NEW)
    yield server
    server.remove()


@pytest.fixture(scope="module")
def narrow_server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker that lets in one large upload at a time, holds little, and waits not for long."""
    conf = tmp_path_factory.mktemp("conf") / "narrow.py"
    conf.write_text(
        "import runpy\n"
        "from iotsupport.serving import bodies, collector, worker\n"
        "worker.BODY_SECONDS = 6.0\n"
        "collector.IN_LINE_SECONDS = 10.0\n"
        "bodies.HELD_BYTES, bodies.HELD_BYTES_OF_ONE, bodies.RESERVED_BYTES = 150_000, 100_000, 150_000\n"
        f"globals().update(runpy.run_path({str(NEW_CONF)!r}))\n"
    )
    server = Server(template, tmp_path_factory.mktemp("narrow"))
    server.start("--config", str(conf), "--workers", "1", "--threads", "2", "--worker-connections", "50")
    yield server
    server.remove()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def head(method: str, path: str, *fields: str, length: int | None = None) -> bytes:
    more = [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *more, *fields, "", ""]).encode()


def connect(server: Server, sent: bytes, stack: ExitStack, address: str = "127.0.0.1") -> socket.socket:
    client = stack.enter_context(
        socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT, source_address=(address, 0))
    )
    client.sendall(sent)
    return client


def read(client: socket.socket) -> Answer:
    """One answer to its end; nothing of what follows it."""
    with client.makefile("rb", buffering=0) as file:
        status_line = file.readline().decode()
        assert status_line, "The connection was closed."
        headers = {}
        while field := file.readline().decode().rstrip("\r\n"):
            name, _, value = field.partition(": ")
            headers[name.lower()] = value
        body = b""
        while len(body) < int(headers.get("content-length", 0)):
            body += file.read(int(headers["content-length"]) - len(body)) or b""
    return Answer(int(status_line.split()[1]), headers, body)


def ask(server: Server, sent: bytes) -> Answer:
    with ExitStack() as stack:
        return read(connect(server, sent, stack))


def refusal(answer: Answer) -> tuple[int, str]:
    """Check that it is in the API's shape; return its status and code."""
    assert answer.headers["content-type"] == "application/json"
    refusal = json.loads(answer.body)
    assert set(refusal) == {"error", "code", "details"}
    return answer.status, refusal["code"]


def send_regardless(server: Server, sent: bytes, *parts: bytes) -> int | None:
    """Send all of it, whatever is answered meanwhile; return the status, if there was one."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as client:
        try:
            client.sendall(sent)
            for part in parts:
                client.sendall(part)
        except OSError:
            pass  # It is refused already.
        try:
            return read(client).status
        except (OSError, AssertionError):
            return None


class Signed(NamedTuple):
    """A form of somebody who is signed in."""

    cookie: str
    csrf_token: str

    def form(self, path: str, size: int = 0, **fields: str) -> tuple[bytes, bytes]:
        """Head and body, the body filled up to its size."""
        body = urlencode({"csrfmiddlewaretoken": self.csrf_token, **fields}).encode()
        body += b"&padding=" + b"x" * max(size - len(body) - 9, 0)
        return head("POST", path, FORM, self.cookie, length=len(body)), body


def sign_in(server: Server) -> Signed:
    with server.administrator() as browser:
        csrf_token = browser.cookies["csrftoken"]
        return Signed(f"Cookie: csrftoken={csrf_token}; sessionid={browser.cookies['sessionid']}", csrf_token)


def memory_bytes(server: Server, what: str) -> int:
    """``VmRSS`` or ``VmHWM`` (the most since it was reset) of the workers."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in server.workers()]
    return sum(int(re.findall(rf"^{what}:\s+(\d+) kB$", text, re.M)[0]) * 1024 for text in texts)


def reset_most_memory(server: Server) -> None:
    for pid in server.workers():
        Path(f"/proc/{pid}/clear_refs").write_text("5")


# --- Memory ------------------------------------------------------------------------------------------------------


def sixteen_megabytes(server: Server) -> int | None:
    first = b"csrfmiddlewaretoken=" + b"a" * 32 + b"&username="
    request = head("POST", LOGIN, FORM, MADE_UP_CSRF, length=len(first) + 16 * MEGABYTE)
    return send_regardless(server, request, first, *[b"x" * MEGABYTE] * 16)


@cache
def hundred_thousand_fields() -> bytes:
    return b"&".join(b"f%d=1" % number for number in range(100_000))


def a_hundred_thousand_fields(server: Server) -> int | None:
    body = hundred_thousand_fields()
    return send_regardless(server, head("POST", LOGIN, FORM, MADE_UP_SESSION, length=len(body)), body)


def many_fields_in_little(server: Server) -> int | None:
    body = b"&".join([b"a"] * 32_000)
    return send_regardless(server, head("POST", LOGIN, FORM, MADE_UP_CSRF, length=len(body)), body)


def many_parts_in_little(server: Server) -> int | None:
    body = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 1250
    kind = "Content-Type: multipart/form-data; boundary=b"
    return send_regardless(server, head("POST", LOGIN, kind, MADE_UP_CSRF, length=len(body)), body)


@pytest.mark.parametrize(
    ("attack", "times"),
    [
        (sixteen_megabytes, 96),
        (a_hundred_thousand_fields, 64),
        (many_fields_in_little, 96),
        (many_parts_in_little, 96),
    ],
)
def test_what_strangers_send_takes_no_memory(server: Server, attack: Callable[[Server], int | None], times: int):
    attack(server)
    before = memory_bytes(server, "VmRSS")
    reset_most_memory(server)

    with ThreadPoolExecutor(times) as threads:
        statuses = Counter(threads.map(lambda _: attack(server), range(times)))

    assert statuses[413] > 0
    assert set(statuses) <= {413, None}
    assert memory_bytes(server, "VmHWM") - before < MOST_GROWTH


def test_what_does_not_end_is_held_up_to_a_bound(server: Server, stack: ExitStack):
    beginnings = [
        b"GET / HTTP/1.1\r\nX: " + b"x" * 65_000,
        head("POST", LOGIN, FORM, length=65_536) + b"x" * 65_535,
    ]
    sent = 450 * sum(map(len, beginnings))
    before = memory_bytes(server, "VmRSS")
    reset_most_memory(server)

    for beginning in beginnings:
        for _ in range(450):
            connect(server, beginning, stack)

    # In the order in which they came: all others have been read by now.
    assert ask(server, head("GET", "/health", "X-Unusual: yes")).status == 200
    assert memory_bytes(server, "VmHWM") - before < sent * 2 // 3


# --- Before a byte is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("credential", ["X-None: 1", MADE_UP_CSRF, MADE_UP_SESSION, MADE_UP_TOKEN])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", LOGIN, 413),
        ("POST", ADD, 413),
        ("POST", "/admin/assets/asset/add/", 413),
        ("POST", "/admin/auth/user/", 413),
        ("POST", "/assets", 401),
        ("POST", "/api/assets", 401),
        ("PUT", "/configs/aa-bb-cc-dd-ee-ff.json", 401),
        ("PUT", "/api/configs/aa-bb-cc-dd-ee-ff", 401),
        ("POST", "/health", 405),
        ("POST", "/nothing", 404),
        ("GET", "/health", 200),
    ],
)
def test_a_stranger_s_large_body_is_answered_before_it_is_sent(
    server: Server, credential: str, method: str, path: str, status: int
):
    answer = ask(server, head(method, path, credential, FORM, length=65_537))

    assert answer.status == status
    assert answer.headers["connection"] == "close"
    if not path.startswith("/admin/") and status >= 400:
        refusal(answer)


def test_a_stranger_is_told_to_sign_in_first(server: Server):
    answer = ask(server, head("POST", ADD, MADE_UP_SESSION, FORM, length=100_000))

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert b"not signed in" in answer.body
    assert b"65536 bytes" in answer.body


def test_a_browser_is_told_so_in_a_page(server: Server):
    answer = ask(server, head("POST", ADD, "Accept: text/html", FORM, length=100_000))

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert b"not signed in" in answer.body


def test_a_body_as_large_as_anybody_may_send_is_taken(server: Server):
    assert ask(server, head("POST", LOGIN, FORM, MADE_UP_CSRF, length=65_536) + b"x" * 65_536).status == 403


@pytest.mark.parametrize("path", ["/configs/aa-bb-cc-dd-ee-ff.json", "/admin/login/", "/admin/nothing/", "/assets"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_body_in_chunks_is_not_read(server: Server, path: str, method: str):
    answer = ask(server, head(method, path, MADE_UP_CSRF, FORM, "Transfer-Encoding: chunked") + b"ffffff\r\n")

    assert answer.status in {400, 401, 404, 405}
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("/configs/aa-bb-cc-dd-ee-ff.json", 80_000),
        ("/configs/aa-bb-cc-dd-ee-ff", 20_000_000),
        ("/assets", 200_000_000),
        ("/assets", 2**63),
    ],
)
def test_those_who_may_send_are_told_what_is_too_much_before_they_send_it(server: Server, path: str, size: int):
    method, kind = ("POST", "multipart/form-data; boundary=b") if path == "/assets" else ("PUT", "application/json")
    fields = [f"Authorization: Bearer {server.token}", f"Content-Type: {kind}"]

    answer = ask(server, head(method, path, *fields, length=size))

    assert refusal(answer) == (413, "TOO_LARGE")


def test_a_form_as_large_as_a_configuration_can_make_it_is_saved(server: Server):
    """Every line end takes six bytes on its way."""
    content = '{"a": 1}'.ljust(65_536, "\n")
    signed = sign_in(server)
    first, body = signed.form(ADD, mac_address="02-00-00-00-00-01", content=content.replace("\n", "\r\n"))
    assert len(body) > 5 * len(content)

    assert ask(server, first + body).status == 302

    assert server.configs()["02-00-00-00-00-01.json"] == content.encode()


def test_a_list_of_many_rows_is_sent_by_those_who_are_signed_in(server: Server):
    signed = sign_in(server)
    first, body = signed.form("/admin/devices/deviceconfig/", action="delete_selected")
    body += b"&_selected_action=1234567" * 50_000
    first = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), first)

    assert ask(server, first + body).status == 200


def test_a_sender_that_asks_first_is_told_to_go_on_or_why_not(server: Server, stack: ExitStack):
    fields = ["Content-Type: application/json", "Expect: 100-continue"]
    path = "/configs/02-00-00-00-00-02.json"
    content = b'{"a": 1}'.ljust(60_000)

    sender = connect(server, head("PUT", path, f"Authorization: Bearer {server.token}", *fields, length=60_000), stack)
    assert read(sender).status == 100
    sender.sendall(content)
    assert read(sender).status == 200

    assert ask(server, head("PUT", path, MADE_UP_TOKEN, *fields, length=70_000)).status == 401


def test_requests_with_bodies_that_come_together_are_answered_in_turn(server: Server, stack: ExitStack):
    body = b'{"a": 1}'
    fields = [f"Authorization: Bearer {server.token}", "Content-Type: application/json"]
    put = head("PUT", "/configs/02-00-00-00-00-03.json", *fields, length=len(body)) + body

    unknown = head("POST", "/nothing", length=3) + b"abc"
    sender = connect(server, put + head("GET", "/health") + put + unknown + put, stack)

    assert [read(sender).status for _ in range(5)] == [200, 200, 200, 404, 200]


# --- Slow bodies ---------------------------------------------------------------------------------------------------


def test_slow_bodies_keep_no_save_from_being_answered(server: Server, stack: ExitStack):
    signed = sign_in(server)
    content = json.dumps({"deviceName": "lamp", "text": "x" * 2000})
    for _ in range(200):
        connect(server, head("POST", LOGIN, FORM, MADE_UP_CSRF, length=60_000) + b"a", stack)

    def save(number: int) -> int:
        mac_address = f"02-00-00-00-01-{number:02x}"
        if number % 2:
            first, body = signed.form(ADD, mac_address=mac_address, content=content)
        else:
            fields = [f"Authorization: Bearer {server.token}", "Content-Type: application/json"]
            first, body = head("PUT", f"/configs/{mac_address}.json", *fields, length=len(content)), content.encode()
        with ExitStack() as own:
            saver = connect(server, first, own)
            # The worker has seen the head alone: it has answered another request since.
            assert ask(server, head("GET", f"/configs/{mac_address}.json")).status == 404
            saver.sendall(body)
            return read(saver).status

    with ThreadPoolExecutor(4) as threads:
        statuses = Counter(threads.map(save, range(80)))

    assert statuses == {200: 40, 302: 40}


def test_a_body_that_trickles_is_given_up(narrow_server: Server, stack: ExitStack):
    sender = connect(narrow_server, head("POST", LOGIN, FORM, length=1000), stack)
    sender.settimeout(0.2)
    start = time.monotonic()

    while True:
        sender.sendall(b"x")
        try:
            answer = read(sender)
            break
        except TimeoutError:
            assert time.monotonic() < start + LIMIT

    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert b"of 1000 bytes arrived in time" in answer.body


def test_a_body_that_ends_too_early_changes_nothing(server: Server, stack: ExitStack):
    signed = sign_in(server)
    first, body = signed.form(ADD, mac_address="02-00-00-00-00-04", content='{"a": 1}')
    sender = connect(server, first + body[:-1], stack)

    sender.shutdown(socket.SHUT_WR)

    answer = read(sender)
    assert answer.status == 400
    assert f"Only {len(body) - 1} of {len(body)} bytes arrived.".encode() in answer.body
    assert "02-00-00-00-00-04.json" not in server.configs()


# --- A full house --------------------------------------------------------------------------------------------------


def test_who_holds_too_much_loses_the_oldest_and_takes_nothing_from_others(narrow_server: Server, stack: ExitStack):
    unfinished = head("POST", LOGIN, FORM, length=60_000) + b"x" * 40_000
    other = connect(narrow_server, unfinished, stack, "127.0.0.2")

    first, second, third = (connect(narrow_server, unfinished, stack) for _ in range(3))

    answer = read(first)
    assert answer.status == 503
    assert answer.headers["retry-after"]
    for sender in [other, second, third]:
        sender.sendall(b"x" * 20_000)
        # Without a token of CSRF; but it was heard.
        assert read(sender).status == 403


def test_a_program_hears_of_a_full_house_in_json(narrow_server: Server, stack: ExitStack):
    fields = [f"Authorization: Bearer {narrow_server.token}", "Content-Type: application/json"]
    unfinished = head("PUT", "/configs/02-00-00-00-00-05.json", *fields, length=60_000) + b" " * 40_000

    first, *_ = (connect(narrow_server, unfinished, stack) for _ in range(3))

    assert refusal(read(first)) == (503, "UNAVAILABLE")


def test_who_has_all_connections_leaves_room_for_others(narrow_server: Server, stack: ExitStack):
    for beginning in [b"GET / HT", head("POST", LOGIN, FORM, length=60_000) + b"x"]:
        for _ in range(100):
            connect(narrow_server, beginning, stack)

    device = connect(narrow_server, head("GET", "/health"), stack, "127.0.0.2")

    assert read(device).status == 200


UPLOAD = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + b"x" * 100_000 + b"\r\n--b--\r\n"
)


def upload(server: Server, *fields: str) -> bytes:
    """The head for it."""
    fields = (*fields, f"Authorization: Bearer {server.token}", "Content-Type: multipart/form-data; boundary=b")
    return head("POST", "/assets", *fields, length=len(UPLOAD))


def begin(server: Server, sent: bytes, stack: ExitStack) -> socket.socket:
    """Connect, and return once the server wants the body."""
    client = connect(server, sent.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), stack)
    assert read(client).status == 100
    return client


def test_slow_uploads_hold_some_threads_and_no_more(narrow_server: Server, stack: ExitStack):
    signed = sign_in(narrow_server)
    large_form = signed.form(ADD, 90_000, mac_address="02-00-00-00-00-06", content='{"a": 1}')
    slow = begin(narrow_server, upload(narrow_server), stack)

    refused = ask(narrow_server, upload(narrow_server))
    saved = ask(narrow_server, b"".join(large_form))
    slow.sendall(UPLOAD)

    assert refusal(refused) == (503, "UNAVAILABLE")
    assert refused.headers["retry-after"]
    assert saved.status == 302
    assert read(slow).status == 200
    assert ask(narrow_server, upload(narrow_server) + UPLOAD).status == 200


@pytest.mark.parametrize("path", ["/assets", "/admin/assets/asset/add/"])
def test_an_upload_that_stalls_is_not_the_sender_s_mistake(narrow_server: Server, stack: ExitStack, path: str):
    before = narrow_server.assets()
    request = upload(narrow_server, sign_in(narrow_server).cookie).replace(b" /assets ", b" %s " % path.encode())
    sender = connect(narrow_server, request + UPLOAD[:-1], stack)

    answer = read(sender)

    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert b"arrived in time" in answer.body
    assert narrow_server.assets() == before


def test_a_large_form_waits_for_room(narrow_server: Server, stack: ExitStack):
    signed = sign_in(narrow_server)
    first, _ = signed.form(ADD, 90_000, mac_address="02-00-00-00-00-07", content='{"a": 1}')
    other = signed.form(ADD, 90_000, mac_address="02-00-00-00-00-08", content='{"a": 1}')

    silent = begin(narrow_server, first, stack)
    waiting = connect(narrow_server, b"".join(other), stack)

    assert read(silent).status == 503
    assert read(waiting).status == 302


def test_a_large_form_does_not_wait_for_room_for_long(narrow_server: Server, stack: ExitStack):
    signed = sign_in(narrow_server)
    first, body = signed.form(ADD, 140_000, mac_address="02-00-00-00-00-09", content='{"a": 1}')
    slow = begin(narrow_server, first, stack)
    waiting = connect(narrow_server, b"".join(signed.form(ADD, 90_000)), stack)
    waiting.settimeout(0.2)

    # Quick enough not to be given up.
    while body:
        slow.sendall(body[:1000])
        body = body[1000:]
        try:
            answer = read(waiting)
            break
        except TimeoutError:
            pass

    slow.sendall(body)
    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert read(slow).status == 302


# --- Nonsense ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"\x01" * 4000 + b"\r\n\r\n", (400, "BAD_REQUEST")),
        (b"\x16\x03\x01\r\n\r\n", (400, "BAD_REQUEST")),
        (b"\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET\r\n\r\n", (400, "BAD_REQUEST")),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET nothing HTTP/1.1\r\nHost: a\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET / HTTP/1.1\r\nHost a\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n y\r\n\r\n", (400, "BAD_REQUEST")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", (400, "BAD_REQUEST")),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", (400, "BAD_REQUEST")),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", (400, "BAD_REQUEST")),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", (400, "BAD_REQUEST")),
        (
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            (400, "BAD_REQUEST"),
        ),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: magic\r\n\r\n", (400, "LENGTH_REQUIRED")),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", (431, "HEAD_TOO_LARGE")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9000 + b"\r\n\r\n", (431, "HEAD_TOO_LARGE")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000, (431, "HEAD_TOO_LARGE")),
        (b"GET /health HTTP/1.1\r\n\r\n", (400, "HOST_MISSING")),
        (b"GET /admin/login/ HTTP/1.1\r\nX: 1\r\n\r\n", (400, "HOST_MISSING")),
        (b"GET /admin/login/ HTTP/1.1\r\nAccept: text/html\r\n\r\n", (400, "HOST_MISSING")),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_the_server_refuses_by_itself_is_json(server: Server, sent: bytes, expected: tuple[int, str]):
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as client:
        client.sendall(sent)
        answer = read(client)
        assert client.recv(1) == b""

    assert answer.headers["connection"] == "close"
    if b"text/html" in sent:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert (answer.status, b"The request has no Host header" in answer.body) == (expected[0], True)
    elif b"/admin/" in sent:
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.status == expected[0]
    else:
        assert refusal(answer) == expected


@pytest.mark.parametrize("sent", [b"GET /health HTTP/1.0\r\n\r\n", b"GET /health HTTP/1.1\r\nHost:\r\n\r\n"])
def test_a_host_may_be_empty_and_http_1_0_needs_none(server: Server, sent: bytes):
    assert ask(server, sent).status == 200


def test_a_front_server_may_ask_for_a_client_that_named_no_host(server: Server):
    assert ask(server, b"GET /health HTTP/1.1\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n").status == 200


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO", "REMOTE_USER", "Script_Name", "SCRIPT-NAME"])
def test_no_header_moves_the_server_to_another_place(server: Server, name: str):
    for value in ["/nothing", "/admin"]:
        answer = ask(server, head("GET", "/health", f"{name}: {value}"))
        assert (answer.status, json.loads(answer.body)["status"]) == (200, "healthy")

    assert ask(server, head("GET", "/admin/", f"{name}: /admin")).headers["location"].startswith("/admin/login/")


def test_a_flood_of_nonsense_is_some_lines_of_log(server: Server):
    long = "%0a\\x01" * 1000
    floods = [
        b"\x01" * 4000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"\x01" * 4000 + b"\r\n\r\n",
        head("POST", LOGIN + "?" + long, FORM, MADE_UP_CSRF, length=0),
        head("POST", f"/admin/{long}", FORM, length=0),
        head("GET", "/configs", "Host: b").replace(b"Host: localhost\r\n", b"").replace(b"b\r", b"b" * 4000 + b"\r"),
        head("GET", "/admin/", f"X-Forwarded-Host: {long}", f"Cookie: sessionid={long}; csrftoken={long}"),
        head("POST", LOGIN, FORM, MADE_UP_CSRF, f"User-Agent: {long}", length=3) + b"a=b",
    ]
    before = len(server.lines)

    for flood in floods:
        for _ in range(60):
            ask(server, flood)

    lines = server.lines[before:]
    # Of each kind, ten of each worker.
    assert len(lines) <= 20 * len(floods)
    assert lines, "They are told of, though."
    assert max(map(len, lines)) <= LINE_CHARS
