"""How long others wait who save while somebody deletes all that the admin's list has.

``python -m benchmarks.deletion``. A script saves one configuration again and again, while the pages of "Delete
selected" are gone through as a browser does, from the question to the end.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import threading
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from statistics import median
from urllib.parse import urlencode

from benchmarks.fleet import Fleet, content, fleet
from benchmarks.harness import gunicorn, percentile, print_claim, print_table, spread

LIST = "/admin/devices/deviceconfig/"
FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')
SAVED = "/configs/02-ff-00-00-00-01.json"


class _Browser:
    def __init__(self, devices: Fleet, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=120)
        self._cookies = {"sessionid": devices.session}

    def ask(self, method: str, fields: dict[str, str] | None = None) -> tuple[int, dict[str, str]]:
        """Return the status, and the hidden fields of the page's form."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        if fields is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, LIST, urlencode(fields) if fields else None, headers)
        response = self._connection.getresponse()
        page = response.read().decode()
        for cookie in response.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        return response.status, {name: html.unescape(value) for name, value in FIELD.findall(page)}


def _save_until(done: threading.Event, begun: threading.Event, devices: Fleet, port: int, seconds: list[float]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Authorization": f"Bearer {devices.token}", "Content-Type": "application/json"}
    while not done.wait(0.02):
        began = time.perf_counter()
        connection.request("PUT", SAVED, content(0, len(seconds)), headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(answer.decode())
        if begun.is_set():
            seconds.append(time.perf_counter() - began)
        begun.set()  # the first waits for the server to load


def _delete_all(browser: _Browser) -> list[float]:
    """Return how long each page took, in seconds: the question first."""
    _, fields = browser.ask("GET")
    action = {"action": "delete_selected", "select_across": "1", "_selected_action": "0"}
    fields, took = {"csrfmiddlewaretoken": fields["csrfmiddlewaretoken"]} | action, []
    status = 200
    while status == 200:
        began = time.perf_counter()
        status, fields = browser.ask("POST", fields)
        took.append(time.perf_counter() - began)
    if status != 302:
        raise RuntimeError(f"The deletion was answered with {status}")
    return took


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=50_000)
    options = parser.parse_args(arguments)
    os.environ.pop("BENCHMARK_FLEETS", None)  # other benchmarks go on with those
    with fleet(options.size) as devices, gunicorn(devices.data_dir) as server:
        saves: list[float] = []
        done, begun = threading.Event(), threading.Event()
        saver = threading.Thread(target=_save_until, args=[done, begun, devices, server.port, saves])
        browser = _Browser(devices, server.port)
        saver.start()
        begun.wait(60)
        try:
            took = _delete_all(browser)
        finally:
            done.set()
            saver.join()
    rows = [["", "number", "ms: median (range)", "ms: 99 in 100 within"]]
    for name, seconds in [("pages that delete", took[1:]), ("saves meanwhile", saves)]:
        milliseconds = [1000 * each for each in seconds]
        rows.append([name, str(len(seconds)), spread(milliseconds), f"{percentile(milliseconds, 0.99):.0f}"])
    print_table(rows)
    print(f"\nThe question took {1000 * took[0]:.0f} ms; all, {sum(took):.0f} s.\n")
    print_claim(f"the longest save while {options.size:,} are deleted, in ms", 1000 * max(saves), at_most=1000)
    print_claim("half of them, in ms", 1000 * median(saves), at_most=500)


if __name__ == "__main__":
    main()
