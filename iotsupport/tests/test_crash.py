"""The server is killed in the middle of its work, again and again; after each start files and rows are equal."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from iotsupport.mirror.files import TEMPORARY_PREFIX
from iotsupport.tests.support.marathons import CRASHES, marathon
from iotsupport.tests.support.server import NEW, Client, Server, sha256
from iotsupport.tests.support.waiting import LIMIT, poll

CLIENTS = 4


class Person:
    """Changes files of their own, one after the other, until the server is gone; remembers what was acknowledged."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)  # noqa: S311 - to be repeatable
        self.macs = [f"00-00-00-00-{number:02x}-{device:02x}" for device in range(3)]
        self.filenames = [f"{number}-{asset}.bin" for asset in range(2)]
        self.acknowledged: dict[str, str | None] = {}  # file name to SHA-256, None once deleted
        self.attempted: tuple[str, str | None] | None = None

    def work(self, server: Server, begun: threading.Semaphore) -> None:
        with server.client() as client:
            try:
                while True:
                    begun.release()
                    self.change_something(client)
            except requests.RequestException:
                return

    def change_something(self, client: Client) -> None:
        content = b'{"name": "%s"}' % self.random.randbytes(self.random.choice([5, 5_000, 30_000])).hex().encode()
        mac_address, filename = self.random.choice(self.macs), self.random.choice(self.filenames)
        change = self.random.choice(["save", "save", "save", "delete", "upload", "upload", "delete asset"])
        if change == "save":
            self._try(f"{mac_address}.json", sha256(content), lambda: client.save_config(mac_address, content))
        elif change == "delete":
            self._try(f"{mac_address}.json", None, lambda: client.delete(f"/configs/{mac_address}"))
        elif change == "upload":
            firmware = content * 20
            self._try(filename, sha256(firmware), lambda: client.upload(filename, firmware))
        else:
            self._try(filename, None, lambda: client.delete(f"/assets/{filename}"))

    def _try(self, name: str, digest: str | None, request: Callable[[], requests.Response]) -> None:
        self.attempted = (name, digest)
        response = request()
        assert response.status_code in ({200} if digest else {204, 404}), response.text
        self.acknowledged[name] = digest
        self.attempted = None

    def check(self, stored: dict[str, str]) -> None:
        """Everything acknowledged is there; what was attempted last is there or not, and nothing else is."""
        for name, digest in self.acknowledged.items():
            possible = {digest, self.attempted[1]} if self.attempted and self.attempted[0] == name else {digest}
            assert stored.get(name) in possible
        if self.attempted:
            self.acknowledged[self.attempted[0]] = stored.get(self.attempted[0])
            self.attempted = None


@marathon
@pytest.mark.both_databases
def test_kills_in_the_middle_of_saves_uploads_and_deletes(make_server: Callable[..., Server]) -> None:
    server = make_server(WEB_CONCURRENCY="2").start(*NEW)
    people = [Person(number) for number in range(CLIENTS)]
    moments = random.Random(20)  # noqa: S311

    for _ in range(CRASHES):
        kill_while_they_work(server, people, moments)
        server.start()
        stored = check_that_files_equal_rows(server)
        for person in people:
            person.check(stored)

    # How much they came to between two kills is the machine's affair.
    assert server.query("SELECT 1 FROM devices_historicaldeviceconfig")
    assert server.query("SELECT 1 FROM assets_historicalasset")
    assert server.manage("sync_mirror", "--check").stdout == "Files and database are equal.\n"


def kill_while_they_work(server: Server, people: list[Person], moments: random.Random) -> None:
    begun = threading.Semaphore(0)
    with ThreadPoolExecutor(CLIENTS) as threads:
        working = [threads.submit(person.work, server, begun) for person in people]
        for _ in range(moments.randrange(CLIENTS, 40)):
            assert begun.acquire(timeout=LIMIT)
        threading.Event().wait(moments.uniform(0, 0.03))  # at any moment of the requests
        server.kill()
    server.database.wait_until_left()
    for future in working:
        future.result()


def check_that_files_equal_rows(server: Server) -> dict[str, str]:
    """Return the digest of every file that is served."""
    # Of processes that live: what was left by one that does not is there for good.
    poll(lambda: unfinished(server), lambda names: not names)
    configs, assets, blobs = (digests(server.files(name)) for name in ["configs", "assets", "blobs"])
    assert configs == digests(server.configs())
    assert assets == server.assets()
    versions = {sha for (sha,) in server.query("SELECT sha256 FROM assets_historicalasset")}
    assert blobs == {sha: sha for sha in versions}
    return configs | assets


def unfinished(server: Server) -> list[str]:
    """Names of files that are being written."""
    names = [name for directory in ["configs", "assets", "blobs"] for name in os.listdir(server.directory(directory))]
    return [name for name in names if name.startswith(TEMPORARY_PREFIX)]


def digests(contents: dict[str, Any]) -> dict[str, str]:
    return {name: sha256(content) for name, content in contents.items()}
