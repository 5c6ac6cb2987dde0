"""How long after a save its message arrives at a subscriber.

``python -m benchmarks.messages``. From before the save to the arrival; beside it, a raw publish with paho over the same
broker. ``MQTT_PUBLISH_RATE`` is set so high that the pace of announcements is not what is measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

from paho.mqtt.client import MQTTMessage

from benchmarks.fleet import fleet
from benchmarks.harness import print_claim, print_table, spread
from benchmarks.savers import ApiSaver, ModelSaver, Saver, live_broker
from iotsupport.tests.support.mosquitto import Subscriber
from notifications.messages import CONFIGS_TOPIC

SIZES = [10, 100_000]
RAW_TOPIC = "iotsupport/benchmark"

Times = dict[tuple[str, int], list[float]]
"""In milliseconds, medians of each turn: by who saved, and among how many."""


def _now(message: MQTTMessage) -> float:
    return time.monotonic()


def _save(saver: Saver, subscriber: Subscriber, times: int) -> tuple[float, float]:
    """Return the medians of saves, and of the times until their messages arrived, in milliseconds."""
    saves, arrivals = [], []
    for _ in range(times):
        [save] = saver.save(1)
        message = subscriber.next()
        if json.loads(message.payload)["filename"] != save.filename:
            raise RuntimeError(f"{message.payload!r} came instead of {save.filename}.")
        saves.append(1000 * save.seconds)
        arrivals.append(1000 * (message.seen - save.began))
    return median(saves), median(arrivals)


def _publish(subscriber: Subscriber, times: int) -> float:
    """Return the median of the times until published messages arrived, in milliseconds."""
    arrivals = []
    for number in range(times):
        began = time.monotonic()
        subscriber.publish(RAW_TOPIC, str(number).encode())
        arrivals.append(1000 * (subscriber.next().seen - began))
    return median(arrivals)


def take_turns(sizes: Sequence[int], rounds: int, times: int) -> tuple[list[float], Times, Times]:
    """Return raw publishes, saves, and arrivals."""
    with ExitStack() as stack:
        broker = stack.enter_context(live_broker())
        savers: dict[tuple[str, int], Saver] = {}
        for size in sizes:
            each = stack.enter_context(fleet(size))
            savers[ModelSaver.name, size] = stack.enter_context(ModelSaver.run(each, broker.url))
            savers[ApiSaver.name, size] = stack.enter_context(ApiSaver.run(each, broker.url))
        heard = stack.enter_context(Subscriber(broker.port, topic=CONFIGS_TOPIC, look=_now))
        raw = stack.enter_context(Subscriber(broker.port, topic=RAW_TOPIC, look=_now))
        for saver in savers.values():
            _save(saver, heard, times)  # by then, every process is connected to the broker
        publishes: list[float] = []
        saves: Times = defaultdict(list)
        arrivals: Times = defaultdict(list)
        for _ in range(rounds):
            publishes.append(_publish(raw, times))
            for key, saver in savers.items():
                took, arrived = _save(saver, heard, times)
                saves[key].append(took)
                arrivals[key].append(arrived)
    return publishes, saves, arrivals


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--times", type=int, default=20, help="saves in each turn")
    options = parser.parse_args(arguments)
    publishes, saves, arrivals = take_turns(options.sizes, options.rounds, options.times)
    rows = [["", "configurations", "save alone, ms", "save to message, ms", "between them, ms"]]
    rows.append(["raw publish, QoS 1", "", "", spread(publishes, 2), ""])
    after = {}
    for (name, size), took in saves.items():
        arrived = arrivals[name, size]
        after[name, size] = [one - other for one, other in zip(arrived, took, strict=True)]
        rows.append([name, f"{size:,}", spread(took, 2), spread(arrived, 2), spread(after[name, size], 2)])
    print_table(rows)
    print()
    for (name, size), milliseconds in after.items():
        print_claim(f"{name} to message, among {size:,}: ms more than the save itself", median(milliseconds), at_most=2)


if __name__ == "__main__":
    main()
