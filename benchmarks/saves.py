"""What a save takes, among few configurations and among many.

``python -m benchmarks.saves``. With notifications on and a live Mosquitto; beside it, what no save can do without: a
raw commit of one row, and one file of the same bytes written, synced and renamed in the same directory.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

from benchmarks.fleet import fleet
from benchmarks.harness import print_claim, print_table, spread
from benchmarks.savers import ApiSaver, ModelSaver, RawSaver, Saver, live_broker

SIZES = [10, 1_000, 10_000, 100_000]

Medians = dict[tuple[str, int], list[float]]
"""In milliseconds, of each turn: by who saved, and among how many."""


def take_turns(sizes: Sequence[int], rounds: int, times: int) -> Medians:
    with ExitStack() as stack:
        broker = stack.enter_context(live_broker())
        savers: dict[tuple[str, int], Saver] = {}
        for size in sizes:
            each = stack.enter_context(fleet(size))
            savers[RawSaver.name, size] = stack.enter_context(RawSaver.run(each))
            savers[ModelSaver.name, size] = stack.enter_context(ModelSaver.run(each, broker.url))
            savers[ApiSaver.name, size] = stack.enter_context(ApiSaver.run(each, broker.url))
        medians: Medians = defaultdict(list)
        for number in range(rounds + 1):
            # Each comes first as often as the others.
            order = [*savers][number % len(savers) :] + [*savers][: number % len(savers)]
            for key in order:
                savers[key].save(3)  # wakes it up
                seconds = [save.seconds for save in savers[key].save(times)]
                if number:  # The first round is to warm up.
                    medians[key].append(1000 * median(seconds))
    return medians


def _ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(numerators, denominators, strict=True)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--times", type=int, default=25, help="saves in each turn")
    options = parser.parse_args(arguments)
    fewest, most = options.sizes[0], options.sizes[-1]
    medians = take_turns(options.sizes, options.rounds, options.times)
    rows = [["", "configurations", "ms: median of the turns' medians (range)", f"ratio to {fewest}", "ratio to raw"]]
    for name in [RawSaver.name, ModelSaver.name, ApiSaver.name]:
        for size in options.sizes:
            milliseconds = medians[name, size]
            to_few = spread(_ratios(milliseconds, medians[name, fewest]), 2)
            to_raw = spread(_ratios(milliseconds, medians[RawSaver.name, size]), 2)
            rows.append([name, f"{size:,}", spread(milliseconds, 2), to_few, to_raw])
    print_table(rows)
    print()
    for name in [ModelSaver.name, ApiSaver.name]:
        ratio = median(_ratios(medians[name, most], medians[name, fewest]))
        print_claim(f"{name} among {most:,}, in multiples of that among {fewest:,}", ratio, at_most=1.2)
    for size in options.sizes:
        limit = 1.5 * median(medians[RawSaver.name, size]) + 2.5
        took = median(medians[ModelSaver.name, size])
        print_claim(f"{ModelSaver.name} among {size:,}, against 1.5 times raw and 2.5 ms, in ms", took, at_most=limit)
    for size in options.sizes:
        ratio = median(_ratios(medians[ApiSaver.name, size], medians[ModelSaver.name, size]))
        print_claim(f"{ApiSaver.name} among {size:,}, in multiples of {ModelSaver.name}", ratio, at_most=1.6)


if __name__ == "__main__":
    main()
