"""What it costs nginx to tell of downloads: with the note, with nobody who reads it, and without.

``python -m benchmarks.nginx_checkins``. Two hundred boards ask nginx as fast as it answers, and afterwards each has to
be noted as current. Needs wrk and nginx.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks import nginx
from benchmarks.fleet import filename, fleet
from benchmarks.harness import Server, gunicorn, print_claim, print_rates

BOARDS = 200
TELLING, SILENT = "telling", "without"
SOCKETS = {TELLING: "checkins.sock", "telling where nobody reads": "nobody.sock", SILENT: None}

# wrk's: each request is another board's.
SCRIPT = """
local paths, number = {{{paths}}}, 0
request = function()
    number = number % #paths + 1
    return wrk.format("GET", paths[number], {{["User-Agent"] = "lamp/1." .. number{fields}}})
end
"""


def write_script(path: Path, fields: str = "") -> Path:
    """``fields`` are Lua's, of a table behind another one, such as ``, ["Accept"] = "*/*"``."""
    paths = ",".join(f'"/configs/{filename(number)}"' for number in range(BOARDS))
    path.write_text(SCRIPT.format(paths=paths, fields=fields))
    return path


def load(server: Server, script: Path, seconds: int) -> tuple[float, float, float]:
    """Return downloads per second, microseconds of nginx's CPU time for each, and the 99th percentile in ms."""
    before = server.cpu_seconds()
    url = f"http://127.0.0.1:{server.port}/"
    load = ["--threads=1", "--connections=16", f"--duration={seconds}", "--latency"]
    command = ["wrk", *load, f"--script={script}"]
    output = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    busy = server.cpu_seconds() - before
    if "Non-2xx" in output:
        raise RuntimeError(output)
    [(count, rate)] = re.findall(r"(\d+) requests in .*?Requests/sec: *([\d.]+)", output, re.DOTALL)
    [(slowest, unit)] = re.findall(r"99% +([\d.]+)(us|ms|s)\b", output)
    return float(rate), busy / int(count) * 1e6, float(slowest) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def _count_current(data_dir: Path) -> int:
    with closing(sqlite3.connect(data_dir / "db.sqlite3")) as database:
        return int(database.execute("SELECT count(*) FROM iotsupport_board WHERE state = 'current'").fetchone()[0])


def _wait_until_noted(data_dir: Path) -> int:
    """Return how many boards are current once that does not change any more."""
    deadline, count = time.monotonic() + 10, 0
    while time.monotonic() < deadline and count < BOARDS:
        time.sleep(0.5)
        count = _count_current(data_dir)
    return count


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=2, help="of load, each time")
    options = parser.parse_args(arguments)
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SOCKETS}
    with fleet(BOARDS) as boards, ExitStack() as stack:
        script = write_script(boards.data_dir / "boards.lua")
        ours = stack.enter_context(gunicorn(boards.data_dir))
        contenders = {
            name: stack.enter_context(nginx.deployed(boards.data_dir, ours, name=f"nginx-{place}", checkins=checkins))
            for place, (name, checkins) in enumerate(SOCKETS.items())
        }
        for number in range(options.rounds + 1):
            for name, server in contenders.items():
                result = load(server, script, options.seconds)
                if number:  # The first is to warm up.
                    results[name].append(result)
        current = _wait_until_noted(boards.data_dir)
    print_results(results, current)


def print_results(results: dict[str, list[tuple[float, float, float]]], current: int) -> None:
    rate, slowest = print_rates("nginx: 1,000 bytes, 200 boards", results, TELLING, SILENT)
    print_claim("rate of downloads from nginx that tells of them, as a share of that without", rate, at_least=0.5)
    print_claim("their 99th percentile, in multiples of that without", slowest, at_most=1.2)
    print_claim(f"boards of {BOARDS} that are noted as current afterwards", current, at_least=BOARDS)
    print()


if __name__ == "__main__":
    main()
