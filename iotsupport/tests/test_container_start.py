"""How a container starts and says how it is, as far as that needs no container: see ``make container-test``."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from iotsupport import access
from iotsupport import settings as plain_settings
from iotsupport.container import health, start
from iotsupport.serving import first_process
from iotsupport.tests.support.waiting import LIMIT


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if this were the first process of a container."""
    monkeypatch.setattr(first_process, "FIRST", os.getpid())
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGTERM, before)


def test_a_first_process_ends_when_it_is_told_so(first: None) -> None:
    first_process.heed_its_end()

    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 0


def test_what_it_is_told_while_another_program_takes_over_is_kept_for_that(first: None) -> None:
    first_process.heed_its_end()
    first_process.hold_its_end()
    signal.raise_signal(signal.SIGTERM)  # to this thread: there are no others where it is used

    with pytest.raises(SystemExit):
        first_process.heed_its_end()


def test_gunicorns_own_handler_is_left_alone(first: None) -> None:
    """It reads its configuration again at SIGHUP."""
    signal.signal(signal.SIGTERM, of_gunicorn)

    first_process.heed_its_end()

    assert signal.getsignal(signal.SIGTERM) is of_gunicorn


def of_gunicorn(number: int, frame: object) -> None: ...


def test_a_directory_that_can_be_written_is_no_problem(tmp_path: Path) -> None:
    assert start.data_problem(tmp_path) is None


def test_a_directory_of_another_user_is_told_with_the_command_for_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "this_user", lambda: "iotsupport")
    monkeypatch.setattr(access, "problem", lambda path: f"'{path}' cannot be written by the user iotsupport.")
    owner = f"{os.geteuid()}:{os.getegid()}"

    problem = start.data_problem(tmp_path)

    assert problem is not None
    assert problem.endswith(f"chown -R {owner} DIRECTORY")


def test_a_directory_that_cannot_even_be_made_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose it is has nothing to do with a full disk."""
    problem = "DATA_DIR '/data' cannot be made: No space left on device."
    monkeypatch.setitem(plain_settings.ENVIRONMENT_PROBLEMS, "DATA_DIR", problem)

    assert start.data_problem(tmp_path / "missing") == problem


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_is_what_the_server_answers(
    status: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        monkeypatch.setattr(plain_settings, "HOST", "0.0.0.0")  # noqa: S104
        monkeypatch.setattr(plain_settings, "PORT", server.server_port)
        thread = threading.Thread(target=server.handle_request)
        thread.start()

        assert health.main() == code

        thread.join(LIMIT)
    assert capsys.readouterr().out == "/health\n"


def test_a_server_that_does_not_answer_is_not_healthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plain_settings, "PORT", 1)

    assert health.main() == 1

    assert "does not answer" in capsys.readouterr().out
