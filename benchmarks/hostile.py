"""Ten minutes of hostile load on a real server, beside 20 boards and an administrator who want to be served.

``python -m benchmarks.hostile --minutes 10``. Strangers without an account do all at once, as fast as they can: bodies
of 16 MB and of 100,000 fields, bodies of one byte in 15 s, nonsense that is logged, passwords guessed for changing
names, browsers and addresses, and ``/health`` and ``/metrics``. Boards fetch with If-None-Match and follow
announcements over a Mosquitto; the administrator signs in, edits and uploads. Strangers take what all these leave of
the processor, which would not be theirs. It keeps to the loopback, ends by itself, and with 1 where something does not
hold. What downloads take before it begins tells how busy the machine is otherwise.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from benchmarks.attackers import ATTACKS, NICENESS, Outcomes, attack
from benchmarks.harness import cpu_seconds, memory_bytes, percentile, print_claim, print_table
from benchmarks.hostile_customers import FIRMWARE, FIRMWARE_BYTES, Administrator, Fetched, run_boards
from benchmarks.savers import live_broker
from iotsupport.tests.support.databases import make_database
from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.server import Installation, Server

BOARDS = 20
# They download the firmware, too, when it is announced.
OTA_BOARDS = 10

MOST_MILLISECONDS = 250
MOST_MEMORY = 300
MOST_LOG = 1
MEGABYTE = 1_000_000

SAMPLE_SECONDS = 0.5
# Without an attack, for comparison.
CALM_SECONDS = 5.0


class Result(NamedTuple):
    attacks: Outcomes
    boards: Fetched
    administrator: Administrator
    announced: int
    memory: list[int]
    """In bytes, of all processes of the server together."""
    log: list[str]
    began: float
    """The attack, on the clock of ``time.monotonic``."""
    cpu_share: float
    """Of one core, what all processes of the server used."""


def mac_address(number: int) -> str:
    return f"02-00-00-00-00-{number:02x}"


@contextmanager
def installed(broker: Mosquitto) -> Iterator[Server]:
    """A server with a configuration for each board, and some firmware."""
    with tempfile.TemporaryDirectory(prefix="iotsupport-hostile-") as directory:
        data_dir = Path(directory) / "installation"
        server = Server(
            Installation.make(data_dir, make_database(data_dir)), Path(directory) / "server", WEB_CONCURRENCY="2"
        )
        server.environ["MQTT_URL"] = broker.url
        try:
            server.start_connected(broker)
            _fill(server)
            yield server
        finally:
            server.remove()


def _fill(server: Server) -> None:
    with server.client() as client:
        for number in range(BOARDS):
            content = {"deviceName": f"board {number}", "enableOTA": number < OTA_BOARDS, "version": 0}
            client.save_config(mac_address(number), json.dumps(content).encode()).raise_for_status()
        client.upload(FIRMWARE, bytes(FIRMWARE_BYTES)).raise_for_status()


def measure(server: Server, broker: Mosquitto, seconds: float, attacks: Sequence[str]) -> Result:
    context = get_context("spawn")
    pipe, far_end = context.Pipe()
    arguments = (far_end, server.url, [mac_address(number) for number in range(BOARDS)], broker.url)
    boards = context.Process(target=run_boards, args=arguments, daemon=True)
    boards.start()
    far_end.close()
    try:
        pipe.recv()  # They are there.
        threading.Event().wait(CALM_SECONDS)
        administrator = Administrator(server.url)
        administrator.sign_in()  # from where the name is known when it is attacked
        with ThreadPoolExecutor() as threads, ProcessPoolExecutor(1, context) as processes:
            began, used = time.monotonic(), cpu_seconds(server.processes())
            begun: Future[Outcomes] = processes.submit(attack, server.port, seconds, attacks)
            working = threads.submit(administrator.work, time.monotonic() + seconds)
            memory = list(_sample(server, working))
            working.result()
            attacked = begun.result()
            cpu_share = (cpu_seconds(server.processes()) - used) / (time.monotonic() - began)
        announced = administrator.saves + administrator.uploads * OTA_BOARDS
        pipe.send(announced)
        fetched = pipe.recv()
        boards.join()
    finally:
        boards.terminate()
        boards.join()
    return Result(attacked, fetched, administrator, announced, memory, list(server.lines), began, cpu_share)


def _sample(server: Server, working: Future[None]) -> Iterator[int]:
    over = threading.Event()
    working.add_done_callback(lambda done: over.set())
    while not over.wait(SAMPLE_SECONDS):
        yield memory_bytes(server.processes())


def report(result: Result) -> bool:
    """Print what came of it; return whether all holds."""
    rows = [["what strangers did", "times", "how it ended"]]
    for name in ATTACKS:
        ends: Counter[str] = Counter({end: count for (kind, end), count in result.attacks.items() if kind == name})
        rows.append([name, f"{ends.total():,}", ", ".join(f"{end}: {count:,}" for end, count in ends.most_common())])
    print_table(rows)
    boards, administrator = result.boards, result.administrator
    print(
        f"\n{BOARDS} boards: {len(boards.downloads):,} downloads, {len(boards.failures)} failed;"
        f" {boards.heard:,} of {result.announced:,} announcements heard, {boards.followed:,} followed."
        f"\nAn administrator: {len(administrator.seconds):,} requests, {len(administrator.failures)} failed;"
        f" {administrator.sign_ins} sign-ins, {administrator.saves} saves, {administrator.uploads} uploads;"
        f" median {1000 * percentile(administrator.seconds, 0.5):,.0f} ms,"
        f" p99 {1000 * percentile(administrator.seconds, 0.99):,.0f} ms."
        f"\nThe server used {100 * result.cpu_share:,.0f} % of a core; strangers had what was left (nice {NICENESS})."
    )
    calm, attacked = (
        [1000 * seconds for began, seconds in boards.downloads if (began >= result.began) is is_attacked]
        for is_attacked in [False, True]
    )
    for name, milliseconds in [("Before the attack", calm), ("Under attack", attacked)]:
        shares = ", ".join(f"p{100 * share:g} {percentile(milliseconds, share):,.0f}" for share in [0.5, 0.9, 0.99, 1])
        print(f"{name}, {len(milliseconds):,} downloads, ms: {shares}.")
    for failure in [*boards.failures, *administrator.failures][:20]:
        print(f"- failed: {failure}")
    failed = len(boards.failures) + len(administrator.failures)
    log_bytes = sum(len(line.encode()) + 1 for line in result.log)
    claims = [
        print_claim("requests of boards and administrator that failed", failed, at_most=0),
        print_claim("announcements that were not followed", result.announced - boards.followed, at_most=0),
        print_claim("p99 of a download, ms", percentile(attacked, 0.99), at_most=MOST_MILLISECONDS),
        print_claim("memory of all server processes, MB", max(result.memory) / MEGABYTE, at_most=MOST_MEMORY),
        print_claim("log, MB", log_bytes / MEGABYTE, at_most=MOST_LOG),
    ]
    return all(claims)


def _end(number: int, frame: FrameType | None) -> Any:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS), choices=list(ATTACKS), help="default: all")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)  # so that the processes below end, too
    with ExitStack() as stack:
        broker = stack.enter_context(live_broker())
        server = stack.enter_context(installed(broker))
        result = measure(server, broker, options.minutes * 60, options.attacks)
    return 0 if report(result) else 1


if __name__ == "__main__":
    sys.exit(main())
