"""``python -m iotsupport.container.start``: do what has to be done first, as ``make run`` does, then become the server.

It is the first process of its container: nobody else reaps what is left behind, which gunicorn does, and no signal ends
it that it does not heed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from iotsupport import access, settings
from iotsupport.container import DATABASE_AWAY
from iotsupport.serving import first_process

# The server says itself what is wrong with its settings, and starts all the same.
PREPARE = [sys.executable, "manage.py", "prepare", "--skip-checks"]


def main() -> int:
    """Return an exit code only where the server is not started."""
    first_process.heed_its_end()
    if problem := data_problem(settings.DATA_DIR):
        print(f"The server was not started. {problem}", file=sys.stderr)
        return 1
    done = subprocess.run(PREPARE, cwd=settings.BASE_DIR)
    if done.returncode == DATABASE_AWAY:
        print("Until the database answers, devices get what is here, and nothing can be changed.", flush=True)
        # gunicorn reaps it. It makes the first administrator, too, so what it prints is wanted.
        subprocess.Popen([*PREPARE, "--wait"], cwd=settings.BASE_DIR)
    elif done.returncode:
        return 1
    if problem := settings.ENVIRONMENT_PROBLEMS.get("WEB_CONCURRENCY"):
        print(f"{problem} Until it is corrected, it is {settings.WEB_CONCURRENCY}.", flush=True)
    names = ", ".join(settings.ALLOWED_HOSTS)
    print(f"People reach it by the names in ALLOWED_HOSTS ({names}), devices by any.", flush=True)
    become_the_server()
    return 1


def data_problem(path: Path) -> str | None:
    """Return why nothing can be kept in the directory, and what to do on the host, or None."""
    problem = settings.ENVIRONMENT_PROBLEMS.get("DATA_DIR") or access.problem(path)
    if problem is None:
        return None
    if path.is_dir() and os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path} is mounted to be read only. Mount it without that, such as with: -v iotsupport:{path}"
    if access.this_user() not in problem:  # which is named where that is the reason
        return problem
    owner = f"{os.geteuid()}:{os.getegid()}"
    return f"{problem} On the host, give the directory that is mounted there to {owner}: chown -R {owner} DIRECTORY"


def become_the_server() -> None:
    # gunicorn reads it itself, and ends with a traceback where it is no number.
    os.environ["WEB_CONCURRENCY"] = str(settings.WEB_CONCURRENCY)
    first_process.hold_its_end()
    os.chdir(settings.BASE_DIR)
    os.execv(Path(sys.executable).with_name("gunicorn"), ["gunicorn", "iotsupport.wsgi"])  # noqa: S606 - our own


if __name__ == "__main__":
    sys.exit(main())
