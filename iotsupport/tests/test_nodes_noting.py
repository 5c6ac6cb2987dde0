"""Two nodes on one PostgreSQL, each with nginx in front and a mirror of its own: a board that moves is one board."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
import requests

from iotsupport.tests.support.nginx import Nginx, directory_for_nginx
from iotsupport.tests.support.postgresql import PostgreSQL
from iotsupport.tests.support.server import NEW, Installation, Server, sha256
from iotsupport.tests.support.waiting import LIMIT, poll
from iotsupport.tests.test_nodes import SharedDatabase

pytestmark = [pytest.mark.postgresql, pytest.mark.processes]

MAC, STRANGER = "aa-bb-cc-dd-ee-ff", "aa-bb-cc-dd-ee-00"


class Node(NamedTuple):
    server: Server
    nginx: Nginx

    def save(self, content: bytes) -> None:
        with self.server.client() as client:
            assert client.save_config(MAC, content).status_code == 200

    def download(self, mac_address: str = MAC, **headers: str) -> requests.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.get(f"{self.nginx.url}/configs/{mac_address}.json", headers=sent, timeout=LIMIT)

    def wait_for(self, content: bytes) -> None:
        """Until this is what it has to give, without asking for it."""
        poll(lambda: self.server.files("configs").get(f"{MAC}.json"), lambda found: found == content)

    def devices(self) -> Any:
        with self.server.client() as client:
            return client.get("/devices").json()


@pytest.fixture(scope="module")
def nodes(template: Installation) -> Iterator[tuple[Node, Node]]:
    with ExitStack() as ending:
        directory = ending.enter_context(directory_for_nginx())
        postgresql = PostgreSQL().start()
        ending.callback(postgresql.close)
        made = template.copy_to(postgresql.url, directory / "installed")
        installed = made._replace(database=SharedDatabase(made.database.url))
        servers = [Server(installed, directory / name, WEB_CONCURRENCY="1") for name in ["a", "b"]]
        for server in servers:
            ending.callback(server.end)
        with ThreadPoolExecutor(2) as starting:
            list(starting.map(lambda server: server.start(*NEW), servers))
        made_nodes = []
        for server in servers:
            nginx = Nginx(directory / f"nginx-{server.port}", server, workers="1").start()
            ending.callback(nginx.stop)
            made_nodes.append(Node(server, nginx))
        first, second = made_nodes
        yield first, second


def wait_until_both_say(nodes: tuple[Node, Node], mac_address: str = MAC, **expected: Any) -> None:
    """What they know of a board, of which both say the same."""

    def is_said(answers: list[Any]) -> bool:
        first, second = ([row for row in each["devices"] if row["mac_address"] == mac_address] for each in answers)
        return len(first) == 1 and first == second and bool(first[0].items() >= expected.items())

    poll(lambda: [node.devices() for node in nodes], is_said)


def test_a_board_that_moves_between_two_nodes_is_one_board(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    old, new = b'{"version": 1}', b'{"version": 2}'
    a.save(old)
    for node in nodes:
        node.wait_for(old)
    wait_until_both_say(nodes, state="never_fetched", last_seen=None)

    etag = a.download(User_Agent="kitchen/1").headers["ETag"]
    wait_until_both_say(nodes, state="current", holds_sha256=sha256(old), user_agent="kitchen/1")

    b.save(new)
    wait_until_both_say(nodes, state="behind", holds_sha256=sha256(old))
    for node in nodes:
        node.wait_for(new)

    answer = b.download(User_Agent="kitchen/2", If_None_Match=etag)
    assert (answer.status_code, answer.content) == (200, new)
    wait_until_both_say(nodes, state="current", behind_since=None, holds_sha256=sha256(new), user_agent="kitchen/2")

    # Where the application answers itself, beside nginx.
    path = f"{a.server.url}/configs/{MAC}.json"
    sent = {"User-Agent": "kitchen/3", "If-None-Match": f'"{sha256(new)}"'}
    assert requests.get(path, headers=sent, timeout=LIMIT).status_code == 304
    wait_until_both_say(nodes, state="current", holds_sha256=sha256(new), user_agent="kitchen/3")


def test_a_board_that_waits_at_two_nodes_is_one_board(nodes: tuple[Node, Node]) -> None:
    for node in nodes:
        assert node.download(STRANGER).status_code == 404

    wait_until_both_say(nodes, STRANGER, state="waiting")
    asked = f"SELECT asked FROM iotsupport_board WHERE mac_address = '{STRANGER}'"  # noqa: S608
    poll(lambda: nodes[0].server.query(asked), lambda rows: [tuple(row) for row in rows] == [(2,)])
