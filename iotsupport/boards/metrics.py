"""Boards and their check-ins, counted. What is a fact of the database is asked at the scrape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import Counter, Gauge, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from iotsupport.boards.checkins import WAYS
from iotsupport.boards.models import CONFIGURED, Board, State

CHECK_INS = Counter("iot_checkins_total", "Signs of boards: downloads, and requests for what is not there.", ["way"])
DROPPED = Counter("iot_checkins_dropped_total", "Check-ins that could not be noted.")

HEARD_OF_NGINX = "iot_nginx_heard_time_seconds"
HEARD = Gauge(
    HEARD_OF_NGINX,
    "When nginx told of a download last, in seconds since 1970; 0: not since the server started.",
    multiprocess_mode="max",
)

# All of them from the start on.
_counters: dict[str, Counter] = {way: CHECK_INS.labels(way) for way in WAYS}


def count_check_ins(by_way: Mapping[str, int], dropped: int) -> None:
    for way, count in by_way.items():
        _counters[way].inc(count)
        if way == "nginx":
            HEARD.set_to_current_time()
    if dropped:
        DROPPED.inc(dropped)


class BoardCollector(Collector):
    """Facts of the database: the same whichever worker answers."""

    def collect(self) -> Iterable[Metric]:
        counts = Board.objects.count_states()
        devices = GaugeMetricFamily("iot_devices", "Devices with a configuration, by state.", labels=["state"])
        for state in CONFIGURED:
            devices.add_metric([state.value], counts[state])
        yield devices
        meaning = "Devices with a configuration that were seen, but not within SILENT_AFTER hours."
        yield GaugeMetricFamily("iot_silent_devices", meaning, value=Board.objects.silent().count())
        meaning = "Devices that ask for a configuration and have none."
        yield GaugeMetricFamily("iot_waiting_devices", meaning, value=counts[State.WAITING])
