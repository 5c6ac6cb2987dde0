"""How long the lists and a form take, of few configurations and of many.

``python -m benchmarks.lists``. The API's list, and the admin's: its first page, what a search finds, the announcements,
and the form of one configuration.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from statistics import median
from typing import NamedTuple

from benchmarks.fleet import Fleet, filename, fleet
from benchmarks.harness import gunicorn, print_claim, print_table, spread

SIZES = [100, 10_000, 100_000]
API_LIST = "API: list"
ADMIN_LIST = "/admin/devices/deviceconfig/"


class Page(NamedTuple):
    name: str
    path: str


def _pages(size: int) -> list[Page]:
    part = filename(size // 2)[-11:-5]
    return [
        Page(API_LIST, "/configs"),
        Page("admin: first page", ADMIN_LIST),
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args(arguments)
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        readers = {}
        for size in options.sizes:
            devices = stack.enter_context(fleet(size))
            server = stack.enter_context(gunicorn(devices.data_dir))
            readers[size] = _Reader(devices, server.port)
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


if __name__ == "__main__":
    main()
