"""Several servers on one PostgreSQL, each with a mirror of its own."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import requests

from iotsupport.settings import BASE_DIR
from iotsupport.tests.owed.fleet import OWED
from iotsupport.tests.support.databases import PostgreSQLDatabase
from iotsupport.tests.support.disk import Disk, may_mount
from iotsupport.tests.support.marathons import SAVES_ON_NODES, marathon
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.page_walk import Page
from iotsupport.tests.support.postgresql import PostgreSQL
from iotsupport.tests.support.server import NEW, Installation, Server, clean_environ, sha256
from iotsupport.tests.support.waiting import LIMIT, poll

pytestmark = [pytest.mark.postgresql, pytest.mark.processes]

MAC = "aa-bb-cc-dd-ee-ff"
PATH = f"/configs/{MAC}.json"
END = b"the end"

only_with_disks = pytest.mark.skipif(
    not may_mount(), reason="Only root may mount a small disk, where mounting is allowed."
)


class SharedDatabase(PostgreSQLDatabase):
    """One for all nodes; it goes with its server."""

    def copy(self, data_dir: Path) -> Self:
        return self

    def drop(self) -> None:
        pass


class Nodes(NamedTuple):
    a: Server
    b: Server
    postgresql: PostgreSQL
    broker: Mosquitto

    @property
    def both(self) -> tuple[Server, Server]:
        return self.a, self.b

    def save(self, content: bytes, *, on: int = 0, mac_address: str = MAC) -> None:
        with self.both[on].client() as client:
            response = client.save_config(mac_address, content)
            assert response.status_code == 200, response.text

    def upload(self, filename: str, content: bytes, *, on: int = 0) -> None:
        with self.both[on].client() as client:
            response = client.upload(filename, content)
            assert response.status_code == 200, response.text

    def download(self, path: str) -> list[bytes | None]:
        """What both give for it now; None for nothing, or while a node is down."""
        return [self._content(node, path) for node in self.both]

    def _content(self, node: Server, path: str) -> bytes | None:
        # Asked for with each message and each look: requests would take longer than the node's answer.
        with (
            closing(HTTPConnection("127.0.0.1", node.port, timeout=LIMIT)) as connection,
            suppress(OSError, HTTPException),
        ):
            connection.request("GET", path)
            with connection.getresponse() as answer:
                content = answer.read()
                return content if answer.status == 200 else None
        return None

    def get(self, node: Server, path: str) -> requests.Response:
        return requests.get(f"{node.url}{path}", timeout=LIMIT)

    def wait_for(self, path: str, content: bytes | None) -> None:
        """Wait until both give it, and all that is owed is announced."""
        poll(lambda: self.download(path), lambda downloaded: downloaded == [content, content])
        poll(lambda: self.a.query(OWED), lambda owed: not owed)

    def save_and_wait(self, content: bytes) -> None:
        """Save it on one; wait until both give it, and all that is owed is announced."""
        self.save(content)
        self.wait_for(PATH, content)

    @contextmanager
    def devices(self, path: str) -> Iterator[Subscriber]:
        """Hears, and downloads from both nodes in the moment of each message."""
        with Subscriber(self.broker.port, look=lambda message: self.download(path)) as subscriber:
            yield subscriber

    def heard(self, subscriber: Subscriber) -> list[list[bytes | None]]:
        """What was downloaded with each message until now."""
        subscriber.publish("iotsupport/end", END)
        return [message.seen for message in subscriber.before(END)]

    def follower(self, node: Server) -> int:
        """The process that listens."""
        inode = (node.data_dir / "follower.lock").stat().st_ino
        # Other disks have the same numbers.
        return poll(lambda: [pid for pid, waits in lockers(inode) if not waits and pid in node.workers()], bool)[0]

    def cut_off(self) -> None:
        """End the connections that listen."""
        self.postgresql.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'iotsupport'"
            " AND query IN ('SELECT 1', 'LISTEN iotsupport_mirror')"
        )

    def restart(self) -> None:
        """Whatever a test left."""
        if not self.postgresql.is_running:
            self.postgresql.start()
        for node in self.both:
            if not node.is_running:
                node.start()


def lockers(inode: int) -> list[tuple[int, bool]]:
    """Who has a file locked with flock(2), or waits for it."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines() if f":{inode} " in line]
    return [(int(line[5]), True) if line[1] == "->" else (int(line[4]), False) for line in lines]


