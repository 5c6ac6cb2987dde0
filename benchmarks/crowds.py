"""How long saves take when many save at once: scripts, one alone, eight, sixty-four, through gunicorn.

``python -m benchmarks.crowds``. Configurations of 1,000 bytes, with notifications on and a live Mosquitto. Beside them,
in the same rounds: ``DeviceConfig.save`` in one process; what no save can do without (a raw commit, and a file written,
synced and renamed); and a plain Django view that does just that, for as many scripts.
"""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from statistics import median
from typing import NamedTuple

from benchmarks.fleet import fleet
from benchmarks.harness import data_directory, gunicorn, percentile, print_claim, print_table, spread
from benchmarks.savers import PUBLISH_RATE, ApiSaver, ModelSaver, RawSaver, Save, Saver, Turns, live_broker

SIZES = [10, 200, 1_000]
MIDDLE = 200
CROWD, LARGE_CROWD = 8, 64
PLAIN = "plain Django view"


class Figures(NamedTuple):
    """Of one turn: milliseconds, how many in a second, and how many of the clients were refused."""

    p50: float
    p99: float
    rate: float
    refused: int = 0

    @classmethod
    def of(cls, saves: Sequence[Save], refused: int = 0) -> Figures:
        milliseconds = [1000 * save.seconds for save in saves]
        took = max(save.ended for save in saves) - min(save.began for save in saves)
        return cls(percentile(milliseconds, 0.5), percentile(milliseconds, 0.99), len(saves) / took, refused)


class Crowd:
    """Scripts that save at the same time, a thread each. They leave the last configuration to others."""

    def __init__(self, port: int, token: str, size: int, clients: int = LARGE_CROWD) -> None:
        # Each begins at another place, as seldom as possible where others are.
        self._savers = [ApiSaver(port, token, Turns(size - 1, 97 * number)) for number in range(clients)]

    def save(self, seconds: float, clients: int) -> Figures:
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as pool:
            turns = [pool.submit(saver.save_until, end) for saver in self._savers[:clients]]
        errors = [error for turn in turns if (error := turn.exception()) is not None]
        if len(errors) == clients or not all(isinstance(error, RuntimeError | OSError) for error in errors):
            raise errors[0]
        saves = [save for turn in turns if turn.exception() is None for save in turn.result()]
        return Figures.of(saves, len(errors))


class Kind(NamedTuple):
    """Who saves, among how many configurations, and how many do so at once."""

    name: str
    size: int
    clients: int


Results = dict[Kind, list[Figures]]
Turn = Callable[[], Figures]


def _one(saver: Saver, times: int) -> Figures:
    saver.save(3)  # wakes it up
    return Figures.of(saver.save(times))


def _many(crowd: Crowd, seconds: float, clients: int) -> Figures:
    crowd.save(0, clients)  # wakes it up
    return crowd.save(seconds, clients)


@contextmanager
def _turns_among(size: int, times: int, seconds: float) -> Iterator[dict[Kind, Turn]]:
    with ExitStack() as stack:
        run = stack.enter_context
        broker, devices = run(live_broker()), run(fleet(size))
        server = run(gunicorn(devices.data_dir, MQTT_URL=broker.url, MQTT_PUBLISH_RATE=PUBLISH_RATE))
        crowd = Crowd(server.port, devices.token, size)
        yield {
            Kind(RawSaver.name, size, 1): partial(_one, run(RawSaver.run(devices)), times),
            Kind(ModelSaver.name, size, 1): partial(_one, run(ModelSaver.run(devices, broker.url)), times),
            **_turns_of(ApiSaver.name, size, crowd, seconds),
        }


