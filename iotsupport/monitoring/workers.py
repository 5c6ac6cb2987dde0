"""What each worker of this server says of itself, beside its metrics: since when it is there, and how busy it is.

Imported by ``iotsupport.wsgi``, in the workers; any other process only reads it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from prometheus_client import Gauge

from iotsupport.monitoring import metrics_directory
from iotsupport.monitoring.metrics_files import DAMAGES, read_entries

BUSY = Gauge("iot_busy_threads", "Threads of all workers that have a request of Django's.", multiprocess_mode="livesum")
STARTED = Gauge(
    "iot_worker_start_time_seconds",
    "When the worker began that is there for longest, in seconds since 1970.",
    multiprocess_mode="livemin",
)
STARTED.set_to_current_time()

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def counted(application: Wsgi) -> Wsgi:
    """Count who is in a WSGI application."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        BUSY.inc()
        try:
            return application(environ, start_response)
        finally:
            BUSY.dec()

    return answer


class Worker(NamedTuple):
    """A worker that lives, and its gauges without labels, by their names."""

    pid: int
    gauges: dict[str, float]


def living() -> list[Worker]:
    """The workers of this server, by process id; none where there is no place for metrics."""
    workers: dict[int, Worker] = {}
    for name in _files():
        pid = int(name.removesuffix(".db").rpartition("_")[2])
        if name.startswith("gauge_live") and _is_alive(pid):
            gauges = workers.setdefault(pid, Worker(pid, {})).gauges
            gauges.update(_gauges(name))
    return [workers[pid] for pid in sorted(workers)]


def latest(metric: str) -> float:
    """The largest value of a gauge of all workers, the dead ones too, that is kept so; 0 where there is none."""
    return max((_gauges(name).get(metric, 0.0) for name in _files() if name.startswith("gauge_max_")), default=0.0)


def _files() -> list[str]:
    directory = metrics_directory.current()
    try:
        names = os.listdir(directory) if directory else []
    except OSError:
        return []
    return [
        name for name in names if name.startswith("gauge_") and name.removesuffix(".db").rpartition("_")[2].isdigit()
    ]


def _gauges(name: str) -> dict[str, float]:
    found = {}
    with suppress(*DAMAGES):
        for key, value, *_ in read_entries(f"{metrics_directory.current()}/{name}"):
            metric, _, labels, *_ = json.loads(key)
            if not labels:
                found[metric] = value
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return True
