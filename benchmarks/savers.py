"""Those who save configurations of a fleet: the model in one process, and a script through gunicorn."""

from __future__ import annotations

import html
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple, Protocol, Self
from urllib.parse import urlencode

from benchmarks.fleet import Fleet, content, filename, mac_address
from benchmarks.harness import ROOT, environ, gunicorn
from iotsupport.tests.support.mosquitto import Mosquitto

# So high that what is measured is not the pace at which announcements go out.
PUBLISH_RATE = "100000"

HIDDEN_FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)"')


class Save(NamedTuple):
    """One save; seconds of the machine's monotonic clock, which all processes share."""

    filename: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Saver(Protocol):
    """Saves one configuration after another, all over the fleet."""

    def save(self, times: int) -> list[Save]: ...


class Turns:
    """Numbers from all over a fleet: neighbours in time are no neighbours in the database."""

    def __init__(self, size: int, start: int = 0) -> None:
        self._size = size
        self._count = start

    def next(self) -> tuple[int, int]:
        """Which configuration to save, and a version that it did not have before."""
        self._count += 1
        return self._count * 7919 % self._size, time.monotonic_ns()


class ModelSaver:
    """``DeviceConfig.save`` in a process of its own, as the settings are a process's."""

    name = "`DeviceConfig.save()`"

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextmanager
    def run(cls, fleet: Fleet, mqtt_url: str) -> Iterator[Self]:
        command = [sys.executable, "-m", "benchmarks.savers", str(fleet.size)]
        env = environ(fleet.data_dir, MQTT_URL=mqtt_url, MQTT_PUBLISH_RATE=PUBLISH_RATE)
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True) as process:
            yield cls(process)  # it ends with its input

    def save(self, times: int) -> list[Save]:
        assert self._process.stdin and self._process.stdout  # noqa: S101 - for mypy
        print(times, file=self._process.stdin, flush=True)
        return [Save(*each) for each in json.loads(self._process.stdout.readline())]


def obey(size: int) -> None:
    """The other process: save as often as standard input says, line by line."""
    from devices.models import DeviceConfig

    turns = Turns(size)

    def save() -> Save:
        number, version = turns.next()
        config = DeviceConfig.objects.get(mac_address=mac_address(number))
        config.content = content(number, version)
        began = time.monotonic()
        config.save()
        return Save(config.filename, began, time.monotonic())

    for line in sys.stdin:
        print(json.dumps([save() for _ in range(int(line))]), flush=True)


class ApiSaver:
    """A script with a connection that is kept, and a gunicorn as an installation runs it."""

    name = "`PUT` through gunicorn"

    def __init__(self, port: int, token: str, turns: Turns) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._turns = turns

    @classmethod
    @contextmanager
    def run(cls, fleet: Fleet, mqtt_url: str) -> Iterator[Self]:
        with gunicorn(fleet.data_dir, MQTT_URL=mqtt_url, MQTT_PUBLISH_RATE=PUBLISH_RATE) as server:
            yield cls(server.port, fleet.token, Turns(fleet.size))

    def save(self, times: int) -> list[Save]:
        self._connect()
        return [self._save() for _ in range(times)]

    def save_until(self, end: float) -> list[Save]:
        """Save until that time of the monotonic clock: at least once."""
        self._connect()
        saves = [self._save()]
        while saves[-1].ended < end:
            saves.append(self._save())
        return saves

    def _connect(self) -> None:
        self._connection.close()  # by now the server may have: the next request opens another
        self._connection.connect()

    def _save(self) -> Save:
        number, version = self._turns.next()
        body = content(number, version)
        began = time.monotonic()
        self._connection.request("PUT", f"/configs/{filename(number)}", body, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        ended = time.monotonic()
        if response.status != 200:
            raise RuntimeError(answer.decode())
        return Save(filename(number), began, ended)


class FormSaver:
    """An administrator who opens the form of one configuration, and saves it, again and again."""

    name = "the admin's form"

    def __init__(self, port: int, session: str, number: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._cookies = {"sessionid": session}
        self._number = number
        self._path = f"/admin/devices/deviceconfig/{number + 1}/change/"

    def save_until(self, end: float) -> list[Save]:
        """As :meth:`ApiSaver.save_until`. Only the saving is measured."""
        self._connection.close()
        saves = [self._save()]
        while saves[-1].ended < end:
            saves.append(self._save())
        return saves

    def _save(self) -> Save:
        _, page = self._ask("GET")
        fields = dict(HIDDEN_FIELD.findall(page))
        form = {
            "csrfmiddlewaretoken": fields["csrfmiddlewaretoken"],
            "based_on": html.unescape(fields["based_on"]),
            "content": content(self._number, time.monotonic_ns()),
        }
        began = time.monotonic()
        status, page = self._ask("POST", urlencode(form))
        ended = time.monotonic()
        if status != 302:
            raise RuntimeError(page)
        return Save(filename(self._number), began, ended)

    def _ask(self, method: str, body: str | None = None) -> tuple[int, str]:
        headers = {
            "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        self._connection.request(method, self._path, body, headers)
        response = self._connection.getresponse()
        page = response.read().decode()
        for cookie in response.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        return response.status, page


class RawSaver:
    """What no save can do without: one row committed with the same PRAGMAs; one file written, synced and renamed."""

    name = "raw commit + fsync + rename"

    def __init__(self, fleet: Fleet) -> None:
        self._directory = fleet.data_dir / "configs"
        self._turns = Turns(fleet.size)
        # The other process's, as Django opens it.
        self._database = sqlite3.connect(fleet.data_dir / "db.sqlite3", timeout=20, isolation_level=None)
        for pragma in ["journal_mode=WAL", "synchronous=FULL", "cache_size=2000"]:
            self._database.execute(f"PRAGMA {pragma}")

    @classmethod
    @contextmanager
    def run(cls, fleet: Fleet) -> Iterator[Self]:
        saver = cls(fleet)
        try:
            yield saver
        finally:
            saver._database.close()

    def save(self, times: int) -> list[Save]:
        return [self._save() for _ in range(times)]

    def _save(self) -> Save:
        number, version = self._turns.next()
        text, target = content(number, version), self._directory / filename(number)
        beside = self._directory / f".raw-{version}"
        began = time.monotonic()
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute(
            "UPDATE devices_deviceconfig SET content = ? WHERE mac_address = ?", [text, mac_address(number)]
        )
        with beside.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        self._database.execute("COMMIT")
        beside.rename(target)
        return Save(target.name, began, time.monotonic())


@contextmanager
def live_broker() -> Iterator[Mosquitto]:
    with tempfile.TemporaryDirectory(prefix="iotsupport-broker-") as directory:
        broker = Mosquitto(Path(directory)).start()
        try:
            yield broker
        finally:
            broker.stop()


if __name__ == "__main__":
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "iotsupport.settings"
    django.setup()
    obey(int(sys.argv[1]))
