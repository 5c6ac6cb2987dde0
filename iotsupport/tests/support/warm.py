"""Programs of Python's without the half of their start that loads Django: a process that has it forks for each.

It has loaded libraries alone. Settings, models and all else of the product are loaded by the program, in its own
environment and directory, and it ends as Python ends. This is for tests of what commands and servers do; those of how
they start have processes that are new.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parents[3]

# What the product uses that looks neither at settings nor at the environment while it is loaded.
LIBRARIES = [
    "django.contrib.admin.apps",
    "django.contrib.admin.utils",
    "django.contrib.auth.apps",
    "django.contrib.auth.hashers",
    "django.contrib.contenttypes.apps",
    "django.contrib.messages",
    "django.contrib.staticfiles.finders",
    "django.core.checks",
    "django.core.handlers.wsgi",
    "django.core.management",
    "django.db.backends.postgresql.psycopg_any",
    "django.db.backends.sqlite3.base",
    "django.db.migrations",
    "django.forms",
    "django.template.context_processors",
    "django.template.loader",
    "django.urls",
    "django.views.generic",
    "environ",
    "paho.mqtt.client",
]

# Coverage begins with a process.
CAN_BE = "COVERAGE_PROCESS_CONFIG" not in os.environ

# What Python itself looks at when it starts.
OF_THE_INTERPRETER = ("LANG", "LC_", "PYTHON", "TZ")


class Process:
    """One that was forked: what tests use of :class:`subprocess.Popen`. It is the child of the process that forked."""

    def __init__(
        self, arguments: list[str], environ: dict[str, str], *, out: int, err: int, cwd: Path, in_session: bool = False
    ) -> None:
        """``arguments`` are a script and its own, or ``-m`` and a module and its own; ``in_session``: a new one."""
        # For whoever watches which processes are started, and by whom.
        sys.audit("subprocess.Popen", sys.executable, arguments, str(cwd), environ)
        of_the_interpreter = {name: environ[name] for name in environ if name.startswith(OF_THE_INTERPRETER)}
        self._arguments = arguments
        self._told, telling = socket.socketpair()
        asked = {
            "arguments": arguments,
            "environ": environ,
            "cwd": str(cwd),
            "in_session": in_session,
            "umask": re.findall(r"^Umask:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)[0],
        }
        with telling:
            control = _warm_process(frozenset(of_the_interpreter.items()))
            socket.send_fds(control, [json.dumps(asked).encode()], [out, err, telling.fileno()])
        self._answers = self._told.makefile()
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._code_within(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._code_within(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self._arguments, timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _code_within(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], seconds)[0]:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._told.close()
        return self.returncode


def run(arguments: list[str], environ: dict[str, str], limit: float) -> subprocess.CompletedProcess[str]:
    """As :func:`subprocess.run` with ``capture_output`` and ``text``."""
    if not CAN_BE:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=limit)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = Process(arguments, environ, out=out.fileno(), err=err.fileno(), cwd=Path.cwd())
        try:
            code = process.wait(limit)
        except BaseException:
            process.send_signal(signal.SIGKILL)
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


@cache
def _warm_process(environ: frozenset[tuple[str, str]]) -> socket.socket:
    """Start one, and return what takes programs for it. It ends when this process does."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Room for an environment.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    with its:
        command = [sys.executable, "-m", __name__, str(its.fileno())]
        started = subprocess.Popen(
            command, cwd=BASE_DIR, env=dict(environ), stdout=subprocess.DEVNULL, pass_fds=[its.fileno()]
        )

    @atexit.register
    def end() -> None:
        if started.poll() is None:  # as in no fork of this process
            started.terminate()
            started.wait()
        ours.close()

    return ours


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each program, and tell how it ended. Returns in the children, with what they are to do."""
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        looked_at: list[socket.socket | int] = [control, *running]
        ready, _, _ = select.select(looked_at, [], [])
        for handle in [handle for handle in running if handle in ready]:
            pid, telling = running.pop(handle)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.close(handle)
            with telling, suppress(OSError):  # nobody may want to know
                telling.sendall(b"%d\n" % code)
        if control not in ready:
            continue
        asked, handles, _, _ = socket.recv_fds(control, 2**20, 3)
        if not asked:
            sys.exit()
        out, err, reply = handles
        if not (pid := os.fork()):
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            return dict(json.loads(asked))
        os.close(out)
        os.close(err)
        telling = socket.socket(fileno=reply)
        telling.sendall(b"%d\n" % pid)
        running[os.pidfd_open(pid)] = pid, telling


def main() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    control = socket.socket(fileno=int(sys.argv[1]))
    asked = serve(control)
    control.detach()  # closed already
    become(**asked)


def become(arguments: list[str], environ: dict[str, str], cwd: str, in_session: bool, umask: str) -> None:
    """What Python does when it starts, as far as it was not done."""
    if in_session:
        os.setsid()
    os.umask(int(umask, 8))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    for name in [name for name in sys.modules if name.split(".")[0] == "iotsupport"]:
        del sys.modules[name]
    if arguments[0] == "-m":
        sys.path[0] = cwd
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(arguments[0])
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
