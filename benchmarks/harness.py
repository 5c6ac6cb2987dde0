"""What the benchmarks share: a server in a directory of its own, its CPU time and memory, medians, a table.

Everything is on the loopback, in a temporary directory, and ends by itself.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import inf
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parent.parent

# No proxies.
open_url = build_opener(ProxyHandler({})).open


class Server(NamedTuple):
    """Running processes that answer at a port."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def pids(self) -> list[int]:
        """The process and its children."""
        master = self.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        return [master, *map(int, children)]

    def cpu_seconds(self) -> float:
        """User and system time of all processes until now."""
        return cpu_seconds(self.pids)

    def memory_bytes(self) -> int:
        """Proportional set size of all processes: what they share counts once."""
        return memory_bytes(self.pids)

    def threads(self) -> int:
        return sum(int(_stat(pid)[17]) for pid in self.pids)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes until now."""
    ticks = sum(int(ticks) for pid in pids for ticks in _stat(pid)[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of processes: what they share counts once."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(found[1]) * 1024 for text in rollups if (found := re.search(r"^Pss:\s+(\d+)", text, re.M)))


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` behind the name, which may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def data_directory() -> Iterator[Path]:
    """A migrated data directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="iotsupport-benchmark-") as directory:
        manage(Path(directory), "migrate", "--verbosity=0")
        yield Path(directory)


def environ(data_dir: Path, **more: str) -> dict[str, str]:
    """The environment of a process that keeps to the directory and to itself."""
    return {**os.environ, "DATA_DIR": str(data_dir), "MQTT_URL": "", "DATABASE_URL": "", **more}


def beside(data_dir: Path, name: str) -> dict[str, str]:
    """The variables of a server that serves what another one does at the same time, from a directory of its own."""
    own = data_dir / name
    own.mkdir(exist_ok=True)
    return {
        "DATA_DIR": str(own),
        "DATABASE_URL": f"sqlite:///{data_dir}/db.sqlite3",
        "ESP32_CONFIGS_DIR": str(data_dir / "configs"),
        "ASSETS_DIR": str(data_dir / "assets"),
    }


def manage(data_dir: Path, *arguments: str, **env: str) -> str:
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environ(data_dir, **env), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    return done.stdout.decode()


@contextmanager
def serve(command: Sequence[str], port: int, env: dict[str, str]) -> Iterator[Server]:
    """Run a server until the block ends; it is there when it takes connections."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait(30)


def gunicorn(
    data_dir: Path, *options: str, application: str = "iotsupport.wsgi", **env: str
) -> AbstractContextManager[Server]:
    """As an installation runs it, with ``gunicorn.conf.py``."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", *options, application]
    return serve(command, port, environ(data_dir, PORT=str(port), **env))


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300  # it first compares every file with its row
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"Nothing listens at port {port}.")


def spread(values: Iterable[float], digits: int = 0) -> str:
    """The median, and the range around it."""
    ordered = sorted(values)
    return f"{median(ordered):,.{digits}f} ({ordered[0]:,.{digits}f} to {ordered[-1]:,.{digits}f})"


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("| " + " | ".join("-" * width for width in widths) + " |")


def print_claim(claim: str, value: float, *, at_most: float = inf, at_least: float = -inf) -> bool:
    """Say whether a measured value keeps to its limit, and return it."""
    holds = at_least <= value <= at_most
    verdict = "holds" if holds else "DOES NOT HOLD"
    limit = f"at most {at_most:,.2f}" if at_most < inf else f"at least {at_least:,.2f}"
    print(f"- {verdict}: {claim}: {value:,.2f} ({limit})")
    return holds


def print_rates(
    title: str, results: Mapping[str, Sequence[tuple[float, float, float]]], ours: str, theirs: str
) -> tuple[float, float]:
    """Print downloads a second, microseconds of CPU time for each and the 99th percentile in milliseconds, by name.

    Returns, of ``ours`` to ``theirs``, the ratio of the rates and that of the percentiles.
    """
    rows = [[title, "downloads/s", "CPU µs", "99th percentile, ms"]]
    for name, measured in results.items():
        rates, costs, slowest = zip(*measured, strict=True)
        rows.append([name, spread(rates), spread(costs, 1), spread(slowest, 2)])
    print_table(rows)
    print()

    def ratio(column: int) -> float:
        return median(row[column] for row in results[ours]) / median(row[column] for row in results[theirs])

    return ratio(0), ratio(2)
