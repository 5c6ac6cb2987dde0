"""What happens to configurations, counted. Labels come from short fixed lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from time import perf_counter
from typing import Any

from django.http.response import HttpResponseBase
from prometheus_client import Counter, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from devices.models import DeviceConfig

View = Callable[..., HttpResponseBase]

OPERATIONS = Counter(
    "iot_config_operations_total", "Operations on device configurations, by outcome.", ["operation", "status"]
)
DURATION = Histogram(
    "iot_config_operation_duration_seconds", "Time taken by operations on configurations.", ["operation"]
)

# All of them from the start on; and a download is too cheap to look its labels up each time.
_names = ["list", "get", "get_raw", "save", "delete"]
_durations = {name: DURATION.labels(name) for name in _names}
_counters = {(name, status): OPERATIONS.labels(name, status) for name in _names for status in ["success", "error"]}


@contextmanager
def track(operation: str) -> Iterator[None]:
    """Count one operation, and as an error if it raises."""
    start = perf_counter()
    status = "error"
    try:
        yield
        status = "success"
    finally:
        count(operation, status, perf_counter() - start)


def track_answers(operation: str) -> Callable[[View], View]:
    """Count what a view answers: one operation each, and an error where it refuses or raises."""

    def decorate(view: View) -> View:
        @wraps(view)
        def counted(*args: Any, **kwargs: Any) -> HttpResponseBase:
            start, status = perf_counter(), 500
            try:
                response = view(*args, **kwargs)
                status = response.status_code
                return response
            finally:
                count_answer(operation, status, perf_counter() - start)

        return counted

    return decorate


def count_answer(operation: str, status_code: int, seconds: float) -> None:
    count(operation, "error" if status_code >= 400 else "success", seconds)


def count_save(refusal_code: str | None, seconds: float) -> None:
    """Count what became of a change in the admin."""
    count("save", "success" if refusal_code is None else "error", seconds)


def count(operation: str, status: str, seconds: float) -> None:
    _counters[operation, status].inc()
    _durations[operation].observe(seconds)


class ConfigCollector(Collector):
    """Facts of the database, asked at scrape time: the same whichever worker answers."""

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "iot_config_files_count", "Device configurations that are served.", value=DeviceConfig.objects.count()
        )
