"""When the last backup was made: a fact of the database, asked at the scrape."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from iotsupport.backup.models import last_backup


class BackupCollector(Collector):
    def collect(self) -> Iterable[Metric]:
        last = last_backup()
        meaning = "When 'manage.py backup' made the last one, in seconds since 1970; 0: never."
        yield GaugeMetricFamily("iot_backup_time_seconds", meaning, value=last.at.timestamp() if last else 0)
