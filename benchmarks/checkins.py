"""What it costs to note what boards do: downloads and saves with and without it, and questions about 50,000 boards.

``python -m benchmarks.checkins``. Two hundred boards ask for their configurations as fast as one worker answers; then
there is a fleet, of which some are noted anew each time before the first page's questions are asked.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from unittest import mock

from benchmarks.fleet import filename, fleet
from benchmarks.harness import (
    ROOT,
    Server,
    beside,
    data_directory,
    environ,
    gunicorn,
    percentile,
    print_claim,
    print_rates,
    print_table,
    spread,
)

BOARDS = 200
CONNECTIONS = 16
NOTING, WITHOUT = "noting", "without"
SAVE, PLAIN_SAVE = "a save", "a save without the board's row"

# The first page's questions; none may take longer than a page.
QUESTIONS = ["states", "silent", "behind: a page", "last seen: a page", "the last that came", "downloads by the hour"]
MOST_MILLISECONDS = 150


class Crowd:
    """Boards that ask one after the other on some connections, each of which waits for its answer."""

    def __init__(self, port: int, fields: str = "") -> None:
        """``fields`` are of each request's head, each with its line end."""
        fields = f"Host: iot\r\n{fields}User-Agent: lamp/1."
        self._requests = [
            f"GET /configs/{filename(number)} HTTP/1.1\r\n{fields}{number}\r\n\r\n".encode() for number in range(BOARDS)
        ]
        self._clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        self._answer_bytes = self._measure()

    def _measure(self) -> int:
        """Return how long an answer is: all configurations are, and all heads."""
        client = self._clients[0]
        client.sendall(self._requests[0])
        answer = client.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        while len(body) < length:
            body += client.recv(65536)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(head.decode())
        return len(head) + 4 + length

    def run(self, seconds: float) -> list[float]:
        """Return milliseconds of each download."""
        taken, number = [], 0
        sent_at, missing = {}, {}
        with selectors.DefaultSelector() as selector:
            for client in self._clients:
                selector.register(client, selectors.EVENT_READ, client)
                number += 1
                client.sendall(self._requests[number % BOARDS])
                sent_at[client], missing[client] = time.perf_counter(), self._answer_bytes
            until = time.perf_counter() + seconds
            while sent_at:
                for key, _ in selector.select():
                    client = key.data
                    missing[client] -= len(client.recv(65536))
                    if missing[client]:
                        continue
                    now = time.perf_counter()
                    taken.append(1000 * (now - sent_at[client]))
                    if now >= until:
                        selector.unregister(client)
                        del sent_at[client]
                        continue
                    number += 1
                    client.sendall(self._requests[number % BOARDS])
                    sent_at[client], missing[client] = now, self._answer_bytes
        return taken

    def close(self) -> None:
        for client in self._clients:
            client.close()


def load(server: Server, seconds: float, fields: str = "") -> tuple[float, float, float]:
    """Return downloads per second, microseconds of CPU time for each, and the 99th percentile in milliseconds."""
    crowd = Crowd(server.port, fields)
    before, began = server.cpu_seconds(), time.perf_counter()
    taken = crowd.run(seconds)
    elapsed, busy = time.perf_counter() - began, server.cpu_seconds() - before
    crowd.close()
    return len(taken) / elapsed, busy / len(taken) * 1e6, percentile(taken, 0.99)


def compare_downloads(rounds: int, seconds: float) -> None:
    with fleet(BOARDS) as boards:
        results: dict[str, list[tuple[float, float, float]]] = {NOTING: [], WITHOUT: []}
        env = {"WEB_CONCURRENCY": "1", **beside(boards.data_dir, "without-noting")}
        with (
            gunicorn(boards.data_dir, WEB_CONCURRENCY="1") as noting,
            gunicorn(boards.data_dir, application="benchmarks.without_noting", **env) as without,
        ):
            contenders = [(NOTING, noting), (WITHOUT, without)]
            for number in range(rounds + 1):
                for name, server in contenders if number % 2 else reversed(contenders):
                    result = load(server, seconds)
                    if number:  # The first is to warm up.
                        results[name].append(result)
    rate, slowest = print_rates("1,000 bytes, 200 boards", results, NOTING, WITHOUT)
    print_claim("rate of downloads with noting, as a share of that without", rate, at_least=0.95)
    print_claim("their 99th percentile, in multiples of that without", slowest, at_most=1.2)
    print()


# --- Questions about many -------------------------------------------------------------------------------------------


