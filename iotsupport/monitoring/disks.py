"""How much room is left where this server writes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SQLITE = "iotsupport.database.sqlite"


def directories() -> dict[str, Path]:
    """Return where this server writes, by the words of metrics: names of an installation are none of theirs."""
    found = {
        "data": Path(settings.DATA_DIR),
        "configs": Path(settings.ESP32_CONFIGS_DIR),
        "assets": Path(settings.ASSETS_DIR),
    }
    database = settings.DATABASES["default"]
    if database["ENGINE"] == SQLITE:
        found["database"] = Path(database["NAME"]).absolute().parent
    return found


class DiskCollector(Collector):
    """Asks the disks: where one hangs, so does this. A directory that is missing is left out."""

    def collect(self) -> Iterable[Metric]:
        free = GaugeMetricFamily("iot_disk_free_bytes", "Room that is left to the server's user.", labels=["directory"])
        size = GaugeMetricFamily("iot_disk_size_bytes", "Size of the file system.", labels=["directory"])
        for word, path in directories().items():
            try:
                found = os.statvfs(path)
            except OSError:
                continue
            free.add_metric([word], found.f_bavail * found.f_frsize)
            size.add_metric([word], found.f_blocks * found.f_frsize)
        return [free, size]
