"""What it costs that devices sign in: downloads with a password and without, from one worker and from nginx.

``python -m benchmarks.sign_in``. Two hundred boards ask as fast as is answered: an open server, and one with two
passwords of which they say the second. Then nginx, which knows them. In short rounds, by turns. Needs wrk and nginx.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median

from benchmarks import checkins, nginx, nginx_checkins
from benchmarks.fleet import fleet
from benchmarks.harness import gunicorn, manage, print_claim, print_rates

SIGNED_IN, OPEN = "signed in", "open"
SECRETS = {"DEVICE_USERNAME": "board", "DEVICE_PASSWORD": "a-new-long-password,an-old-long-password"}
CREDENTIALS = "Basic " + base64.b64encode(b"board:an-old-long-password").decode()

Load = Callable[[float], tuple[float, float, float]]


def compare(title: str, loads: dict[str, Load], rounds: int, seconds: float) -> None:
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in loads}
    for number in range(rounds + 1):
        for name in loads if number % 2 else reversed(loads):
            result = loads[name](seconds)
            if number:  # The first is to warm up.
                results[name].append(result)
    _, slowest = print_rates(f"{title}: 1,000 bytes, 200 boards", results, SIGNED_IN, OPEN)
    # Round by round: what else the machine does is more like itself within one.
    rate, cost = (
        median(ours[column] / theirs[column] for ours, theirs in zip(*results.values(), strict=True))
        for column in range(2)
    )
    print_claim(f"rate of downloads from {title} with sign-in, as a share of that without", rate, at_least=0.95)
    print_claim("their CPU time, in multiples of that without", cost, at_most=1.1)
    print_claim("their 99th percentile, in multiples of that without", slowest, at_most=1.2)
    print()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1, help="of load, each time")
    options = parser.parse_args(arguments)
    # Two directories: whether downloads are open is said there.
    with fleet(checkins.BOARDS) as open_boards, fleet(checkins.BOARDS + 1) as boards, ExitStack() as stack:
        manage(boards.data_dir, "write_device_passwords", **SECRETS)
        ours = stack.enter_context(gunicorn(boards.data_dir, WEB_CONCURRENCY="1", **SECRETS))
        without = stack.enter_context(gunicorn(open_boards.data_dir, WEB_CONCURRENCY="1", **dict.fromkeys(SECRETS, "")))
        loads: dict[str, Load] = {
            SIGNED_IN: lambda seconds: checkins.load(ours, seconds, f"Authorization: {CREDENTIALS}\r\n"),
            OPEN: lambda seconds: checkins.load(without, seconds),
        }
        compare("one worker", loads, options.rounds, options.seconds)
        in_front = stack.enter_context(nginx.deployed(boards.data_dir, ours))
        open_front = stack.enter_context(nginx.deployed(open_boards.data_dir, without))
        script = nginx_checkins.write_script(boards.data_dir / "signing.lua", f', ["Authorization"] = "{CREDENTIALS}"')
        open_script = nginx_checkins.write_script(open_boards.data_dir / "open.lua")
        loads = {
            SIGNED_IN: lambda seconds: nginx_checkins.load(in_front, script, int(seconds)),
            OPEN: lambda seconds: nginx_checkins.load(open_front, open_script, int(seconds)),
        }
        compare("nginx", loads, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