def ask(size: int, rounds: int) -> None:
    """In a process of its own: make a fleet's rows, and say how long each question took, as JSON."""
    import django

    django.setup()

    from datetime import timedelta

    from django.utils import timezone

    from iotsupport.boards.models import CONFIGURED, Board, HourlyCount, State
    from iotsupport.boards.pending import REPORTS_AT_ONCE

    now = timezone.now()
    states = [State.CURRENT] * 8 + [State.BEHIND, State.NEVER_FETCHED]
    Board.objects.bulk_create(
        (
            Board(
                mac_address=filename(number).removesuffix(".json"),
                config_sha256="ab" * 32,
                holds_sha256=None if number % 10 == 9 else ("ab" if number % 10 < 8 else "cd") * 32,
                holds_at=now - timedelta(days=3),
                state=states[number % 10],
                last_seen=None if number % 10 == 9 else now - timedelta(minutes=number % 3000, seconds=61),
                user_agent="kitchen/1.4.2",
            )
            for number in range(size)
        ),
        batch_size=500,
    )
    for hours in range(31 * 24):
        HourlyCount.objects.create(hour=now - timedelta(hours=hours), kind=HourlyCount.DOWNLOADS, count=hours)

    times = _saves(rounds)
    boards, since = Board.objects, now - timedelta(days=30)
    questions: dict[str, Callable[[], object]] = {
        "states": boards.count_states,
        "silent": lambda: boards.silent().count(),
        "behind: a page": lambda: list(boards.filter(state=State.BEHIND).order_by("mac_address")[:100]),
        "last seen: a page": lambda: list(boards.filter(state__in=CONFIGURED).order_by("-last_seen")[:100]),
        "the last that came": lambda: list(boards.exclude(last_seen=None).order_by("-last_seen")[:10]),
        "downloads by the hour": lambda: HourlyCount.objects.since(HourlyCount.DOWNLOADS, since),
    }
    for number in range(rounds):
        times[f"noting {REPORTS_AT_ONCE} boards"].append(_time(_noting(number, size)))
        for name in QUESTIONS:
            times[name].append(_time(questions[name]))
    print(json.dumps(times))


def _saves(rounds: int) -> dict[str, list[float]]:
    """Save a configuration by turns with its board's row and without."""
    from devices import receivers
    from devices.models import DeviceConfig

    times, note_saved = defaultdict(list), receivers.note_saved
    for number in range(30 * rounds):
        for name, note in [(SAVE, note_saved), (PLAIN_SAVE, _do_nothing)]:
            config = DeviceConfig.objects.get_or_create(mac_address="02-ff-ff-ff-ff-ff", defaults={"content": "{}"})[0]
            config.content = json.dumps({"number": number, "name": name, "padding": "x" * 500})
            with mock.patch.object(receivers, "note_saved", note):
                times[name].append(_time(config.save))
    return times


def _do_nothing(*arguments: object) -> None:
    pass


def _noting(number: int, size: int) -> Callable[[], object]:
    from iotsupport.boards.checkins import CheckIn
    from iotsupport.boards.pending import REPORTS_AT_ONCE, Pending, Said
    from iotsupport.boards.writing import write

    pending, now = Pending(), time.time()
    for place in range(REPORTS_AT_ONCE):
        name = filename((REPORTS_AT_ONCE * number + place) % size)
        check_in = CheckIn("worker", now, "configs", name, "GET", 200, f'"{"ab" * 32}"', user_agent="kitchen/1.4.3")
        pending.take(check_in, Said(("configs", name), place))
    batch = pending.take_batch(now)
    return lambda: write(batch, now)


def _time(act: Callable[[], object]) -> float:
    """Return milliseconds."""
    began = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began)


def measure_questions(data_dir: Path, size: int, rounds: int) -> None:
    command = [sys.executable, "-c", f"from benchmarks.checkins import ask; ask({size}, {rounds})"]
    env = environ(data_dir, DJANGO_SETTINGS_MODULE="iotsupport.settings")
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    times: dict[str, list[float]] = json.loads(done.stdout)
    print_table([[f"of {size:,} boards", "ms: median (range)"], *([name, spread(ms, 1)] for name, ms in times.items())])
    print()
    slowest = max(QUESTIONS, key=lambda name: max(times[name]))
    claim = f"the slowest question about {size:,} boards ({slowest}), in ms"
    print_claim(claim, max(times[slowest]), at_most=MOST_MILLISECONDS)
    cost = median(times[SAVE]) / median(times[PLAIN_SAVE])
    print_claim("a save, in multiples of one without the board's row", cost, at_most=1.05)
    print()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2, help="of load, each time")
    parser.add_argument("--size", type=int, default=50_000)
    options = parser.parse_args(arguments)
    compare_downloads(options.rounds, options.seconds)
    with data_directory() as data_dir:
        measure_questions(data_dir, options.size, max(options.rounds, 3))


if __name__ == "__main__":
    main()
