"""What gunicorn's master loads for its children, and the command that it runs in one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iotsupport.serving import only_one
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.server import clean_environ
from iotsupport.tests.support.waiting import LIMIT

pytestmark = pytest.mark.processes

RUN = """
import sys; from pathlib import Path; from iotsupport.serving import handed_over
done = handed_over.manage(Path(sys.argv[1]), ["sync_mirror", "--check"], lambda: print("the end"))
sys.stdout.write(done.stdout); sys.stderr.write(done.stderr); sys.exit(done.returncode % 256)
"""
HEED = "import signal, sys; signal.signal(signal.SIGTERM, lambda *args: sys.exit(0))\n"
LOCK = "from iotsupport.serving import only_one; from pathlib import Path; only_one.take(Path('{}'))\n"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environ = clean_environ({"PYTHONPATH": str(BASE_DIR)})
    return subprocess.run(command, env=environ, input="typed", capture_output=True, text=True, timeout=LIMIT)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "manage.py"


def test_what_is_loaded_sets_up_nothing_that_belongs_to_the_children(tmp_path: Path) -> None:
    code = (
        "import gc, runpy, sys, threading; runpy.run_path('gunicorn.conf.py');"
        "from iotsupport.serving import handed_over; handed_over.load();"
        "from django.apps import apps; from django.conf import settings; from django.db import connections;"
        "print([name for name in ['paho', 'prometheus_client', 'psycopg'] if name in sys.modules],"
        "settings.configured, apps.ready, threading.active_count(), gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    environ = clean_environ({"DATA_DIR": str(tmp_path), "METRICS_DIR": str(tmp_path / "metrics")})

    done = subprocess.run([sys.executable, "-c", code], cwd=BASE_DIR, env=environ, capture_output=True, text=True)

    assert done.stdout == "[] False False 1 True True\n", done.stderr


@pytest.mark.parametrize(
    "ending", ["", "sys.exit()", "sys.exit(3)", "sys.exit('Not today.')", "raise KeyError('no such thing')"]
)
def test_a_command_says_and_ends_as_by_itself(program: Path, ending: str) -> None:
    program.write_text(
        "import os, sys\nassert __name__ == '__main__'\nprint('\N{SNOWMAN}', sys.argv[1:], sys.stdin.read())\n"
        f"print('trouble', file=sys.stderr)\n{ending}\n"
    )
    by_itself = subprocess.run(
        [sys.executable, str(program), "sync_mirror", "--check"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )

    done = run(sys.executable, "-c", RUN, str(program))

    assert done.stdout == f"{by_itself.stdout}the end\n"
    assert done.stderr.splitlines()[-1:] == by_itself.stderr.splitlines()[-1:]
    assert done.returncode == by_itself.returncode


@pytest.mark.parametrize(
    "ending",
    [
        "os.kill(os.getpid(), 9)",
        # In the middle of saying what it has printed.
        "json.dump = lambda said, pipe: (pipe.write('[\"be'), pipe.flush(), os.kill(os.getpid(), 9))",
    ],
)
def test_a_command_that_is_killed_has_not_succeeded(program: Path, ending: str) -> None:
    program.write_text(f"import json, os; print('begun'); {ending}")

    done = run(sys.executable, "-c", RUN, str(program))

    assert (done.returncode, done.stdout, done.stderr) == (-9 % 256, "", "")


def test_a_command_runs_where_its_program_is(program: Path) -> None:
    program.write_text("import os; print(os.getcwd())")

    assert run(sys.executable, "-c", RUN, str(program)).stdout == f"{program.parent}\nthe end\n"


def test_a_master_that_is_told_to_end_takes_its_command_along(program: Path, tmp_path: Path) -> None:
    """As the first process of a container is: see ``first_process``."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    program.write_text(f"open('{gate}').read()")
    environ = clean_environ({"PYTHONPATH": str(BASE_DIR)})
    with (
        subprocess.Popen([sys.executable, "-c", HEED + RUN, str(program)], env=environ) as master,
        open(gate, "wb", buffering=0) as writing,  # waits for the command
    ):
        master.terminate()

        assert master.wait(LIMIT) == 0
        with pytest.raises(BrokenPipeError):
            writing.write(b"there is nobody")


def test_a_command_that_outlives_its_master_keeps_no_other_server_from_starting(program: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    program.write_text(f"open('{gate}').read()")
    code = LOCK.format(tmp_path) + RUN
    environ = clean_environ({"PYTHONPATH": str(BASE_DIR)})
    with (
        subprocess.Popen([sys.executable, "-c", code, str(program)], env=environ) as master,
        open(gate, "w"),  # waits for the command
    ):
        assert only_one.running_server(tmp_path) is not None
        master.kill()
        master.wait(LIMIT)

        assert only_one.running_server(tmp_path) is None
