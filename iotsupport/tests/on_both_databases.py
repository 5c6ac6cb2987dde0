"""Run a command on SQLite and, beside it, on PostgreSQL; fail if one of them does.

    python -m iotsupport.tests.on_both_databases pytest

What the one on SQLite prints is seen as it comes, the other's when both have ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path


def main(command: list[str]) -> int:
    with tempfile.NamedTemporaryFile(prefix="iotsupport-postgresql-", suffix=".log") as log:
        sqlite, postgresql = (
            subprocess.Popen(command, env=os.environ | {"TEST_DATABASE": database}, stdout=output, stderr=output)
            for database, output in [("sqlite", None), ("postgresql", log)]
        )
        codes = [_wait(process) for process in (sqlite, postgresql)]
        print("\nOn PostgreSQL:", Path(log.name).read_text(), sep="\n")
    return max(codes, key=abs)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Its exit code. Ctrl-C at a terminal reaches the process, too: it ends what it started, and then itself."""
    while True:
        with suppress(KeyboardInterrupt):
            return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
