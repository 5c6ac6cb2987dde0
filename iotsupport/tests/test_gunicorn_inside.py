"""What our worker uses of gunicorn's inside is still there; what says no is the first to change for a new version."""

from __future__ import annotations

import ast
import errno
import inspect
import logging
import os
import re
import selectors
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import gunicorn
import pytest
from gunicorn.config import Config
from gunicorn.errors import ConfigError
from gunicorn.glogging import Logger
from gunicorn.http import RequestParser
from gunicorn.workers.gthread import TConn, ThreadWorker

from iotsupport import serving
from iotsupport.serving.connections import ClientSocket, Connection, FilePart, accept_some
from iotsupport.serving.worker import INSIDE_OF_GUNICORN, Worker

NAMES = {place: re.findall(r"(\w+)(?:(\()([\w,]*)\))?", names) for place, names in INSIDE_OF_GUNICORN.items()}
SOURCES = sorted(Path(serving.__path__[0]).glob("*.py"))


class Application:
    """What gunicorn takes the WSGI application from."""

    def wsgi(self) -> None:
        pass


@pytest.fixture
def instances() -> Iterator[dict[str, Any]]:
    """What has values that are set when it is made."""
    config = Config()
    ours, theirs = socket.socketpair()
    worker = ThreadWorker(0, os.getpid(), [], Application(), 30, config, Logger(config))
    worker.load_wsgi()
    with ours, theirs, closing(worker.tmp):
        parser = RequestParser(config, iter([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"]), None)
        request = next(parser)
        yield {
            "workers.gthread.ThreadWorker": worker,
            "workers.gthread.TConn": TConn(config, ours, None, None),
            "http.RequestParser": parser,
            "http.message.Request": request,
            "http.body.Body": request.body,
            "http.body.LengthReader": request.body.reader,
        }


def find(place: str) -> Any:
    """What gunicorn has at a place; None where there is nothing."""
    found: Any = gunicorn
    for name in filter(None, place.split(".")):
        if not hasattr(found, name):
            try:
                import_module(f"{found.__name__}.{name}")
            except ImportError:
                return None
        found = getattr(found, name, None)
    return found


def parameters(function: Any, count: int) -> list[str]:
    """The names of the first ones, and of those that have to be given besides."""
    kinds = inspect.Parameter
    taken = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
    return [
        each.name
        for i, each in enumerate(taken)
        if i < count or (each.default is kinds.empty and each.kind not in {kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD})
    ]


def is_there(thing: Any, name: str, is_called: str, given: str) -> bool:
    expected = given.split(",") if given else []
    return hasattr(thing, name) and (not is_called or parameters(getattr(thing, name), len(expected)) == expected)


def test_what_our_worker_uses_is_there(instances):
    changed = []
    for place, names in NAMES.items():
        thing = instances.get(place) or find(place)
        path = ".".join(filter(None, ["gunicorn", place]))
        if thing is None:
            changed.append(path)
        else:
            changed += [f"{path}.{name[0]}{name[1] and '(…)'}" for name in names if not is_there(thing, *name)]

    assert not changed, (
        f"gunicorn {gunicorn.__version__} has changed what our worker uses: {', '.join(changed)}."
        " Look how gunicorn does it now, and change iotsupport/serving before you take this version."
    )


def test_whatever_is_imported_from_gunicorn_is_listed():
    imported = {
        f"{node.module}.{name.name}".removeprefix("gunicorn.")
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gunicorn"
        for name in node.names
    }

    assert imported <= NAMES.keys() | {name for name, *_ in NAMES[""]}


def test_what_is_asked_of_the_worker_and_not_our_own_is_listed():
    asked: set[str] = set()
    ours = set(vars(Worker))
    for source in SOURCES:
        worker = "self" if source.name == "worker.py" else "self._worker"
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == worker:
                (asked if isinstance(node.ctx, ast.Load) else ours).add(node.attr)

    listed = {name for name, *_ in NAMES["workers.gthread.ThreadWorker"]}
    assert asked - ours <= listed


def test_a_file_that_was_cut_short_ends_the_connection_instead_of_the_worker(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"four")
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "file").open("rb") as file:
        part = FilePart(file.fileno(), 0, 10)
        assert not part.send(ours.fileno())

        with pytest.raises(ConnectionAbortedError, match="shorter"):
            part.send(ours.fileno())

        assert theirs.recv(100) == b"four"


def test_a_client_that_is_gone_before_it_is_taken_keeps_no_other_waiting() -> None:
    ours, theirs = socket.socketpair()
    coming: list[Any] = [ConnectionAbortedError(), (ours, ("192.0.2.1", 1)), BlockingIOError()]

    class Listener:
        def accept(self) -> Any:
            if isinstance(coming[0], Exception):
                raise coming.pop(0)
            return coming.pop(0)

    with theirs:
        [(taken, address)] = accept_some(Listener(), 10)

        assert address == ("192.0.2.1", 1)
        taken.close()
    assert coming == []


def test_https_is_left_to_a_front_server() -> None:
    config = Config()
    config.set("certfile", "certificate.pem")

    with pytest.raises(ConfigError, match="let a front server speak HTTPS"):
        Worker.check_config(config, Logger(config))

    Worker.check_config(Config(), Logger(config))


@pytest.fixture
def worker() -> Iterator[Worker]:
    config = Config()
    worker = Worker(0, os.getpid(), [], Application(), 30, config, Logger(config))
    worker.load_wsgi()
    with closing(worker.tmp):
        yield worker


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What gunicorn logs, which goes nowhere else."""
    monkeypatch.setattr(logging.getLogger("gunicorn.error"), "propagate", True)
    return caplog


def test_that_no_more_files_can_be_opened_is_said_and_ends_no_worker(
    worker: Worker, said: pytest.LogCaptureFixture
) -> None:
    class Listener:
        def accept(self) -> Any:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    worker.accept(Listener())

    assert said.messages == ["No connection can be taken just now: [Errno 24] Too many open files"]


def test_a_mistake_of_ours_costs_one_connection(worker: Worker, said: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()

    def make_a_mistake(conn: Connection) -> None:
        raise ZeroDivisionError

    with theirs:
        conn = Connection(worker.cfg, ClientSocket(ours), ("192.0.2.1", 1), ("127.0.0.1", 8000))
        worker.take(make_a_mistake, conn)

        assert theirs.recv(1) == b""
    assert said.messages == ["Dropping a connection"]
    assert said.records[0].exc_info


def test_what_went_wrong_beside_the_application_is_logged_and_answered(
    worker: Worker, said: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        client = ClientSocket(ours)
        worker.handle_error(None, client, ("192.0.2.1", 1), ZeroDivisionError())
        assert client.flush()
        client.close()

        assert theirs.recv(1000).startswith(b"HTTP/1.1 500 ")
    assert said.messages == ["Could not answer a request"]


@pytest.mark.parametrize(
    ("is_asked", "status"),
    [(lambda answer: answer.set_result(None), 503), (lambda answer: answer.set_exception(OSError()), 500)],
)
def test_a_large_body_is_refused_where_nobody_can_say_whether_it_may_come(
    worker: Worker, said: pytest.LogCaptureFixture, is_asked: Callable[[Future[Any]], None], status: int
) -> None:
    ours, theirs = socket.socketpair()
    worker.poller = selectors.DefaultSelector()
    answer: Future[Any] = Future()
    is_asked(answer)
    with closing(worker.poller), theirs:
        conn = Connection(worker.cfg, ClientSocket(ours), ("192.0.2.1", 1), ("127.0.0.1", 8000))
        worker._collector._admitted(answer, conn)
        conn.sock.flush()

        assert theirs.recv(1000).startswith(b"HTTP/1.1 %d " % status)
        conn.sock.close()
    assert said.messages == ([] if status == 503 else ["Could not answer a request"])
