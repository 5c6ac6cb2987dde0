"""What it costs a save that its announcement is owed, and what a broker that does not answer costs saves and downloads.

``python -m benchmarks.save_cost``. The same saves, in turns: with notifications off, with a broker that answers, with
one that is frozen meanwhile, and with one that is away; first in one process, then through gunicorn.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Protocol, Self

from benchmarks.harness import ROOT, data_directory, environ, free_port, gunicorn, manage, print_table, spread
from benchmarks.savers import live_broker

FILES = 20
CONDITIONS = ["off", "answers", "frozen", "away"]
MEANINGS = {
    "off": "notifications off",
    "answers": "broker answers",
    "frozen": "broker frozen",
    "away": "broker away",
}


class Saver(Protocol):
    """Something that saves or downloads, and says how long each took, in seconds."""

    def measure(self, times: int) -> dict[str, list[float]]:
        """By what was measured."""

    def wait_until_announced(self) -> None:
        """Wait until nothing is owed."""


def mac_address(number: int) -> str:
    return f"02-00-00-00-00-{number % FILES:02x}"


# --- In one process --------------------------------------------------------------------------------------------------


class Process:
    """``DeviceConfig.save`` in a process of its own, since the settings are a process's."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._ask("save", FILES)

    @classmethod
    @contextmanager
    def run(cls, data_dir: Path, mqtt_url: str) -> Iterator[Self]:
        command = [sys.executable, "-c", "from benchmarks.save_cost import obey; obey()"]
        env = environ(data_dir, MQTT_URL=mqtt_url, DJANGO_SETTINGS_MODULE="iotsupport.settings")
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=quiet, text=True) as process:
            yield cls(process)  # it ends with its input

    def measure(self, times: int) -> dict[str, list[float]]:
        return self._ask("save", times)

    def wait_until_announced(self) -> None:
        self._ask("wait", 0)

    def _ask(self, order: str, times: int) -> dict[str, list[float]]:
        assert self._process.stdin and self._process.stdout  # noqa: S101 - for mypy
        print(order, times, file=self._process.stdin, flush=True)
        seconds: dict[str, list[float]] = json.loads(self._process.stdout.readline())
        return seconds


def obey() -> None:
    """The other process: do what standard input says, line by line."""
    import django

    django.setup()

    from devices.models import DeviceConfig
    from notifications.models import Announcement

    def save(number: int) -> None:
        config, _ = DeviceConfig.objects.get_or_create(mac_address=mac_address(number), defaults={"content": "{}"})
        config.content = content(number)
        cpu_began = time.thread_time()
        saves["save in one process"].append(_time(config.save))
        saves["CPU time of its thread"].append(time.thread_time() - cpu_began)

    number = 0
    for line in sys.stdin:
        order, times = line.split()
        saves: dict[str, list[float]] = defaultdict(list)
        for _ in range(int(times)):
            number += 1
            save(number)
        while order == "wait" and Announcement.objects.owed().exists():
            time.sleep(0.02)
        print(json.dumps(saves), flush=True)


def content(number: int) -> str:
    return json.dumps({"deviceName": "Kitchen", "number": number, "padding": "x" * 500}, indent=2)


def _time(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


# --- Through gunicorn ------------------------------------------------------------------------------------------------


class Script:
    """A client with a connection of its own that is kept."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._number = 0
        self.measure(FILES)

    @classmethod
    @contextmanager
    def run(cls, data_dir: Path, mqtt_url: str) -> Iterator[Self]:
        manage(data_dir, "createsuperuser", "--noinput", "--verbosity=0", "--username=admin", "--email=a@example.com")
        token = manage(data_dir, "create_api_token", "admin").strip()
        with gunicorn(data_dir, MQTT_URL=mqtt_url) as server:
            yield cls(server.port, token)

    def measure(self, times: int) -> dict[str, list[float]]:
        self._connection.close()  # by now the server may have: the next request opens another
        return {
            "save through gunicorn": [_time(self._save) for _ in range(times)],
            "download through gunicorn": [_time(self._download) for _ in range(times)],
        }

    def wait_until_announced(self) -> None:
        self._connection.close()
        while json.loads(self._ask("GET", "/health", None))["owed"]["announcements"]:
            time.sleep(0.02)

    def _save(self) -> None:
        self._number += 1
        self._ask("PUT", f"/configs/{mac_address(self._number)}.json", content(self._number))

    def _download(self) -> None:
        self._ask("GET", f"/configs/{mac_address(0)}.json", None)

    def _ask(self, method: str, path: str, body: str | None) -> bytes:
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(answer.decode())
        return answer


# --- In turns --------------------------------------------------------------------------------------------------------

Medians = dict[str, dict[str, list[float]]]
"""In seconds, of each turn: by what was measured and by condition."""


def take_turns(run: Callable[[Path, str], AbstractContextManager[Saver]], rounds: int, times: int) -> Medians:
    medians: Medians = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        brokers = {condition: stack.enter_context(live_broker()) for condition in ["answers", "frozen"]}
        urls = {condition: broker.url for condition, broker in brokers.items()}
        urls |= {"off": "", "away": f"mqtt://127.0.0.1:{free_port()}"}
        migrated = stack.enter_context(data_directory())
        copies = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iotsupport-benchmark-")))
        savers = {}
        for condition in CONDITIONS:
            data_dir = shutil.copytree(migrated, copies / condition)
            savers[condition] = stack.enter_context(run(data_dir, urls[condition]))
        for number in range(rounds):
            # Each is the first of a round as often as the others.
            turn = number % len(CONDITIONS)
            for condition in CONDITIONS[turn:] + CONDITIONS[:turn]:
                for busy in brokers:  # what the turn before left would be sent in this one
                    savers[busy].wait_until_announced()
                savers[condition].measure(1)  # wakes it up
                if condition == "frozen":
                    brokers[condition].freeze()
                for what, seconds in savers[condition].measure(times).items():
                    medians[what][condition].append(median(seconds))
                if condition == "frozen":
                    brokers[condition].thaw()
    return medians


def rows(medians: Medians) -> Iterator[Sequence[str]]:
    for what, seconds in medians.items():
        for condition in CONDITIONS:
            pairs = zip(seconds[condition], seconds["off"], strict=True)
            ratios = spread([each / off for each, off in pairs], 2) if condition != "off" else "1"
            yield what, MEANINGS[condition], spread([1000 * each for each in seconds[condition]], 2), ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--times", type=int, default=40, help="saves and downloads in each turn")
    options = parser.parse_args()
    medians = [take_turns(run, options.rounds, options.times) for run in (Process.run, Script.run)]
    head = ["", "", "ms: median of the turns' medians (range)", "ratio to off, turn by turn"]
    print_table([head, *(row for each in medians for row in rows(each))])


if __name__ == "__main__":
    os.environ["DJANGO_SUPERUSER_PASSWORD"] = "ducks-and-drakes"  # noqa: S105 - of a server that is gone in a minute
    main()
