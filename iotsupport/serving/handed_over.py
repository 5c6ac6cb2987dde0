"""What gunicorn's master has its children begin with: libraries that each of them would load by itself.

It is half of a command's start and a third of a worker's; and what is loaded before the fork, they have in memory once.
Nothing of it is set up: no settings, no models, no connection, no metric.
"""

from __future__ import annotations

import gc
import io
import json
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess
from typing import NoReturn

from iotsupport.serving import only_one

# The last ones are the API's.
LIBRARIES = [
    "django.contrib.admin",
    "django.core.management",
    "django.core.wsgi",
    "pydantic.json_schema",
    "pydantic.networks",
    "pydantic.types",
]


def load() -> None:
    """Load them, and have nobody look for garbage in them, which would copy them to each child."""
    gc.disable()
    for name in LIBRARIES:
        import_module(name)
    gc.freeze()
    gc.enable()


def manage(program: Path, arguments: Sequence[str], at_end: Callable[[], None]) -> CompletedProcess[str]:
    """Run a management command in a child of this process, which has one thread; ``at_end`` is called in the child.

    ``program`` is ``manage.py``. Its directory becomes the working directory.
    """
    reading, writing = os.pipe()
    # Whoever is told to end now does so when it knows what to end, or not to return.
    unheld = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    child = os.fork()
    if not child:
        os.close(reading)
        _become_a_command(program, arguments, at_end, writing, unheld)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, unheld)
        os.close(writing)
        with open(reading, "rb") as pipe:
            said = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    stdout = stderr = ""
    with suppress(ValueError):  # one that was killed has said nothing, or a part
        stdout, stderr = json.loads(said)
    return CompletedProcess(arguments, os.waitstatus_to_exitcode(status), stdout, stderr)


def _become_a_command(
    program: Path, arguments: Sequence[str], at_end: Callable[[], None], writing: int, unheld: Iterable[int]
) -> NoReturn:
    output, errors, status = io.StringIO(), io.StringIO(), 1
    try:
        # Whatever becomes of the command, another server may begin when this one is killed.
        only_one.give_away()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, unheld)
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        with redirect_stdout(output), redirect_stderr(errors):
            status = _run(program, arguments)
            at_end()
        with open(writing, "w") as pipe:
            json.dump([output.getvalue(), errors.getvalue()], pipe)
    finally:
        # Not into what called the master.
        os._exit(status)


def _run(program: Path, arguments: Sequence[str]) -> int:
    """Return the exit status that the program would have as a process of its own."""
    try:
        os.chdir(program.parent)
        sys.argv = [program.name, *arguments]
        runpy.run_path(str(program), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