@contextmanager
def held(node: Server, name: str) -> Iterator[Callable[[int], bool]]:
    """Let nobody put a file into a mirror; call it to see whether a process waits for that."""
    [path] = (node.data_dir / "locks").glob(f"{name}-*.lock")
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    def has_open(pid: int) -> bool:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(link) == str(path):
                    return True
        return False

    try:
        yield has_open
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk | None]:
    """Where the second node's mirrors are, if this user may mount one."""
    if not may_mount():
        yield None
        return
    with Disk(tmp_path_factory.mktemp("disk"), size_kib=16 * 1024) as disk:
        yield disk


@pytest.fixture(scope="module")
def pair(template: Installation, tmp_path_factory: pytest.TempPathFactory, disk: Disk | None) -> Iterator[Nodes]:
    postgresql = PostgreSQL().start()
    broker = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    made = template.copy_to(postgresql.url, tmp_path_factory.mktemp("installed"))
    installed = made._replace(database=SharedDatabase(made.database.url))
    of_b = {"ESP32_CONFIGS_DIR": str(disk.path / "configs"), "ASSETS_DIR": str(disk.path / "assets")} if disk else {}
    # The second is what is started again and again: one worker.
    of_each = ({"WEB_CONCURRENCY": "2"}, {"WEB_CONCURRENCY": "1"} | of_b)
    a, b = (Server(installed, tmp_path_factory.mktemp("node"), MQTT_URL=broker.url, **of_one) for of_one in of_each)
    nodes = Nodes(a, b, postgresql, broker)
    try:
        with ThreadPoolExecutor(2) as starting:
            list(starting.map(lambda node: node.start(*NEW), [a, b]))
        yield nodes
    finally:
        a.end()
        b.end()
        broker.stop()
        postgresql.close()


@pytest.fixture
def nodes(pair: Nodes) -> Iterator[Nodes]:
    """Both are there, and listen; at the end of each test, they are equal, and owe nothing."""
    pair.restart()
    for node in pair.both:
        node.wait_until_connected(pair.broker)
        pair.follower(node)
    yield pair
    pair.restart()
    poll(lambda: [public(node, "configs") for node in pair.both], lambda files: files == [pair.a.configs()] * 2)
    poll(lambda: digests(pair), lambda found: found == [pair.a.assets()] * 2)
    poll(lambda: pair.a.query(OWED), lambda owed: not owed)
    assert "was interrupted" not in pair.a.log + pair.b.log


def digests(nodes: Nodes) -> list[dict[str, str]]:
    return [{name: sha256(content) for name, content in public(node, "assets").items()} for node in nodes.both]


def public(node: Server, directory: str) -> dict[str, bytes]:
    """Without what killed processes left."""
    return {name: content for name, content in node.files(directory).items() if not name.startswith(".")}


# --- Following ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [0, 1])
def test_a_save_on_one_is_downloaded_from_both_with_the_same_etag(nodes: Nodes, on: int) -> None:
    content = b'{"saved on": %d}' % on

    nodes.save(content, on=on)

    nodes.wait_for(PATH, content)
    first, second = (nodes.get(node, PATH).headers["ETag"] for node in nodes.both)
    assert first == second


def test_the_last_message_comes_when_both_have_the_new_bytes(nodes: Nodes) -> None:
    with nodes.devices(PATH) as devices:
        for number in range(20):
            nodes.save(b'{"number": %d}' % number, on=number % 3 % 2)
            if number % 5 == 4:
                last = b'{"number": %d}' % number
                nodes.wait_for(PATH, last)
                assert nodes.heard(devices)[-1] == [last, last]


def test_each_message_finds_the_new_bytes_on_one_node_at_least(nodes: Nodes) -> None:
    with nodes.devices(PATH) as devices:
        nodes.save_and_wait(b'{"version": "one"}')
        seen = nodes.heard(devices)

    assert all(b'{"version": "one"}' in downloaded for downloaded in seen)
    # One of each node; either may come twice where a process comes to a halt on the way.
    assert 2 <= len(seen) <= 4


@pytest.mark.parametrize("on", [0, 1])
def test_assets_that_are_uploaded_replaced_reverted_and_deleted(nodes: Nodes, on: int) -> None:
    filename, path = f"on-{on}.bin", f"/assets/on-{on}.bin"
    first, second = os.urandom(3_000_000), os.urandom(1024 * 1024)
    with nodes.devices(path) as devices:
        nodes.upload(filename, first, on=on)
        nodes.wait_for(path, first)
        nodes.upload(filename, second, on=on)
        nodes.wait_for(path, second)
        revert(nodes.both[1 - on], filename)
        nodes.wait_for(path, first)
        assert nodes.heard(devices)[-1] == [first, first]
    with nodes.both[on].client() as client:
        assert client.delete(path).status_code == 204
    nodes.wait_for(path, None)


