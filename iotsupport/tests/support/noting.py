"""Many boards that ask a running server; and some, and strangers, while its database takes nothing."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import requests

from iotsupport.tests.support.marathons import DOWNLOADS_OF_EACH
from iotsupport.tests.support.server import Client, Server
from iotsupport.tests.support.waiting import LIMIT, poll

# A download waits for no database: for a connection to one that does not answer it would be five seconds.
SOON = 4.5

_numbers = itertools.count()


def dropped(server: Server) -> float:
    lines = requests.get(f"{server.url}/metrics", timeout=LIMIT).text.splitlines()
    return float(next(line for line in lines if line.startswith("iot_checkins_dropped_total ")).rpartition(" ")[2])


def assert_two_hundred_boards_are_where_they_are(server: Server, url: str, client: Client) -> None:
    """They download what the server has from an address, again and again, while some of it is changed.

    Until all is noted: nginx's socket has room for ten datagrams only, where nobody has raised that (unix(7)). What
    finds none is lost, and told by the board's next download.
    """
    boards = [f"02-00-00-01-00-{number:02x}" for number in range(200)]
    there, changed = boards[:150], boards[:20]
    for mac_address in boards:
        assert client.save_config(mac_address, f'{{"deviceName": "{mac_address}"}}'.encode()).status_code == 200

    def count() -> dict[str, int]:
        like = "SELECT state, count(*) FROM iotsupport_board WHERE mac_address LIKE '02-00-00-01-%' GROUP BY state"
        return dict(server.query(like))

    def count_after(downloading: list[str]) -> dict[str, int]:
        download_all(url, downloading)
        return count()

    poll(lambda: count_after(there), lambda found: found == {"current": 150, "never_fetched": 50})
    for mac_address in changed:
        assert client.save_config(mac_address, b'{"deviceName": "changed"}').status_code == 200
    assert count() == {"behind": 20, "current": 130, "never_fetched": 50}

    poll(lambda: count_after(changed[5:]), lambda found: found == {"behind": 5, "current": 145, "never_fetched": 50})


def download_all(url: str, mac_addresses: list[str]) -> None:
    """Several times each."""

    address = urlsplit(url).netloc

    def fetch(mac_address: str) -> None:
        # What requests does for a connection would take longer than the server's answer.
        with closing(HTTPConnection(address, timeout=LIMIT)) as connection:
            connection.request("GET", f"/configs/{mac_address}.json", headers={"User-Agent": "kitchen/1"})
            with connection.getresponse() as answer:
                answer.read()
            assert answer.status == 200

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(fetch, mac_addresses * DOWNLOADS_OF_EACH))


def ask_while_nothing_is_noted(server: Server, mac_address: str, *, strangers: int = 0) -> str:
    """Call where the database takes nothing: one board downloads on, and so many strangers ask.

    Returns what the board calls itself.
    """
    line, name = len(server.lines), f"kitchen/1.{next(_numbers)}"
    # One connection, and so one worker.
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)) as connection:

        def ask(mac_address: str) -> int:
            start = time.monotonic()
            connection.request("GET", f"/configs/{mac_address}.json", headers={"User-Agent": name})
            with connection.getresponse() as answer:
                answer.read()
            assert time.monotonic() - start < SOON
            return answer.status

        assert {ask(mac_address) for _ in range(50)} == {200}
        assert {ask(f"06-{next(_numbers).to_bytes(5).hex('-')}") for _ in range(strangers)} <= {404}
        server.wait_for_log("What boards did cannot be noted now; it is tried again each second", after=line)
        assert {ask(mac_address) for _ in range(50)} == {200}
    return name


def wait_until_noted(server: Server, mac_address: str, name: str) -> None:
    """Call afterwards: noting goes on by itself."""
    question = f"SELECT state, user_agent FROM iotsupport_board WHERE mac_address = '{mac_address}'"  # noqa: S608
    poll(lambda: server.query(question), lambda rows: [tuple(row) for row in rows] == [("current", name)])
