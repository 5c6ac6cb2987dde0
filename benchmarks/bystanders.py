"""What eight scripts that save leave for others: a ninth in the admin's form, who waits for a message, who downloads.

``python -m benchmarks.bystanders``. Among 200 configurations, through gunicorn, with a live Mosquitto; each alone, then
beside the eight. Needs wrk.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

from benchmarks.crowds import CROWD, MIDDLE, Crowd, Figures, ratios
from benchmarks.fleet import Fleet, filename, fleet
from benchmarks.harness import Server, gunicorn, print_claim, print_table, spread
from benchmarks.savers import PUBLISH_RATE, ApiSaver, FormSaver, Save, Turns, live_broker
from iotsupport.tests.support.mosquitto import Subscriber
from notifications.messages import CONFIGS_TOPIC

DOWNLOADERS = 4
CORES = os.cpu_count() or 1

# The one that the eight leave to others.
LAST = MIDDLE - 1

FORM = "a save in the admin's form"
SAVE, MESSAGE = "a script's save", "from that to its message"
DOWNLOAD = "a download"
EIGHT_BESIDE_FORM = "eight beside the form"
PER_CORE_LEFT = "downloads per core left"

Results = dict[tuple[str, bool], list[Figures]]
"""By what was measured, and whether that was beside the eight."""


class Place(NamedTuple):
    fleet: Fleet
    server: Server
    crowd: Crowd
    subscriber: Subscriber

    @contextmanager
    def eight(self, seconds: float) -> Iterator[Callable[[], Figures]]:
        """Have eight save meanwhile; what they had of it is known at the end."""
        with ThreadPoolExecutor(1) as pool:
            saving = pool.submit(self.crowd.save, seconds, CROWD)
            yield saving.result


def _save_in_form(place: Place, seconds: float) -> dict[tuple[str, bool], Figures]:
    form = FormSaver(place.server.port, place.fleet.session, LAST)
    alone = form.save_until(time.monotonic() + seconds / 2)
    with place.eight(seconds) as eight:
        beside = form.save_until(time.monotonic() + seconds)
    return {
        (FORM, False): Figures.of(alone),
        (FORM, True): Figures.of(beside),
        (EIGHT_BESIDE_FORM, True): eight(),
    }


class _Last(Turns):
    """The same configuration each time."""

    def next(self) -> tuple[int, int]:
        return LAST, time.monotonic_ns()


def _wait_for_messages(place: Place, seconds: float) -> dict[tuple[str, bool], Figures]:
    saver = ApiSaver(place.server.port, place.fleet.token, _Last(1))
    found = dict(_announced(saver, place.subscriber, seconds / 2, False))
    with place.eight(seconds):
        found |= _announced(saver, place.subscriber, seconds, True)
    return found


def _announced(
    saver: ApiSaver, subscriber: Subscriber, seconds: float, beside: bool
) -> Iterator[tuple[tuple[str, bool], Figures]]:
    saves: list[Save] = []
    messages: list[Save] = []
    end = time.monotonic() + seconds
    while not saves or saves[-1].ended < end:
        saves += saver.save(1)
        messages.append(saves[-1]._replace(ended=_arrival(subscriber, saves[-1])))
    yield (SAVE, beside), Figures.of(saves)
    yield (MESSAGE, beside), Figures.of(messages)


def _arrival(subscriber: Subscriber, save: Save) -> float:
    while True:
        message = subscriber.next()
        if save.filename.encode() in message.payload and message.seen > save.began:
            seen: float = message.seen
            return seen


def _download(place: Place, seconds: float) -> dict[tuple[str, bool], Figures]:
    before = place.server.cpu_seconds() + time.process_time()
    eight_alone = place.crowd.save(seconds, CROWD)
    cores = (place.server.cpu_seconds() + time.process_time() - before) / seconds
    alone = _load(place.server, seconds)
    with place.eight(seconds) as eight:
        beside = _load(place.server, seconds)
    # They save less beside downloads, and take so much less of the cores.
    left = max(CORES - cores * eight().rate / eight_alone.rate, 0.1)
    return {
        (DOWNLOAD, False): alone,
        (DOWNLOAD, True): beside,
        (PER_CORE_LEFT, False): alone._replace(rate=alone.rate / CORES),
        (PER_CORE_LEFT, True): beside._replace(rate=beside.rate / left),
    }


def _load(server: Server, seconds: float) -> Figures:
    command = [
        "wrk",
        "--threads=1",
        f"--connections={DOWNLOADERS}",
        "--latency",
        f"--duration={max(1, round(seconds))}",
        f"http://127.0.0.1:{server.port}/configs/{filename(0)}",
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output:
        raise RuntimeError(output)
    [rate] = re.findall(r"Requests/sec: *([\d.]+)", output)
    units = {"us": 0.001, "ms": 1, "s": 1000}
    found = re.findall(r"^ *(?:50|99)% +([\d.]+)(us|ms|s)$", output, re.MULTILINE)
    p50, p99 = [float(number) * units[unit] for number, unit in found]
    return Figures(p50, p99, float(rate))


def take_turns(rounds: int, seconds: float) -> Results:
    results: Results = defaultdict(list)
    with (
        live_broker() as broker,
        fleet(MIDDLE) as devices,
        gunicorn(devices.data_dir, MQTT_URL=broker.url, MQTT_PUBLISH_RATE=PUBLISH_RATE) as server,
        Subscriber(broker.port, topic=CONFIGS_TOPIC, look=lambda message: time.monotonic()) as heard,
    ):
        place = Place(devices, server, Crowd(server.port, devices.token, MIDDLE, CROWD), heard)
        for number in range(rounds + 1):
            for turn in [_save_in_form, _wait_for_messages, _download]:
                for kind, figures in turn(place, seconds).items():
                    if number:  # The first round is to warm up.
                        results[kind].append(figures)
    return results


def _rows(results: Results) -> Iterator[list[str]]:
    for name in [FORM, SAVE, MESSAGE, DOWNLOAD]:
        alone, beside = results[name, False], results[name, True]
        for what, unit, digits in [("p50", "ms", 1), ("p99", "ms", 1), ("rate", "in a second", 0)]:
            spreads = [spread((getattr(each, what) for each in figures), digits) for figures in (alone, beside)]
            yield [name, f"{what}, {unit}", *spreads, spread(ratios(beside, alone, what), 2)]


def _print_claims(results: Results) -> None:
    eight = results[EIGHT_BESIDE_FORM, True]
    waits = median(ratios(results[FORM, True], eight, "p99"))
    print_claim(f"{FORM}, beside {CROWD}: p99 in multiples of theirs", waits, at_most=1)
    refused = sum(figures.refused for turns in results.values() for figures in turns)
    print_claim("scripts that were refused", refused, at_most=0)
    for where, beside in {"alone": False, f"beside {CROWD}": True}.items():
        pairs = zip(results[MESSAGE, beside], results[SAVE, beside], strict=True)
        more = median(message.p50 - save.p50 for message, save in pairs)
        print_claim(f"save to message, {where}: ms more than the save itself", more, at_most=2)
    share = median(ratios(results[PER_CORE_LEFT, True], results[PER_CORE_LEFT, False], "rate"))
    print_claim(f"downloads beside {CROWD}: share of their rate alone, per core left", share, at_least=0.7)
    p99 = median(figures.p99 for figures in results[DOWNLOAD, True])
    print_claim(f"downloads beside {CROWD}: p99 in ms", p99, at_most=10)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.2, help="that eight save, in each turn")
    options = parser.parse_args(arguments)
    results = take_turns(options.rounds, options.seconds)
    print_table([["", "", "alone", f"beside {CROWD}", "ratio"], *_rows(results)])
    print(f"\nMedians of {options.rounds} rounds (range).\n")
    _print_claims(results)


if __name__ == "__main__":
    main()