def revert(node: Server, filename: str) -> None:
    """Bring back an asset's first version in the admin."""
    with node.administrator() as browser:
        page = f"{node.url}/admin/assets/asset/versions/{filename}/1/restore/"
        asked = browser.get(page, timeout=LIMIT)
        [form] = [form for form in Page(asked.text).forms if "based_on" in form.values]
        fields = {**form.values, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        answer = browser.post(page, data=fields, timeout=LIMIT)
        assert answer.history, answer.text


def test_an_empty_asset(nodes: Nodes) -> None:
    nodes.upload("empty.bin", b"")

    nodes.wait_for("/assets/empty.bin", b"")


def test_both_are_sent_the_same_bytes_at_the_same_moment(nodes: Nodes) -> None:
    content = os.urandom(2_500_000)

    with ThreadPoolExecutor(2) as people:
        list(people.map(lambda on: nodes.upload(f"same-{on}.bin", content, on=on), [0, 1]))

    for on in [0, 1]:
        nodes.wait_for(f"/assets/same-{on}.bin", content)
    statement = f"SELECT number FROM assets_sharedchunk WHERE sha256 = '{sha256(content)}' ORDER BY number"  # noqa: S608
    assert nodes.a.query(statement) == [(0,), (1,), (2,)]


def test_what_the_admin_saves_and_deletes_on_one(nodes: Nodes) -> None:
    mac_address = "00-00-00-00-00-0a"
    with nodes.a.administrator() as browser:
        form = f"{nodes.a.url}/admin/devices/deviceconfig/add/"
        browser.get(form, timeout=LIMIT)
        token = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        browser.post(form, data={"mac_address": mac_address, "content": '{"by": "admin"}', **token}, timeout=LIMIT)
        nodes.wait_for(f"/configs/{mac_address}.json", b'{"by": "admin"}')
        [(pk,)] = nodes.a.query(f"SELECT id FROM devices_deviceconfig WHERE mac_address = '{mac_address}'")  # noqa: S608
        page = f"{nodes.a.url}/admin/devices/deviceconfig/"
        chosen = {"action": "delete_selected", "_selected_action": str(pk), "post": "yes", **token}
        browser.post(page, data=chosen, timeout=LIMIT)

    nodes.wait_for(f"/configs/{mac_address}.json", None)


def test_what_a_command_imports_on_one_is_announced_by_both(nodes: Nodes, tmp_path: Path) -> None:
    filenames = [f"00-00-00-00-01-{number:02x}.json" for number in range(20)]
    for filename in filenames:
        (tmp_path / filename).write_text('{"imported": true}')

    with Subscriber(nodes.broker.port, look=lambda message: nodes.download(f"/configs/{name_of(message)}")) as devices:
        nodes.a.manage("import_configs", str(tmp_path))
        poll(lambda: nodes.b.files("configs").keys() >= set(filenames), bool)
        poll(lambda: nodes.a.query(OWED), lambda owed: not owed)
        devices.publish("iotsupport/end", END)
        last = {message.payload: message.seen for message in devices.before(END)}

    assert len(last) == len(filenames)
    assert {tuple(seen) for seen in last.values()} == {(b'{"imported": true}',) * 2}


def test_a_change_of_many_is_applied_once_and_read_from_both(nodes: Nodes) -> None:
    mac_addresses = [f"00-00-00-00-33-{number:02x}" for number in range(20)]
    for mac_address in mac_addresses:
        nodes.save(b'{"pin": 1.0}', mac_address=mac_address)
    with nodes.a.client() as client:
        planned = client.post("/changes", json={"patch": {"pin": 7}, "where": {"macs": mac_addresses}}).json()
        path = f"/changes/{planned['id']}"
        with nodes.b.client() as other:
            poll(lambda: other.get(path).json(), lambda change: change["state"] == "planned")
            assert other.post(f"{path}/apply").status_code == 202
        change = poll(lambda: client.get(path).json(), lambda change: change["state"] == "applied")

    assert change["counts"]["changed"] == 20
    nodes.wait_for(f"/configs/{mac_addresses[-1]}.json", b'{"pin": 7}')
    counts = nodes.a.query(
        "SELECT count(*) FROM devices_historicaldeviceconfig WHERE mac_address LIKE '00-00-00-00-33-%'"
        " GROUP BY mac_address"
    )
    assert set(counts) == {(2,)}


def name_of(message: Any) -> str:
    return str(message.payload.decode().rpartition(": ")[2].strip('"}'))


@marathon
def test_many_save_the_same_few_on_both(nodes: Nodes) -> None:
    mac_addresses = [f"00-00-00-00-02-{number:02x}" for number in range(4)]

    def save(person: int) -> None:
        with nodes.both[person % 2].client() as client:
            for number in range(SAVES_ON_NODES):
                content = b'{"person": %d, "number": %d}' % (person, number)
                assert client.save_config(mac_addresses[(person + number) % 4], content).status_code == 200

    with nodes.devices(f"/configs/{mac_addresses[0]}.json") as devices:
        with ThreadPoolExecutor(8) as people:
            list(people.map(save, range(8)))
        rows = nodes.a.configs()
        for mac_address in mac_addresses:
            nodes.wait_for(f"/configs/{mac_address}.json", rows[f"{mac_address}.json"])
        assert nodes.heard(devices)[-1] == [rows[f"{mac_addresses[0]}.json"]] * 2


# --- Trouble --------------------------------------------------------------------------------------------------------


def test_one_that_is_cut_off_catches_up_and_announces(nodes: Nodes) -> None:
    with nodes.devices(PATH) as devices:
        nodes.cut_off()
        nodes.save(b'{"while": "cut off"}')

        nodes.wait_for(PATH, b'{"while": "cut off"}')
        assert nodes.heard(devices)[-1] == [b'{"while": "cut off"}'] * 2


def test_what_is_saved_while_one_compares_is_followed(nodes: Nodes) -> None:
    """It listens first: nobody tells it again of what it did not hear."""
    nodes.save_and_wait(b'{"version": "old"}')
    with held(nodes.b, "configs") as waits:
        nodes.cut_off()
        nodes.save(b'{"while": "cut off"}')
        poll(lambda: waits(nodes.follower(nodes.b)), bool)

        nodes.save(b'{"while": "it compares"}', mac_address="00-00-00-00-03-00")

    nodes.wait_for("/configs/00-00-00-00-03-00.json", b'{"while": "it compares"}')


def test_while_postgresql_is_away_both_go_on_and_follow_when_it_is_back(nodes: Nodes) -> None:
    nodes.save_and_wait(b'{"before": true}')
    nodes.postgresql.stop()

    assert nodes.download(PATH) == [b'{"before": true}'] * 2

    nodes.postgresql.start()
    poll(lambda: nodes.get(nodes.a, "/health").status_code, lambda status: status == 200)
    nodes.save_and_wait(b'{"after": true}')


def test_one_that_was_started_without_postgresql_follows_when_it_is_back(nodes: Nodes) -> None:
    nodes.b.stop()
    nodes.save(b'{"version": "unseen"}')
    nodes.postgresql.stop()
    nodes.b.start()

    nodes.postgresql.start()

    nodes.wait_for(PATH, b'{"version": "unseen"}')


def test_another_worker_takes_over_when_the_one_that_listens_is_killed(nodes: Nodes) -> None:
    listening = nodes.follower(nodes.a)

    os.kill(listening, signal.SIGKILL)

    nodes.save(b'{"after": "the kill"}', on=1)
    nodes.wait_for(PATH, b'{"after": "the kill"}')
    assert nodes.follower(nodes.a) != listening


def test_one_that_cannot_lock_listens_when_it_can(nodes: Nodes) -> None:
    nodes.b.stop()
    lock = nodes.b.data_dir / "follower.lock"
    lock.unlink()
    lock.mkdir()
    first_line = len(nodes.b.lines)
    nodes.b.start()
    nodes.b.wait_for_log("is not followed here until that is repaired", after=first_line)
    nodes.save(b'{"while": "locked out"}')

    lock.rmdir()

    nodes.wait_for(PATH, b'{"while": "locked out"}')


@contextmanager
def saved_before_b_writes(nodes: Nodes, content: bytes) -> Iterator[None]:
    """Saved on the first; the second has heard of it, and waits to write it."""
    with held(nodes.b, "configs") as waits:
        nodes.save(content)
        poll(lambda: waits(nodes.follower(nodes.b)), bool)
        yield


def test_one_that_is_killed_before_it_writes_follows_when_it_starts_and_is_announced(nodes: Nodes) -> None:
    nodes.save_and_wait(b'{"version": "old"}')
    with nodes.devices(PATH) as devices:
        with saved_before_b_writes(nodes, b'{"version": "new"}'):
            assert nodes.download(PATH) == [b'{"version": "new"}', b'{"version": "old"}']
            nodes.b.kill()
        nodes.b.start()
        nodes.wait_for(PATH, b'{"version": "new"}')
        # It may come while the node starts: a device asks again what does not answer.
        assert nodes.heard(devices)[-1][1] in {None, b'{"version": "new"}'}


def test_nobody_announces_what_is_noted_before_the_file_is_there(nodes: Nodes) -> None:
    nodes.save_and_wait(b'{"version": "old"}')
    with nodes.devices(PATH) as devices:
        with saved_before_b_writes(nodes, b'{"version": "new"}'):
            owed = nodes.a.query("SELECT claimed_by FROM notifications_debt WHERE owed_since IS NOT NULL")
        nodes.wait_for(PATH, b'{"version": "new"}')
        assert nodes.heard(devices)[-1] == [b'{"version": "new"}'] * 2

    assert [bool(claimed_by) for (claimed_by,) in owed] == [True]


def test_a_file_whose_process_died_after_the_commit_is_written_although_others_announced_it(nodes: Nodes) -> None:
    nodes.save_and_wait(b'{"version": "old"}')
    code = f"""
from devices.models import DeviceConfig
DeviceConfig.objects.put({MAC!r}, '{{"version": "of the dead"}}')
"""
    with nodes.devices(PATH) as devices:
        with held(nodes.a, "configs") as waits:
            dying = subprocess.Popen(
                [sys.executable, "manage.py", "shell", "--no-imports", "-c", code],
                cwd=BASE_DIR,
                env=clean_environ(nodes.a.environ),
            )
            poll(lambda: waits(dying.pid), bool)
            poll(lambda: nodes.get(nodes.b, PATH).content, lambda content: content == b'{"version": "of the dead"}')
            dying.kill()
            dying.wait()
        nodes.wait_for(PATH, b'{"version": "of the dead"}')
        assert nodes.heard(devices)[-1] == [b'{"version": "of the dead"}'] * 2


def save_while_b_cannot_write(nodes: Nodes, content: bytes) -> None:
    """Save on the first; return when the second has said so, and the first announced it all the same."""
    first_line = len(nodes.b.lines)
    nodes.save(content)
    nodes.b.wait_for_log(f"{MAC}.json was saved, but cannot be followed here yet", after=first_line)
    poll(lambda: nodes.a.query(OWED), lambda owed: not owed)


@only_with_disks
@pytest.mark.parametrize(("how", "repair"), [("fill", "free"), ("make_read_only", "make_writable")])
def test_one_whose_disk_is_in_trouble_follows_and_announces_when_it_is_repaired(
    nodes: Nodes, disk: Disk, how: str, repair: str
) -> None:
    nodes.save_and_wait(b'{"version": "old"}')
    with nodes.devices(PATH) as devices:
        getattr(disk, how)()
        save_while_b_cannot_write(nodes, b'{"version": "new"}')
        assert nodes.download(PATH) == [b'{"version": "new"}', b'{"version": "old"}']

        getattr(disk, repair)()

        nodes.wait_for(PATH, b'{"version": "new"}')
        assert nodes.heard(devices)[-1] == [b'{"version": "new"}'] * 2


@only_with_disks
def test_one_that_is_started_again_after_its_disk_was_repaired_announces_what_it_gave_out_old(
    nodes: Nodes, disk: Disk
) -> None:
    nodes.save_and_wait(b'{"version": "old"}')
    with nodes.devices(PATH) as devices:
        disk.make_read_only()
        save_while_b_cannot_write(nodes, b'{"version": "new"}')
        nodes.b.kill()
        disk.make_writable()

        nodes.b.start()

        nodes.wait_for(PATH, b'{"version": "new"}')
        seen = nodes.heard(devices)
        assert len(seen) >= 2
        assert seen[-1][1] in {None, b'{"version": "new"}'}


def test_alone_each_save_is_one_message_and_all_is_there_when_the_other_starts(nodes: Nodes) -> None:
    nodes.upload("gone.bin", b"gone")
    nodes.wait_for("/assets/gone.bin", b"gone")
    nodes.b.stop()
    with Subscriber(nodes.broker.port) as devices:
        for number in range(20):
            nodes.save(b'{"alone": %d}' % number)
            poll(lambda: nodes.a.query(OWED), lambda owed: not owed)
        devices.publish("iotsupport/end", END)
        # One or the other may come twice where a process comes to a halt on the way; but not each.
        assert 20 <= len(devices.before(END)) < 30
    nodes.upload("later.bin", b"later")
    with nodes.a.client() as client:
        assert client.delete("/assets/gone.bin").status_code == 204

    nodes.b.start()

    assert nodes.get(nodes.b, PATH).content == b'{"alone": 19}'
    assert nodes.get(nodes.b, "/assets/later.bin").content == b"later"
    assert nodes.get(nodes.b, "/assets/gone.bin").status_code == 404
