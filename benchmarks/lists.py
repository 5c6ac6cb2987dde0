"""How long the first page, the lists and a form take, of few configurations and of many.

``python -m benchmarks.lists``. The admin's first page; the API's list, and the admin's: its first rows, each filter,
its order by a board's last sign, what a search finds, the boards that wait, the announcements; and the form of one
configuration. Of ten boards one is behind, one silent and one was never seen; with ``--changing``, a tenth of all
change their state each minute meanwhile.
"""

from __future__ import annotations

import argparse
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from statistics import median
from typing import NamedTuple

from benchmarks.fleet import Fleet, filename, fleet, mac_address
from benchmarks.harness import gunicorn, print_claim, print_table, spread

SIZES = [100, 10_000, 50_000, 100_000]
# Of up to so many boards, no page of the admin may take longer than so many milliseconds.
BOARDS, PAGE_MS = 50_000, 150
API_LIST = "API: list"
ADMIN_LIST = "/admin/devices/deviceconfig/"


STATES = ["current", "behind", "never_fetched"]


class Page(NamedTuple):
    name: str
    path: str


def _pages(size: int) -> list[Page]:
    part = filename(size // 2)[-11:-5]
    return [
        Page(API_LIST, "/configs"),
        Page("admin: first page", "/admin/"),
        Page("admin: list", ADMIN_LIST),
        *[Page(f"admin: filter by state {state}", f"{ADMIN_LIST}?state={state}") for state in STATES],
        *[Page(f"admin: filter by seen {seen}", f"{ADMIN_LIST}?seen={seen}") for seen in ["silent", "hour", "never"]],
        Page("admin: behind and silent", f"{ADMIN_LIST}?state=behind&seen=silent"),
        Page("admin: the last seen first", f"{ADMIN_LIST}?o=-3"),
        Page("admin: search in a state", f"{ADMIN_LIST}?q=device&state=behind"),
        Page("admin: waiting boards", "/admin/devices/waitingboard/"),
        Page("admin: search a name", f"{ADMIN_LIST}?q=device+{size // 2:06}"),
        Page("admin: search a part of a MAC address", f"{ADMIN_LIST}?q={part.replace('-', '%3A')}"),
        Page("admin: search what all have", f"{ADMIN_LIST}?q=device"),
        Page("admin: filter by OTA", f"{ADMIN_LIST}?enable_ota__exact=1"),
        Page("admin: announcements", "/admin/notifications/announcement/?state=all"),
        Page("admin: form", f"{ADMIN_LIST}{size // 2 + 1}/change/"),
    ]


class _Reader:
    def __init__(self, devices: Fleet, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {devices.token}"}
        self._cookies = {"Cookie": f"sessionid={devices.session}"}

    def read(self, path: str) -> float:
        """Return milliseconds."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers=self._cookies if path.startswith("/admin/") else self._headers)
        response = self._connection.getresponse()
        body = response.read()
        milliseconds = 1000 * (time.perf_counter() - began)
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body[:200]!r}")
        return milliseconds

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _changing(devices: Fleet) -> Iterator[None]:
    """Boards fall behind and fetch, a tenth of them in a minute, as the collector writes it: once a second."""
    ended = threading.Event()

    def change() -> None:
        number, batch = 0, max(1, devices.size // 600)
        with closing(sqlite3.connect(devices.data_dir / "db.sqlite3", timeout=20, isolation_level=None)) as database:
            while not ended.wait(1):
                rows = [mac_address(each % devices.size) for each in range(number, number + batch)]
                number += batch
                marks = ", ".join("?" * len(rows))
                database.execute(
                    "UPDATE iotsupport_board SET last_seen = datetime('now'), state = CASE state"  # noqa: S608
                    f" WHEN 'current' THEN 'behind' ELSE 'current' END WHERE mac_address IN ({marks})",
                    rows,
                )

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--changing", action="store_true", help="change a tenth of the boards each minute meanwhile")
    options = parser.parse_args(arguments)
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        readers = {}
        for size in options.sizes:
            devices = stack.enter_context(fleet(size))
            server = stack.enter_context(gunicorn(devices.data_dir))
            readers[size] = _Reader(devices, server.port)
            if options.changing:
                stack.enter_context(_changing(devices))
        for number in range(options.rounds + 2):
            for size, reader in readers.items():
                for page in _pages(size):
                    milliseconds = reader.read(page.path)
                    if number > 1:  # The first two are to warm up.
                        times[page.name, size].append(milliseconds)
                reader.close()
    names = [page.name for page in _pages(options.sizes[0])]
    rows = [["ms: median (range)", *[f"{size:,} configurations" for size in options.sizes]]]
    rows += [[name, *[spread(times[name, size], 1) for size in options.sizes]] for name in names]
    print_table(rows)
    print()
    for size in options.sizes:
        if size <= 10_000:
            print_claim(f"{API_LIST} of {size:,}, in ms", median(times[API_LIST, size]), at_most=100)
        if size <= BOARDS:
            slowest = max((name for name in names if name != API_LIST), key=lambda name: median(times[name, size]))
            claim = f"the slowest page of {size:,}, {slowest}, in ms"
            print_claim(claim, median(times[slowest, size]), at_most=PAGE_MS)


if __name__ == "__main__":
    main()
