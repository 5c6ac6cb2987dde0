"""Several people save at once while the server's processes end and begin, by order or by force."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from iotsupport.tests.support.chaos import Chaos, Person, find_lost
from iotsupport.tests.support.marathons import ENDS, KILL_ROUNDS, RECYCLED_WORKERS, RELOADS, marathon
from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.server import NEW, Server
from iotsupport.tests.support.waiting import LIMIT
from iotsupport.tests.support.wiretap import Wiretap

PEOPLE = 4

# Seconds between two saves of each: somebody saves at any time, and processes that start come to their turn.
PAUSE = 0.03


class Answers:
    """How many saves were answered."""

    def __init__(self) -> None:
        self.semaphore = threading.Semaphore(0)

    def wait_for(self, more: int) -> None:
        for _ in range(more):
            assert self.semaphore.acquire(timeout=LIMIT)


@pytest.fixture
def people() -> list[Person]:
    return [Person(number, seed=1) for number in range(PEOPLE)]


@contextmanager
def saving(server: Server, people: list[Person]) -> Iterator[Answers]:
    """They save again and again, each on a connection of their own."""
    answers = Answers()
    is_over = threading.Event()

    def save(person: Person) -> None:
        with server.client() as client:
            while not is_over.wait(PAUSE):
                if person.save(client):
                    answers.semaphore.release()

    with ThreadPoolExecutor(PEOPLE) as threads:
        working = [threads.submit(save, person) for person in people]
        try:
            yield answers
        finally:
            is_over.set()
    for work in working:
        work.result()


@marathon
def test_what_was_answered_before_the_server_was_ended_is_announced(
    server: Server, broker: Mosquitto, tap: Wiretap, people: list[Person]
) -> None:
    for ends in range(ENDS):
        server.start_connected(broker, *([] if ends else NEW))
        with saving(server, people) as answers:
            answers.wait_for(40)
            server.stop()

    server.environ["WEB_CONCURRENCY"] = "1"  # it has what they left to announce, and nothing else to do
    server.start()

    assert find_lost(server, tap, people) == []


@marathon
def test_what_was_answered_while_the_server_reloaded_is_announced(
    server: Server, broker: Mosquitto, tap: Wiretap, people: list[Person]
) -> None:
    server.start_connected(broker, *NEW)

    with saving(server, people) as answers:
        for reloads in range(RELOADS):
            answers.wait_for(40)
            server.signal(signal.SIGHUP)
            server.wait_for_log("Worker exiting", count=2 * reloads + 2)

    assert find_lost(server, tap, people) == []


@marathon
def test_what_was_answered_while_workers_took_turns_is_announced(
    server: Server, broker: Mosquitto, tap: Wiretap, people: list[Person]
) -> None:
    server.start_connected(broker, *NEW, "--max-requests", "20", "--max-requests-jitter", "10")

    with saving(server, people) as answers:
        server.wait_for_log("Autorestarting worker", count=RECYCLED_WORKERS)
        answers.wait_for(20)

    assert find_lost(server, tap, people) == []


@marathon
@pytest.mark.both_databases
def test_no_change_is_lost_in_rounds_of_kills(server: Server, broker: Mosquitto, tap: Wiretap) -> None:
    server.start(*NEW)
    rounds = Chaos(server, broker, tap, seed=26)

    for _ in range(KILL_ROUNDS):
        rounds.play(saves=10)

    assert rounds.lost() == []
    assert rounds.kills.keys() == {"broker", "worker", "master", "everything"}
