"""``/metrics``: what the workers counted together, and what only the database knows."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from iotsupport import __version__
from iotsupport.errors import DATABASE_ERRORS, ApiError, public_view
from iotsupport.monitoring.disks import DiskCollector
from iotsupport.monitoring.glance import BusyError, Glance
from iotsupport.monitoring.logs import AT_LENGTH
from iotsupport.monitoring.metrics_files import WorkersCollector, is_shared, mend_files
from iotsupport.monitoring.news import is_news, is_over
from iotsupport.serving import credentials
from iotsupport.serving.kept_answers import keep_until
from iotsupport.signals import serving

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


_build = CollectorRegistry()
_build.register(BuildCollector())
_disks = CollectorRegistry()
_disks.register(DiskCollector())

STARTS = Counter("iot_worker_starts_total", "Workers that were started since this server was: each at first, and anew.")


def _count_start(**kwargs: Any) -> None:
    STARTS.inc()


serving.connect(_count_start, dispatch_uid="iotsupport.monitoring.metrics")

DATABASE_IS_AWAY = "the database"


@public_view
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer in Prometheus' text format. What is not known is left out: what only a database that is away could tell,
    and what a worker counted whose file is damaged. Where the settings have a token, 401 is all that others hear.
    """
    if not credentials.may_read_metrics(request.META):
        return credentials.refusal(credentials.BEARER)
    text, is_whole = generate_latest(_build), True
    # And what is told in place of each, where it does not answer.
    glances = [(_shared_counts, b""), (_shared_disks, b""), (_shared_from_database, _is_up(False))]
    try:
        for glance, instead in glances:
            try:
                text += glance.get()
            except BusyError:
                raise
            except TimeoutError:
                text, is_whole = text + instead, False
    except BusyError:
        raise ApiError(503, "UNAVAILABLE", "Too many ask for the metrics just now. Ask again in a moment.") from None
    if is_whole:
        fresh_until = min(glance.fresh_until for glance in [_shared_counts, _shared_disks, _shared_from_database])
        keep_until(request, fresh_until, for_whom=credentials.may_read_metrics)
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


def _look_at_disks() -> bytes:
    return generate_latest(_disks)


# Apart: each of them is there while another is not.
_shared_counts = Glance("counts", _counts)
_shared_disks = Glance("disks", _look_at_disks)
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
