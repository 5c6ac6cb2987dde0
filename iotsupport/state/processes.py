"""Who serves: the master and its workers, and what stands in front of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone

from iotsupport.boards.metrics import HEARD_OF_NGINX
from iotsupport.monitoring import workers
from iotsupport.serving import only_one
from iotsupport.serving.clients import may_be_front_server
from iotsupport.state.findings import Finding, Level
from iotsupport.times import tell

# More are told together.
MOST_WORKERS = 8

# Of the threads of a worker. Strangers and uploads never have all of them.
MANY_THREADS = settings.WORKER_THREADS * 3 // 4

# Within that, a new server has not heard of downloads yet, or there were none.
SOON = timedelta(hours=1)


def look() -> Iterator[Finding]:
    """The server of this directory, and each of its workers."""
    running = only_one.running_server(Path(settings.DATA_DIR))
    if running is None:
        advice = "See in its log why DATA_DIR/server.lock could not be locked when it started."
        yield Finding("Server", Level.LOOK, "Nothing keeps a second server from this DATA_DIR.", advice)
    else:
        yield Finding("Server", Level.FINE, f"{running}")
    living = workers.living()
    if not living:
        says = "Which workers there are is not known: they say so beside their metrics."
        yield Finding("Workers", Level.LOOK, says, "See above what is said of METRICS_DIR.")
    elif len(living) > MOST_WORKERS:
        yield _together(living)
    else:
        yield from map(_judge, living)
    if 0 < len(living) < settings.WEB_CONCURRENCY:
        says = f"{settings.WEB_CONCURRENCY} are to be there, and {len(living)} are."
        yield Finding("Fewer workers", Level.LOOK, says, "One is being started. If it stays so, the log says why not.")


def front_server(request: HttpRequest) -> Finding:
    """Whether nginx, where it answers downloads by itself, tells of them."""
    name = "Front server"
    heard = workers.latest(HEARD_OF_NGINX)
    if heard:
        return Finding(name, Level.FINE, f"nginx told of a download {tell(_moment(heard))}")
    is_fronted = "HTTP_X_FORWARDED_FOR" in request.META and may_be_front_server(request.META.get("REMOTE_ADDR", ""))
    if not is_fronted:
        return Finding(name, Level.FACT, "none: this page came straight from your browser")
    says = "There is one, and it has told of no download since this server started."
    began = [each.gauges[STARTED] for each in workers.living() if STARTED in each.gauges]
    if not began or timezone.now() - _moment(min(began)) < SOON:
        return Finding(name, Level.FACT, says)
    advice = "If it answers downloads by itself, have it tell of them by an access_log, as docs/nginx.md says."
    return Finding(name, Level.LOOK, says, advice)


STARTED, BUSY = "iot_worker_start_time_seconds", "iot_busy_threads"

BUSY_ADVICE = "See in /metrics what takes long. More workers (WEB_CONCURRENCY) help where the processor has room."


def _judge(worker: workers.Worker) -> Finding:
    busy = int(worker.gauges.get(BUSY, 0))
    is_busy = busy >= MANY_THREADS
    since = f"started {tell(_moment(worker.gauges[STARTED]))}, " if STARTED in worker.gauges else ""
    says = f"{since}{busy} of {settings.WORKER_THREADS} threads at work"
    level, advice = (Level.LOOK, BUSY_ADVICE) if is_busy else (Level.FINE, "")
    return Finding(f"Worker {worker.pid}", level, says, advice)


def _together(living: list[workers.Worker]) -> Finding:
    busy = sum(int(worker.gauges.get(BUSY, 0)) for worker in living)
    level, advice = (Level.LOOK, BUSY_ADVICE) if busy >= MANY_THREADS * len(living) else (Level.FINE, "")
    says = f"{len(living)} of them, {busy} of {settings.WORKER_THREADS * len(living)} threads at work"
    return Finding("Workers", level, says, advice)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
