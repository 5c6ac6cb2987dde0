"""Many clients change one file at once, through several workers, while devices read it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from iotsupport.tests.support.marathons import SAVES_OF_EACH, UPLOADS_OF_EACH, WORKERS, marathon
from iotsupport.tests.support.server import NEW, Installation, Server, sha256
from iotsupport.tests.support.waiting import LIMIT

CLIENTS = 8
READERS = 2
MAC = "aa-bb-cc-dd-ee-ff"


@pytest.fixture(scope="module")
def running_server(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(template, tmp_path_factory.mktemp("server"), WEB_CONCURRENCY=str(WORKERS)).start(*NEW)
    yield server
    server.remove()


@pytest.fixture
def server(running_server: Server) -> Server:
    """Without what another test saved."""
    with running_server.client() as client:
        client.delete(f"/configs/{MAC}")
    return running_server


@contextmanager
def readers(url: str, is_whole: Callable[[requests.Response], bool]) -> Iterator[list[Future[int]]]:
    """Read again and again while the block runs; each future is the number of reads, all of them whole."""
    ended = threading.Event()

    def read() -> int:
        reads = 0
        with requests.Session() as session:
            while not ended.is_set():
                response = session.get(url, timeout=LIMIT)
                assert response.status_code == 200
                assert is_whole(response), response.content[:100]
                reads += 1
                ended.wait(0.05)  # the server needs the processor, too
        return reads

    with ThreadPoolExecutor(READERS) as threads:
        try:
            yield [threads.submit(read) for _ in range(READERS)]
        finally:
            ended.set()


def config(client: int, number: int) -> bytes:
    """Content whose length varies, and that tells whether it is whole."""
    padding = f"{client}-{number}-" * (number * 37 % 400)
    return json.dumps({"client": client, "padding": padding, "sha256": sha256(padding.encode())}).encode()


def is_whole_config(response: requests.Response) -> bool:
    content = response.json()
    return bool(sha256(content["padding"].encode()) == content["sha256"])


@marathon
@pytest.mark.both_databases
def test_8_clients_save_one_configuration_many_times_each(server: Server) -> None:
    last_commit = "SELECT content FROM devices_historicaldeviceconfig ORDER BY history_id DESC LIMIT 1"

    def check() -> None:
        [(content,)] = server.query(last_commit)
        assert server.configs() == server.files("configs") == {f"{MAC}.json": content.encode()}

    # All of them stop for a look after every other save: each time the last commit must be on the disk.
    meeting = threading.Barrier(CLIENTS, action=check, timeout=LIMIT)

    def save_many_times(client_number: int) -> list[int]:
        statuses = []
        with server.client() as client:
            for number in range(SAVES_OF_EACH):
                statuses.append(client.save_config(MAC, config(client_number, number)).status_code)
                if number % 2:
                    meeting.wait()
        return statuses

    with server.client() as client:
        client.save_config(MAC, config(0, 0))
    with readers(f"{server.url}/configs/{MAC}.json", is_whole_config) as reads, ThreadPoolExecutor(CLIENTS) as clients:
        statuses = list(clients.map(save_many_times, range(CLIENTS)))

    assert statuses == [[200] * SAVES_OF_EACH] * CLIENTS
    assert all(future.result() > 0 for future in reads)


@marathon
@pytest.mark.both_databases
def test_8_clients_upload_one_asset_of_3_mb_several_times_each(server: Server) -> None:
    def firmware(client_number: int, number: int) -> bytes:
        return hashlib.shake_256(b"%d %d" % (client_number, number)).digest(3_000_000 + number)

    def upload_several_times(client_number: int) -> list[int]:
        with server.client() as client:
            return [
                client.upload("fw.bin", firmware(client_number, number)).status_code
                for number in range(UPLOADS_OF_EACH)
            ]

    sent = {sha256(firmware(client, number)) for client in range(CLIENTS) for number in range(UPLOADS_OF_EACH)}
    with server.client() as client:
        client.upload("fw.bin", firmware(0, 0))
    is_whole = lambda response: sha256(response.content) in sent  # noqa: E731
    with readers(f"{server.url}/assets/fw.bin", is_whole) as reads, ThreadPoolExecutor(CLIENTS) as clients:
        statuses = list(clients.map(upload_several_times, range(CLIENTS)))

    assert statuses == [[200] * UPLOADS_OF_EACH] * CLIENTS
    assert all(future.result() > 0 for future in reads)
    [(last_commit,)] = server.query("SELECT sha256 FROM assets_historicalasset ORDER BY history_id DESC LIMIT 1")
    assert server.assets() == {name: sha256(content) for name, content in server.files("assets").items()}
    assert server.assets() == {"fw.bin": last_commit}
    assert server.files("blobs").keys() == sent


@pytest.mark.both_databases
def test_workers_never_find_the_database_locked(server: Server) -> None:
    def save_and_delete(client_number: int) -> set[int]:
        mac_address = f"00-00-00-00-00-{client_number:02x}"
        statuses = set()
        with server.client() as client:
            for number in range(10):
                statuses.add(client.save_config(mac_address, config(client_number, number)).status_code)
                statuses.add(client.delete(f"/configs/{mac_address}").status_code)
        return statuses

    with ThreadPoolExecutor(CLIENTS) as clients:
        statuses = set().union(*clients.map(save_and_delete, range(CLIENTS)))

    assert statuses == {200, 204}
    assert server.configs() == server.files("configs") == {}
