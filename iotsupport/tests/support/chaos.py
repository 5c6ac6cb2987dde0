"""People save while the broker, the workers and their master are killed, again and again: is every change announced?

    python -m iotsupport.tests.support.chaos --seed 1 --rounds 30

Says what it did, and ends with 1 if a change was lost. The seed repeats its decisions: who saves what, and what is
killed after how many saves. Which of the requests the kill meets is up to the machine.

Judged is what a device would have that downloads whenever the broker takes an announcement. A wire tap reads the file
in the moment in which the announcement leaves the server, and it counts once the broker acknowledges it. No subscriber
is asked: what a broker acknowledged and then forgets, killed before it wrote it down, no server can know.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

import requests

from iotsupport.tests.owed.fleet import OWED
from iotsupport.tests.support.databases import make_database
from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.server import Client, Installation, Server
from iotsupport.tests.support.waiting import LIMIT, poll
from iotsupport.tests.support.wiretap import Wiretap

CLIENTS = 4
SAVES = 300
MANNERS = {"at once": "", "over": ", back when the saves are over", "hung": ", hung until the saves are over"}
DEVICES_OF_EACH = 5


class Person:
    """Saves configurations of their own, and remembers what was answered."""

    def __init__(self, number: int, seed: int) -> None:
        self.random = random.Random(f"{seed}-{number}")  # noqa: S311 - to be repeatable
        self.macs = [f"00-00-00-00-{number:02x}-{device:02x}" for device in range(DEVICES_OF_EACH)]
        self.possible: dict[str, set[bytes | None]] = {}
        """File names to what they may hold: what was answered last, or any that was not answered since."""
        self.outcomes: Counter[str] = Counter()
        self._number, self._saves = number, 0

    def save(self, client: Client) -> bool:
        """Return whether it was answered. Raises ``AssertionError`` where it was refused."""
        mac_address = self.random.choice(self.macs)
        filename = f"{mac_address}.json"
        self._saves += 1
        content = b'{"person": %d, "save": %d}' % (self._number, self._saves)  # never the same bytes twice
        try:
            response = client.save_config(mac_address, content)
        except requests.RequestException:
            self.possible[filename] = self.possible.get(filename, {None}) | {content}
            self.outcomes["unanswered"] += 1
            return False
        assert response.status_code == 200, response.text
        self.possible[filename] = {content}
        self.outcomes["answered"] += 1
        return True


def find_lost(server: Server, tap: Wiretap, people: list[Person]) -> list[str]:
    """Wait until nothing is owed any more, as long as a test may. Return what is lost all the same, as sentences."""
    with suppress(AssertionError):
        poll(lambda: server.query(OWED), lambda owed: not owed)
    rows, files, told = server.configs(), server.files("configs"), tap.told()
    lost = [f"{filename} is still owed: {error}" for filename, error in server.query(OWED)]
    if files != rows:
        lost.append("The files do not equal the rows.")
    for person in people:
        for filename, possible in person.possible.items():
            if rows.get(filename) not in possible:
                lost.append(f"{filename} must hold one of {possible}, but holds {rows.get(filename)!r}.")
    for filename, content in rows.items():
        if (filename, content) not in told:
            lost.append(f"{filename} was not announced after it was saved as {content!r}.")
    return lost


class Kill(NamedTuple):
    """What is killed in a round, and when."""

    victim: str
    after_saves: int
    seconds: float
    """How long after the beginning of that save: at any moment of it."""
    worker: int
    """Which one, where it is a worker: a number to be taken modulo how many there are, the oldest first."""
    manner: str
    """Of a broker: back ``at once``, or when the round's saves are ``over``; or it is ``hung`` until they are over, and
    takes with it what it was sent meanwhile and never read."""

    @classmethod
    def choose(cls, choices: random.Random, saves: int) -> Self:
        return cls(
            choices.choice(["broker", "broker", "broker", "worker", "worker", "master", "everything"]),
            choices.randint(1, saves),
            choices.uniform(0, 0.03),
            choices.randrange(100),
            choices.choice(["at once", "over", "hung"]),
        )


class Chaos:
    """A server, its broker with a tap between them, and people who save."""

    def __init__(self, server: Server, broker: Mosquitto, tap: Wiretap, seed: int, clients: int = CLIENTS) -> None:
        self.people = [Person(number, seed) for number in range(clients)]
        self.kills: Counter[str] = Counter()
        self._server, self._broker, self._tap = server, broker, tap
        self._choices = random.Random(seed)  # noqa: S311 - to be repeatable
        self._is_up = threading.Event()
        self._is_up.set()

    def play(self, saves: int) -> str:
        """Kill something while so many saves are tried. Return what was done."""
        kill = Kill.choose(self._choices, saves)
        before = self._outcomes()
        begun = threading.Semaphore(0)
        people = [self.people[number % len(self.people)] for number in range(saves)]
        with ThreadPoolExecutor(len(self.people)) as threads:
            working = [threads.submit(self._save, person, people.count(person), begun) for person in self.people]
            for _ in range(kill.after_saves):
                assert begun.acquire(timeout=LIMIT)
            threading.Event().wait(kill.seconds)
            self._kill(kill)
        for work in working:
            work.result()
        if kill.victim == "broker" and kill.manner == "hung":
            self._broker.kill()
        if kill.victim == "broker" and kill.manner != "at once":
            self._broker.start()
        self.kills[kill.victim] += 1
        outcomes = self._outcomes() - before
        return (
            f"{kill.victim:10} after {kill.after_saves:2} saves and {kill.seconds * 1000:2.0f} ms"
            f"{MANNERS[kill.manner] if kill.victim == 'broker' else ''}"
            f": {outcomes['answered']} answered, {outcomes['unanswered']} not; {len(self._server.query(OWED))} owed"
        )

    def _save(self, person: Person, times: int, begun: threading.Semaphore) -> None:
        with self._server.client() as client:
            for _ in range(times):
                begun.release()
                if not person.save(client):
                    assert self._is_up.wait(LIMIT)

    def _kill(self, kill: Kill) -> None:
        if kill.victim == "worker":
            poll(lambda: self._kill_worker(kill.worker), bool)
            return
        if kill.victim == "broker":
            if kill.manner == "hung":
                self._broker.freeze()
                return
            self._broker.kill()
            if kill.manner == "at once":
                self._broker.start()
            return
        self._is_up.clear()
        if kill.victim == "everything":
            self._broker.kill()
            self._server.kill()
            self._broker.start()
        else:
            self._server.signal(signal.SIGKILL)
            self._server.stop()  # waits for the workers, who notice that they are alone
        self._server.start()
        self._is_up.set()

    def _kill_worker(self, number: int) -> bool:
        """Return whether there was one."""
        workers = self._server.workers()
        # An earlier kill's may go in this moment.
        with suppress(ProcessLookupError):
            if workers:
                os.kill(workers[number % len(workers)], signal.SIGKILL)
                return True
        return False

    def _outcomes(self) -> Counter[str]:
        return sum((person.outcomes for person in self.people), Counter())

    def lost(self) -> list[str]:
        """See :func:`find_lost`."""
        return find_lost(self._server, self._tap, self.people)

    def summary(self) -> str:
        outcomes, kills = self._outcomes(), ", ".join(f"{count} × {victim}" for victim, count in self.kills.items())
        return (
            f"{outcomes.total()} saves of {len(self._server.configs())} files, {outcomes['answered']} answered;"
            f" killed: {kills}; {len(self._tap.passed)} announcements sent, {len(self._tap.acknowledged)} acknowledged"
        )


def tap(server: Server, broker: Mosquitto) -> Wiretap:
    """One that reads each file in the moment of its announcement. The server is not started yet."""

    def look(filename: str) -> bytes | None:
        path = server.directory("configs") / filename
        return path.read_bytes() if path.exists() else None

    tap = Wiretap(broker.port, look)
    server.environ["MQTT_URL"] = tap.url
    return tap


@contextmanager
def _installed() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="iotsupport-chaos-") as directory:
        data_dir = Path(directory) / "installation"
        server = Server(
            Installation.make(data_dir, make_database(data_dir)), Path(directory) / "server", WEB_CONCURRENCY="2"
        )
        try:
            yield server
        finally:
            server.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill broker and server while people save; say whether all is heard.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--saves", type=int, default=SAVES, help="in all rounds together")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="iotsupport-broker-") as directory, _installed() as server:
        broker = Mosquitto(Path(directory)).start()
        try:
            with tap(server, broker) as wire:
                server.start()
                return _run(Chaos(server, broker, wire, options.seed, options.clients), options)
        finally:
            broker.stop()


def _run(chaos: Chaos, options: argparse.Namespace) -> int:
    for number in range(options.rounds):
        print(f"{number + 1:2} {chaos.play(options.saves // options.rounds)}", flush=True)
    lost = chaos.lost()
    print(chaos.summary())
    print("\n".join(lost) or "Every file was announced after its last save, and equals its row.")
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
