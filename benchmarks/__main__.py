"""Run all benchmarks, and write what they print to ``benchmarks/results.md``, with the machine's description.

``make bench``, or ``python -m benchmarks``; of some, ``python -m benchmarks saves messages``. Each also runs alone, and
writes nothing: ``python -m benchmarks.saves``.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import nginx
from benchmarks.harness import ROOT

RESULTS = ROOT / "benchmarks" / "results.md"

# Together some fifteen minutes.
BENCHMARKS = {
    "download": ["--rounds=4", "--seconds=1"],
    "slow_clients": [],
    "saves": [],
    "crowds": [],
    "bystanders": [],
    "save_cost": ["--rounds=8", "--times=20"],
    "imports": [],
    "messages": [],
    "herd": [],
    "lists": [],
    "checkins": [],
    "nginx_checkins": ["--rounds=4", "--seconds=1"],
    "sign_in": ["--rounds=10", "--seconds=1"],
    "deletion": [],
}


def main() -> None:
    sections, claims = [], []
    # The large fleets are made once, for all.
    with tempfile.TemporaryDirectory(prefix="iotsupport-benchmark-") as fleets:
        for name in sys.argv[1:] or BENCHMARKS:
            output = _run(name, BENCHMARKS[name], fleets)
            sections.append(f"## {name}\n\n{_docstring(name)}\n\n{output.strip()}")
            claims += re.findall(r"^- (?:holds|DOES NOT HOLD): .*", output, re.MULTILINE)
    head = ["# Benchmarks", "Written by `make bench`. Contenders run in turn, on the same files; all on one machine."]
    parts = [*head, *_machine(), "## What must hold", "\n".join(claims), *sections]
    RESULTS.write_text("\n\n".join(parts) + "\n")
    print(f"Written to {RESULTS.relative_to(ROOT)}.")


def _run(name: str, options: list[str], fleets: str) -> str:
    """Show what it prints meanwhile, and return it."""
    print(f"## {name}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    lines = []
    env = os.environ | {"BENCHMARK_FLEETS": fleets}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or []:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        lines.append(f"\n- DOES NOT HOLD: {name} ended with an error\n")
    return "".join(lines)


def _docstring(name: str) -> str:
    return (importlib.import_module(f"benchmarks.{name}").__doc__ or "").replace("``", "`").strip()


def _machine() -> Iterator[str]:
    yield f"{datetime.now(UTC):%Y-%m-%d}, on this machine:"
    cpu = _first(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    facts = {
        "CPU": f"{cpu}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in ["Django", "gunicorn", "paho-mqtt"]},
        "SQLite": sqlite3.sqlite_version,
        "nginx": _first(r"nginx/(\S+)", _output(nginx.PROGRAM or "nginx", "-v")),
    }
    yield "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else "unknown"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError:
        return ""
    return done.stdout


if __name__ == "__main__":
    main()
