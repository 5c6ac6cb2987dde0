"""Run a command on SQLite and, beside it, on PostgreSQL; fail if one of them does.

    python -m iotsupport.tests.support.on_both_databases pytest

What the one on SQLite prints is seen as it comes, the other's when both have ended. The last line names what failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path


class Run:
    """A command that has been started. ``log`` is where its output goes, if it is not to be seen as it comes."""

    def __init__(self, name: str, command: list[str], log: Path | None = None, **environ: str) -> None:
        self.name, self._log = name, log
        with open(log or os.devnull, "wb") as file:
            output = file if log else None
            self._process = subprocess.Popen(command, env=os.environ | environ, stdout=output, stderr=output)

    def wait(self) -> int:
        """Its exit code. Ctrl-C at a terminal reaches the process, too: it ends what it started, and then itself."""
        while True:
            with suppress(KeyboardInterrupt):
                return self._process.wait()

    def show(self) -> None:
        """Say what it has printed; once it has ended, that is all."""
        self.wait()
        if self._log:
            print(f"\n{self.name}:", self._log.read_text(), sep="\n", flush=True)


# How many processes ``pytest -n auto`` starts. Most tests run on SQLite, and many wait more than they work: these keep
# two cores busy, and end at about the same time. Each more reads all tests, which takes some seconds of a core.
PROCESSES = {"sqlite": 4, "postgresql": 2}


def environ_of(database: str) -> dict[str, str]:
    return {"TEST_DATABASE": database, "PYTEST_XDIST_AUTO_NUM_WORKERS": str(PROCESSES[database])}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run a command on SQLite and on PostgreSQL.")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    command = parser.parse_args(arguments).command
    with tempfile.TemporaryDirectory(prefix="iotsupport-") as directory:
        log = Path(directory, "postgresql")
        runs = [
            Run("On SQLite", command, None, **environ_of("sqlite")),
            Run("On PostgreSQL", command, log, **environ_of("postgresql")),
        ]
        for run in runs:
            run.show()
        codes = {run.name: run.wait() for run in runs}
    failed = [name for name, code in codes.items() if code]
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    return max(codes.values(), key=abs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
