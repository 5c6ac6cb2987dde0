"""``/metrics``: what the workers counted together, and what only the database knows."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from iotsupport import __version__
from iotsupport.errors import DATABASE_ERRORS, ApiError, public_view
from iotsupport.monitoring.glance import BusyError, Glance
from iotsupport.monitoring.logs import AT_LENGTH
from iotsupport.monitoring.metrics_files import WorkersCollector, is_shared, mend_files
from iotsupport.monitoring.news import is_news, is_over
from iotsupport.serving.kept_answers import keep_until

logger = logging.getLogger(__name__)

# Collectors that ask the database: once a second at most, in the worker that answers.
database_metrics = CollectorRegistry()

_workers = CollectorRegistry()
_workers.register(WorkersCollector())


class BuildCollector(Collector):
    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("iot_build_info", "1; its label says which version this is.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build


for _registry in [_workers, REGISTRY]:
    _registry.register(BuildCollector())

DATABASE_IS_AWAY = "the database"


@public_view
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer in Prometheus' text format. What is not known is left out: what only a database that is away could tell,
    and what a worker counted whose file is damaged.
    """
    try:
        text = _shared_counts.get()
        try:
            text += _shared_from_database.get()
            keep_until(request, min(_shared_counts.fresh_until, _shared_from_database.fresh_until))
        except BusyError:
            raise
        except TimeoutError:  # The database does not answer.
            text += _is_up(False)
    except BusyError:
        raise ApiError(503, "UNAVAILABLE", "Too many ask for the metrics just now. Ask again in a moment.") from None
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST)


def _counts() -> bytes:
    if not is_shared():
        return generate_latest(REGISTRY)
    mend_files()
    return generate_latest(_workers)


def _from_database() -> bytes:
    """What only the database knows, and whether it answers."""
    try:
        text = generate_latest(database_metrics)
    except DATABASE_ERRORS as error:
        if is_news(DATABASE_IS_AWAY):
            logger.warning("The metrics that the database knows are left out: %s", error, extra=AT_LENGTH)
        return _is_up(False)
    is_over(DATABASE_IS_AWAY)
    return text + _is_up(True)


# Apart: the counts are there while the database is not.
_shared_counts = Glance("counts", _counts)
_shared_from_database = Glance("database", _from_database)


def _is_up(is_up: bool) -> bytes:
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(is_up))
    return generate_latest(registry)


class DatabaseCollector(Collector):
    def __init__(self, is_up: bool) -> None:
        self._is_up = is_up

    def collect(self) -> Iterable[Metric]:
        meaning = "1 while the database answers; while it does not, what only it knows is left out."
        yield GaugeMetricFamily("iot_database_up", meaning, value=int(self._is_up))