@contextmanager
def _plain_turns(seconds: float) -> Iterator[dict[Kind, Turn]]:
    with data_directory() as data_dir:
        with closing(sqlite3.connect(data_dir / "plain.sqlite3")) as database:
            database.execute("CREATE TABLE plain (name TEXT PRIMARY KEY, content TEXT NOT NULL)")
        options = {"application": "benchmarks.plain_saves", "BENCHMARK_DIR": str(data_dir)}
        with gunicorn(data_dir, "--worker-class=gthread", **options) as server:
            yield _turns_of(PLAIN, MIDDLE, Crowd(server.port, "", MIDDLE), seconds)


def _turns_of(name: str, size: int, crowd: Crowd, seconds: float) -> dict[Kind, Turn]:
    turns = {1: seconds / 3, CROWD: seconds}
    if size == MIDDLE:
        turns[LARGE_CROWD] = 2 * seconds
    return {Kind(name, size, clients): partial(_many, crowd, length, clients) for clients, length in turns.items()}


def take_turns(sizes: Sequence[int], rounds: int, times: int, seconds: float) -> Results:
    with ExitStack() as stack:
        turns = stack.enter_context(_plain_turns(seconds))
        for size in sizes:
            turns |= stack.enter_context(_turns_among(size, times, seconds))
        results: Results = defaultdict(list)
        for number in range(rounds + 1):
            # Each comes first as often as the others.
            first = number * len(turns) // (rounds + 1)
            for kind in [*turns][first:] + [*turns][:first]:
                figures = turns[kind]()
                if number:  # The first round is to warm up.
                    results[kind].append(figures)
        return results


def _rows(results: Results) -> Iterator[list[str]]:
    for kind, figures in sorted(results.items(), key=lambda item: _place(item[0])):
        plain = results[Kind(PLAIN, MIDDLE, kind.clients)]
        yield [
            kind.name,
            f"{kind.size:,}",
            str(kind.clients),
            spread((each.p50 for each in figures), 1),
            spread((each.p99 for each in figures), 1),
            spread(each.rate for each in figures),
            spread(ratios(figures, plain, "p50"), 2),
            spread(ratios(figures, plain, "rate"), 2),
        ]


def _place(kind: Kind) -> tuple[int, int, int]:
    names = [RawSaver.name, PLAIN, ModelSaver.name, ApiSaver.name]
    return names.index(kind.name), kind.clients, kind.size


def ratios(ones: Sequence[Figures], others: Sequence[Figures], what: str) -> list[float]:
    """Round by round."""
    return [getattr(one, what) / getattr(other, what) for one, other in zip(ones, others, strict=True)]


def _print_claims(results: Results) -> None:
    alone, eight, many = [results[Kind(ApiSaver.name, MIDDLE, clients)] for clients in (1, CROWD, LARGE_CROWD)]
    refused = sum(figures.refused for turns in results.values() for figures in turns)
    who = f"{CROWD} clients among {MIDDLE}"
    print_claim(f"{who}: saves in a second", median(figures.rate for figures in eight), at_least=300)
    p99, p50 = median(figures.p99 for figures in eight), median(figures.p50 for figures in alone)
    print_claim(f"{who}: p99 in multiples of the p50 of one alone", p99 / p50, at_most=12)
    growth = median(figures.p99 for figures in many) / p99
    print_claim(f"{LARGE_CROWD} clients: p99 in multiples of that of {CROWD}", growth, at_most=LARGE_CROWD / CROWD)
    print_claim("clients that were refused", refused, at_most=0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help=f"{MIDDLE} is one of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=20, help="saves in one process, in each turn")
    parser.add_argument("--seconds", type=float, default=1.2, help="that eight save, in each turn")
    options = parser.parse_args(arguments)
    results = take_turns(options.sizes, options.rounds, options.times, options.seconds)
    head = ["", "configurations", "clients", "p50, ms", "p99, ms", "saves/s", "p50: ratio to plain", "saves/s: ratio"]
    print_table([head, *_rows(results)])
    print(f"\nMedians of {options.rounds} rounds (range). The ratios are to as many clients of the plain view.\n")
    _print_claims(results)


if __name__ == "__main__":
    main()
