"""The power is cut while people change things; when it is back, everything that was answered is there."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from iotsupport.environment import Environment
from iotsupport.settings import BASE_DIR
from iotsupport.tests.owed.fleet import OWED
from iotsupport.tests.support.databases import is_on_postgresql
from iotsupport.tests.support.disk import Image, may_mount
from iotsupport.tests.support.marathons import POWER_CUTS, marathon
from iotsupport.tests.support.mosquitto import LoggedProcess, Mosquitto
from iotsupport.tests.support.postgresql import PostgreSQL
from iotsupport.tests.support.server import NEW, PASSWORD, Client, Installation, Server, clean_environ, sha256, sign_in
from iotsupport.tests.support.waiting import LIMIT, poll
from iotsupport.tests.support.wiretap import Wiretap
from iotsupport.tests.test_crash import Person, check_that_files_equal_rows

PEOPLE = 3
IMPORTED = 200
# Of all scripts together: before the import takes its first file, however long its process takes to start, and from
# there to the cut.
MOST_REQUESTS = 60
# Every version is kept, on PostgreSQL twice, and in its log: a third of a MiB for each request.
MIB_BETWEEN_CUTS = 64

CONFIG_VERSIONS = "SELECT mac_address, content FROM devices_historicaldeviceconfig WHERE history_type != '-'"
ASSET_VERSIONS = "SELECT filename, sha256 FROM assets_historicalasset WHERE history_type != '-'"

pytestmark = [
    pytest.mark.skipif(not may_mount(), reason="Only root may mount a disk, where mounting is allowed."),
    pytest.mark.processes,
]


class Start:
    """Lets so many requests begin before everybody is there, and any number from then on."""

    def __init__(self, requests: int) -> None:
        self._left = threading.Semaphore(requests)
        self._everybody_is_there = threading.Event()

    def wait(self) -> None:
        if not self._everybody_is_there.is_set() and not self._left.acquire(blocking=False):
            assert self._everybody_is_there.wait(LIMIT)

    def give(self) -> None:
        self._everybody_is_there.set()


class Script(Person):
    """Changes files by the API."""

    start: Start

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.versions: set[tuple[str, str]] = set()

    def change_something(self, client: Client) -> None:
        self.start.wait()
        super().change_something(client)
        self.versions |= {(name, digest) for name, digest in self.acknowledged.items() if digest}


class Administrator:
    """Saves a configuration in the admin and changes the password, in turns: not that of the scripts' user, whose token
    would be revoked by it."""

    username = "chief"
    mac_address = "00-00-00-00-ff-ff"
    filename = f"{mac_address}.json"

    def __init__(self) -> None:
        self.versions: set[tuple[str, str]] = set()
        self.password = PASSWORD
        self._page = "add/"
        self.attempted_password: str | None = None
        self._count = 0

    def work(self, server: Server) -> None:
        try:
            with requests.Session() as browser:
                browser.trust_env = False  # no proxies
                assert sign_in(browser, server.url, self.username, self.password).history
                while True:
                    self._count += 1
                    self._save(browser, f"{server.url}/admin/devices/deviceconfig/")
                    self._change_password(browser, f"{server.url}/admin/password_change/")
        except requests.RequestException:
            return

    def _save(self, browser: requests.Session, url: str) -> None:
        content = f'{{"by": "admin", "save": {self._count}}}'
        answer = _post(
            browser,
            f"{url}{self._page}",
            mac_address=self.mac_address,
            content=content,
            _continue="1",
        )
        assert answer.history, answer.text
        self._page = answer.url.removeprefix(url)
        self.versions.add((self.filename, sha256(content.encode())))

    def _change_password(self, browser: requests.Session, url: str) -> None:
        new = self.attempted_password = f"{PASSWORD}-{self._count}"
        answer = _post(browser, url, old_password=self.password, new_password1=new, new_password2=new)
        assert answer.history, answer.text
        self.password, self.attempted_password = new, None

    def check(self, server: Server) -> None:
        for pk, mac_address in server.query("SELECT id, mac_address FROM devices_deviceconfig"):
            if mac_address == self.mac_address:  # also where the power was cut between the commit and the answer
                self._page = f"{pk}/change/"
        with requests.Session() as browser:
            browser.trust_env = False
            for password in filter(None, [self.password, self.attempted_password]):
                if sign_in(browser, server.url, self.username, password).history:
                    self.password, self.attempted_password = password, None
                    return
        raise AssertionError("No password works that was answered.")


def _post(browser: requests.Session, url: str, **fields: str) -> requests.Response:
    fields["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
    return browser.post(url, data=fields, timeout=LIMIT)


class Import(LoggedProcess):
    """The command, which says of each file that it was taken."""

    def __init__(self, directory: Path, number: int) -> None:
        super().__init__()
        self.directory = directory / f"import-{number}"
        self.directory.mkdir()
        for device in range(IMPORTED):
            path = self.directory / f"00-00-00-01-00-{device:02x}.json"
            path.write_text(f'{{"import": {number}}}')
        self._number = number

    def start(self, environ: dict[str, str]) -> None:
        self._process = self._start(
            *[sys.executable, "manage.py", "import_configs", str(self.directory)],
            cwd=BASE_DIR,
            env=clean_environ({**environ, "PYTHONUNBUFFERED": "1"}),
        )
        self.wait_for_log("taken|replaced")

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(LIMIT)
        self._reader.join(LIMIT)

    @property
    def versions(self) -> set[tuple[str, str]]:
        digest = sha256(b'{"import": %d}' % self._number)
        return {(match[1], digest) for line in self.lines if (match := re.match(r"(\S+): (?:taken|replaced)", line))}


class Machine:
    """A disk with all that an installation keeps, and what runs on it."""

    def __init__(self, directory: Path, template: Callable[[], Installation]) -> None:
        self.image = Image(directory / "disk", (128 + MIB_BETWEEN_CUTS * POWER_CUTS) * 1024)
        self._template = template
        self.server: Server | None = None
        self.postgresql: PostgreSQL | None = None

    @contextmanager
    def run(self) -> Iterator[Server]:
        with self.image:
            try:
                self.server = server = Server(self._install(), self.image.path / "server")
                self.image.sync()  # it was installed long ago
                yield server
            finally:
                if self.server:
                    self.server.kill()
                if self.postgresql:
                    self.postgresql.stop()

    def _install(self) -> Installation:
        if not is_on_postgresql():
            return self._template()
        directory = self.image.path / "postgresql"
        directory.mkdir()
        # As its users run it.
        options = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_wal_size": "64MB"}
        options["dynamic_shared_memory_type"] = "mmap"  # or what is killed would leave it in the machine's memory
        self.postgresql = PostgreSQL(directory, **options).start()
        return self._template().copy_to(self.postgresql.url, self.image.path / "template")

    def cut_power(self, *others: Import) -> None:
        assert self.server
        self.server.freeze()
        if self.postgresql:
            self.postgresql.freeze()
        for other in others:
            other.freeze()
        try:
            left = self.image.look()
        finally:
            self.server.kill()
            if self.postgresql:
                self.postgresql.kill()
            for other in others:
                other.kill()
        self.image.replace(left)

    def start(self) -> None:
        if self.postgresql:
            self.postgresql.start()
        assert self.server
        self.server.start()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Image]:
    with Image(tmp_path / "disk", size_kib=8 * 1024) as disk:
        yield disk


def test_the_secret_key_and_its_directory_survive_a_power_cut(disk: Image) -> None:
    environment = Environment()
    data_dir = environment.make_folder("DATA_DIR", disk.path / "lib" / "data")
    key = environment.secret("NO_SUCH_VARIABLE", data_dir / "secret_key")

    disk.replace(disk.look())

    assert (data_dir / "secret_key").read_text() == key


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    # PostgreSQL's user must get there.
    with tempfile.TemporaryDirectory(prefix="iotsupport-power-") as directory:
        os.chmod(directory, 0o711)  # noqa: S103
        yield Machine(Path(directory), lambda: request.getfixturevalue("template"))


@marathon
@pytest.mark.both_databases
def test_what_was_answered_survives_power_cuts(
    machine: Machine, new_database: object, broker: Mosquitto, tmp_path: Path
) -> None:
    scripts, administrator = [Script(number) for number in range(PEOPLE)], Administrator()
    moments = random.Random(10)  # noqa: S311 - to be repeatable
    with machine.run() as server, Wiretap(broker.port, lambda filename: digest_of(server, filename)) as tap:
        server.environ["MQTT_URL"] = tap.url
        server.add_staff(administrator.username, is_superuser=True)
        server.start(*NEW)
        imports: list[Import] = []
        for number in range(POWER_CUTS):
            imports.append(Import(tmp_path, number))
            cut_power_while_they_work(machine, server, scripts, administrator, imports[-1], moments)

            machine.start()
            stored = check_that_files_equal_rows(server)
            for script in scripts:
                script.check(stored)
            administrator.check(server)
            versions = all_versions(server)
            for answered in [*(script.versions for script in scripts), administrator.versions, imports[-1].versions]:
                assert answered <= versions
            poll(lambda: server.query(OWED), lambda owed: not owed)
            assert set(stored.items()) <= tap.told()


def cut_power_while_they_work(
    machine: Machine,
    server: Server,
    scripts: list[Script],
    administrator: Administrator,
    imported: Import,
    moments: random.Random,
) -> None:
    begun, start = threading.Semaphore(0), Start(MOST_REQUESTS)
    for script in scripts:
        script.start = start
    with ThreadPoolExecutor(PEOPLE + 1) as threads:
        working = [threads.submit(script.work, server, begun) for script in scripts]
        working.append(threads.submit(administrator.work, server))
        for each in working:
            each.add_done_callback(lambda done: begun.release(MOST_REQUESTS))  # with an error, told below
        try:
            imported.start(server.environ)
            while begun.acquire(blocking=False):
                pass
            start.give()
            for _ in range(moments.randrange(PEOPLE, MOST_REQUESTS)):
                assert begun.acquire(timeout=LIMIT)
            threading.Event().wait(moments.uniform(0, 0.03))  # at any moment of the requests
        finally:
            start.give()  # where the import did not come
            machine.cut_power(imported)
    for future in working:
        future.result()


def all_versions(server: Server) -> set[tuple[str, str]]:
    """File names and digests of everything that was ever saved."""
    configs = {(f"{mac}.json", sha256(content.encode())) for mac, content in server.query(CONFIG_VERSIONS)}
    return configs | set(server.query(ASSET_VERSIONS))


def digest_of(server: Server, filename: str) -> str | None:
    """Of what a device would download."""
    path = server.directory("configs" if filename.endswith(".json") else "assets") / filename
    return sha256(path.read_bytes()) if path.exists() else None
