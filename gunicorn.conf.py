"""How gunicorn serves IoT Support: read from the working directory by ``gunicorn iotsupport.wsgi``.

The master imports the settings as plain values and sets up nothing of Django: a broker's client or a metric made
before the fork would be the workers' in name only. It loads libraries, which then no child has to.
"""

import os
import resource
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import gunicorn

from iotsupport import settings
from iotsupport.monitoring import logs, metrics_directory
from iotsupport.monitoring.news import is_news
from iotsupport.serving import clients, first_process, handed_over, only_one, systemd

first_process.heed_its_end()

ROOT = Path(__file__).resolve().parent

bind = f"[{settings.HOST}]:{settings.PORT}" if ":" in settings.HOST else f"{settings.HOST}:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "iotsupport.serving.worker.Worker"
# They run the application; none waits for a slow download, and three in four of them at most for a large upload of
# somebody who may.
threads = settings.WORKER_THREADS
# Of each worker: that many slow clients can there be.
worker_connections = 4096
# Seconds. Connections that are kept alive hold no thread.
keepalive = 15
timeout = 60
# When the server ends: so many seconds after being told, the master kills a worker that is still there.
graceful_timeout = 15
# A worker gives slow downloads up so much earlier: in the rest of the time it sends what is still to be announced.
DRAIN_SECONDS = 5
# Where each worker says that it lives: in memory, where there is any, so that a disk that hangs makes none seem dead.
worker_tmp_dir = str(metrics_directory.SHARED_MEMORY) if os.access(metrics_directory.SHARED_MEMORY, os.W_OK) else None
# Its socket has one path for each user: two servers would share it.
control_socket_disable = True

# No header stands for SCRIPT_NAME or PATH_INFO: on this machine, everybody is a front server. Nor for another header:
# X_Remote_User would be X-Remote-User to an application.
forwarder_headers = ""
header_map = "drop"
# Whose X-Forwarded-Proto is believed.
forwarded_allow_ips = ",".join(clients.forwarders(settings.TRUSTED_PROXIES))

accesslog = None
errorlog = "-"  # standard error
logger_class = "iotsupport.monitoring.server_log.ServerLogger"


def _allow_open_files() -> None:
    """Raise the limit, often 1024: a slow download takes one for the client and one for the file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * worker_connections + 512
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


_allow_open_files()
systemd.take_datagram_socket()


# After SIGUSR2, a server that was begun with `python -m gunicorn` looks for modules in gunicorn's own directory first,
# and takes its `http` for Python's.
OF_GUNICORN = os.path.dirname(os.path.realpath(gunicorn.__file__))
sys.path[:] = [path for path in sys.path if os.path.realpath(path) != OF_GUNICORN]

# Where there is no place for metrics, it is where nothing can be put: counts of one worker at a time would be wrong.
METRICS_DIR = settings.METRICS_DIR or Path(os.devnull)

# prometheus_client looks at these while it is imported, in the workers.
os.environ["PROMETHEUS_DISABLE_CREATED_SERIES"] = "true"
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(METRICS_DIR)


def on_starting(server: Any) -> None:
    """Say what is wrong with the environment, and make the files equal to the database; then serve in any case.

    Unless another server does: two would listen for one nginx, and share what is counted.
    """
    try:
        only_one.take(settings.DATA_DIR)
    except only_one.TakenError as error:
        server.log.error("%s", error)
        sys.exit(1)
    except OSError as error:
        server.log.warning("Nothing keeps a second server from '%s': %s", settings.DATA_DIR, error)
    only_one.say_where(server.cfg.bind)
    if metrics_directory.prepare(METRICS_DIR):
        is_news(str(METRICS_DIR))  # which a system check says in a moment
    handed_over.load()
    # A command runs the system checks first: one process for both, since starting it is what takes time.
    done = _sync_mirror(server)
    if done.returncode and "SystemCheckError" in done.stderr:
        # A value that cannot be right stops commands, but not the server.
        done = _sync_mirror(server, "--skip-checks")
    if done.returncode:
        server.log.error("Files may differ from the database: 'manage.py sync_mirror' failed.")


def _sync_mirror(master: Any, *options: str) -> subprocess.CompletedProcess[str]:
    # A command is no worker: its metrics are not added to theirs.
    directory = os.environ.pop("PROMETHEUS_MULTIPROC_DIR")
    try:
        done = handed_over.manage(ROOT / "manage.py", ["sync_mirror", *options], _finish)
    finally:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
    _log(master, done)
    return done


def _sync_mirror_again(worker: Any) -> None:
    """As the master does it, in a process of its own: a worker has threads, and all that no command may have."""
    environ = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    done = subprocess.run(
        [sys.executable, "manage.py", "sync_mirror", "--skip-checks"],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    _log(worker, done)


def _log(speaker: Any, done: subprocess.CompletedProcess[str]) -> None:
    for output in [done.stderr.strip(), done.stdout.strip()]:
        if output:
            is_trouble = done.returncode or "System check identified" in output
            (speaker.log.warning if is_trouble else speaker.log.info)("manage.py sync_mirror: %s", output)


def pre_exec(server: Any) -> None:
    """Give the socket of check-ins, and the lock, to the master that takes over: see SIGUSR2."""
    systemd.leave_to(server.cfg.env_orig)
    only_one.leave_to(server.cfg.env_orig)


def when_ready(server: Any) -> None:
    """Forget the metrics of the server that ran before: the port is ours, and there are no workers yet."""
    only_one.say_where([str(listener) for listener in server.LISTENERS])
    if server.master_pid:  # Started by SIGUSR2: the old master's workers still count.
        return
    with suppress(OSError):
        metrics_directory.forget(METRICS_DIR)


def on_exit(server: Any) -> None:
    """Give back the memory of the metrics, unless another server goes on counting there: see SIGUSR2."""
    if not server.reexec_pid and not server.master_pid:
        metrics_directory.remove(METRICS_DIR, settings.DATA_DIR)


def post_fork(server: Any, worker: Any) -> None:
    only_one.give_away()
    worker.takes_over_from = server.master_pid  # 0, but after SIGUSR2
    worker.cfg.set("graceful_timeout", graceful_timeout - DRAIN_SECONDS)  # for itself: the master goes by its own
    logs.bound(worker.log.error_log)  # what the master logs is no stranger's


def post_worker_init(worker: Any) -> None:
    """Make the files equal again where another worker died: perhaps between the commit of a change and its file.

    Of a server that takes over, a worker that is there can serve: under systemd, the old one may end.
    """
    if worker.takes_over_from:
        systemd.take_over(worker.takes_over_from, worker.log)
    if worker.age > workers:
        threading.Thread(target=_sync_mirror_again, args=[worker], daemon=True).start()


def worker_exit(server: Any, worker: Any) -> None:
    """Write what boards did, and send what is still to be announced.

    ``atexit`` is not enough: it waits for every thread, or never runs.
    """
    _finish()


def _finish() -> None:
    boards = sys.modules.get("iotsupport.boards.collector")
    if boards is not None:
        boards.collector.stop()
    notifications = sys.modules.get("notifications.publisher")
    if notifications is not None:
        notifications.publisher.stop()


def child_exit(server: Any, worker: Any) -> None:
    """Drop the gauges of a dead worker; what it counted stays counted."""
    from prometheus_client import multiprocess

    from iotsupport.monitoring.metrics_files import give_back_room

    with suppress(OSError):  # whatever it is, the master goes on
        multiprocess.mark_process_dead(worker.pid)
        give_back_room(METRICS_DIR, worker.pid)
