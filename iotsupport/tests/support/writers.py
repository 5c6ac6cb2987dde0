"""Threads, also in processes of their own, that wait for their turns to write to an SQLite database."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from iotsupport.database.sqlite import TURNS_SUFFIX
from iotsupport.database.sqlite.turns import Queue
from iotsupport.tests.support.waiting import LIMIT, eventually

BASE_DIR = Path(__file__).resolve().parents[3]


class Writers:
    """Threads that wait for their turns, each of which ends when it is told."""

    def __init__(self, path: str) -> None:
        self.queue = Queue(path)
        self._path = path
        self.order: list[str] = []
        """Who writes, or wrote."""
        self._ends: dict[str, threading.Event] = {}
        self._threads: dict[str, threading.Thread] = {}

    def come(self, name: str) -> None:
        """Return when this one has its place in the queue. Meanwhile, nobody of this process ends."""
        self._ends[name] = threading.Event()
        self._threads[name] = threading.Thread(target=self._write, args=[name])
        before = own_places(self._path)
        self._threads[name].start()
        eventually(lambda: own_places(self._path) > before)

    def end(self, name: str) -> None:
        eventually(lambda: name in self.order)
        self._ends[name].set()
        self._threads[name].join()

    def _write(self, name: str) -> None:
        turn = self.queue.wait(LIMIT)
        self.order.append(name)
        say(f"writes {name}")
        assert self._ends[name].wait(LIMIT)
        turn.leave()


def say(line: str) -> None:
    """Write it whole: two threads that print mix their words."""
    os.write(1, f"{line}\n".encode())


def own_places(database: str) -> int:
    """How many threads of this process have a place in the queue: each has locked a byte, and whoever writes another.

    The kernel's list of all locks (``/proc/locks``) would not do: beside others that come and go, it is not read whole.
    """
    path = Path(database + TURNS_SUFFIX)
    if not path.exists():
        return 0
    lock, count = f":{path.stat().st_ino} ", 0
    for file in Path("/proc/self/fdinfo").iterdir():
        with suppress(OSError):  # closed meanwhile
            lines = file.read_text().splitlines()
            count += sum("OFDLCK" in line and lock in line and not line.endswith(" 0 0") for line in lines)
    return count


class Process:
    """:class:`Writers` in a process of their own; who writes is told to all processes of a test, in one list."""

    def __init__(self, path: str, order: list[str]) -> None:
        self._order = order
        self._done: list[str] = []
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", __name__, path]
        self.popen = subprocess.Popen(command, cwd=BASE_DIR, stdin=pipe, stdout=pipe, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout
        for line in self.popen.stdout:
            what, _, rest = line.strip().partition(" ")
            (self._order if what == "writes" else self._done).append(rest)

    def come(self, name: str) -> None:
        """Return when one of that name has its place in the queue."""
        self._tell("come", name)

    def end(self, name: str) -> None:
        """Wait until that one writes, and end it."""
        # Told by its own process: whoever comes next, in another process, must not be heard of before.
        eventually(lambda: name in self._order or self.popen.poll() is not None)
        self._tell("end", name)

    def _tell(self, what: str, name: str) -> None:
        assert self.popen.stdin
        print(what, name, file=self.popen.stdin, flush=True)
        eventually(lambda: f"{what} {name}" in self._done or self.popen.poll() is not None)
        assert self.popen.poll() is None

    def kill(self) -> None:
        self.popen.kill()
        self.close()

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join()
        for pipe in [self.popen.stdin, self.popen.stdout]:
            assert pipe
            pipe.close()


def obey(path: str) -> None:
    """The other process: do what standard input says, line by line."""
    writers = Writers(path)
    for line in sys.stdin:
        what, name = line.split()
        (writers.come if what == "come" else writers.end)(name)
        say(f"done {what} {name}")


if __name__ == "__main__":
    obey(sys.argv[1])
