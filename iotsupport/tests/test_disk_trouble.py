"""A disk that is full or read-only: changes are refused with a sentence, and devices go on downloading."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import requests

from iotsupport.tests.support.disk import Disk, may_mount
from iotsupport.tests.support.module_broker import *  # noqa: F403
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.server import NEW, Installation, Server, sha256
from iotsupport.tests.support.waiting import LIMIT, poll

MAC = "aa-bb-cc-dd-ee-ff"
OLD_CONFIG, NEW_CONFIG = b'{"version": 1}', b'{"version": 2}'
OLD_ASSET = b"old" * 5_000

# After this one is heard, whatever was announced before has been heard, too.
LAST_MAC = "00-00-00-00-00-01"

pytestmark = pytest.mark.skipif(not may_mount(), reason="Only root may mount a small disk, where mounting is allowed.")


class Disks(NamedTuple):
    """Small ones: of both mirrors, and of the kept bytes of all versions, where much more has room."""

    mirrors: Disk
    blobs: Disk


@pytest.fixture(scope="module")
def installed(
    template: Installation, broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Disks]]:
    """A server on small disks. All tests have it, since nothing of their trouble stays."""
    directory = tmp_path_factory.mktemp("disks")
    with Disk(directory / "mirrors") as mirrors, Disk(directory / "data" / "blobs", size_kib=16 * 1024) as blobs:
        server = Server(
            template,
            directory / "data",
            ESP32_CONFIGS_DIR=str(mirrors.path / "configs"),
            ASSETS_DIR=str(mirrors.path / "assets"),
            MQTT_URL=broker.url,
        )
        yield server.start(*NEW), Disks(mirrors, blobs)
        server.remove()


@pytest.fixture
def disks(installed: tuple[Server, Disks]) -> Iterator[Disks]:
    _, disks = installed
    yield disks
    for disk in disks:  # where the test failed
        disk.make_writable()
        disk.free()


@pytest.fixture
def server(installed: tuple[Server, Disks], disks: Disks) -> Server:
    """With one configuration and one asset, and none of its workers on its way out."""
    server, _ = installed
    poll(server.workers, lambda workers: len(workers) == 1)
    with server.client() as client:
        for filename in server.configs():
            assert client.delete(f"/configs/{filename.removesuffix('.json')}").status_code == 204
        assert client.save_config(MAC, OLD_CONFIG).status_code == 200
        assert client.upload("firmware.bin", OLD_ASSET).status_code == 200
    # What is not struck off is announced again by the next server.
    owed = "SELECT filename FROM notifications_debt WHERE owed_since IS NOT NULL"
    poll(lambda: server.query(owed), lambda owed: owed == [])
    return server


@pytest.fixture
def new_asset() -> bytes:
    """Bytes that no other test has uploaded: those would be kept already."""
    return uuid.uuid4().bytes * 1_000


@pytest.fixture
def subscriber(server: Server, broker: Mosquitto) -> Iterator[Subscriber]:
    with Subscriber(broker.port) as subscriber:
        yield subscriber


def facts(server: Server) -> dict[str, Any]:
    """All that a refusal must not change."""
    with server.client() as client:
        listings = client.get("/configs").json(), client.get("/assets").json()
    histories = [server.query(f"SELECT count(*) FROM {table}") for table in HISTORIES]  # noqa: S608
    directories = [server.files(name) for name in ["configs", "assets", "blobs"]]
    return {"rows": (server.configs(), server.assets(), histories), "files": directories, "listings": listings}


HISTORIES = ["devices_historicaldeviceconfig", "assets_historicalasset"]


def assert_refused(response: requests.Response, sentence: str) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == {"error": sentence, "code": "STORAGE_UNAVAILABLE", "details": {}}


def assert_downloads_work(server: Server) -> None:
    config = requests.get(f"{server.url}/configs/{MAC}.json", timeout=LIMIT)
    asset = requests.get(f"{server.url}/assets/firmware.bin", timeout=LIMIT)
    assert (config.status_code, config.content) == (200, OLD_CONFIG)
    assert (asset.status_code, asset.content) == (200, OLD_ASSET)


def assert_unhealthy(server: Server, reason: str) -> None:
    response = poll(
        lambda: requests.get(f"{server.url}/health", timeout=LIMIT), lambda response: response.status_code == 503
    )
    assert response.json()["status"] == "unhealthy"
    assert response.json()["reason"] == reason


def assert_changes_work(server: Server, subscriber: Subscriber, new_asset: bytes) -> None:
    """And that nothing was announced before them."""
    kept = server.files("blobs").keys()
    with server.client() as client:
        assert client.save_config(LAST_MAC, NEW_CONFIG).status_code == 200
        assert client.upload("firmware.bin", new_asset).status_code == 200
    heard = {subscriber.next().payload for _ in range(2)}
    assert heard == {b'{"filename": "%s.json"}' % LAST_MAC.encode(), b'{"filename": "firmware.bin"}'}
    poll(lambda: requests.get(f"{server.url}/health", timeout=LIMIT).json()["status"], lambda said: said == "healthy")
    assert server.files("configs") == server.configs()
    assert server.files("assets") == {"firmware.bin": new_asset}
    assert server.files("blobs").keys() == kept | {sha256(new_asset)}


def no_room(label: str) -> str:
    return f"No room is left on the disk of the {label} directory. Free some space there, then try again."


def cannot_be_written(label: str) -> str:
    return f"The {label} directory cannot be written. Make it writable for the server's user, then try again."


def test_a_full_disk(server: Server, disks: Disks, subscriber: Subscriber, new_asset: bytes) -> None:
    before = facts(server)
    disks.mirrors.fill()

    with server.client() as client:
        assert_refused(client.save_config(MAC, NEW_CONFIG), no_room("configurations"))
        assert_refused(client.save_config("00-00-00-00-00-00", NEW_CONFIG), no_room("configurations"))
        assert_refused(client.upload("firmware.bin", new_asset), no_room("assets"))
        assert_refused(client.upload("more.bin", new_asset), no_room("assets"))

    assert facts(server) == before
    assert_downloads_work(server)
    assert_unhealthy(server, no_room("configurations"))
    disks.mirrors.free()
    assert_changes_work(server, subscriber, new_asset)


def test_what_does_not_fit_leaves_the_disk_as_it_was(server: Server, subscriber: Subscriber, new_asset: bytes) -> None:
    before = facts(server)

    with server.client() as client:
        assert_refused(client.upload("huge.bin", b"huge" * 400_000), no_room("assets"))

    assert facts(server) == before
    assert_changes_work(server, subscriber, new_asset)


def test_a_disk_that_becomes_read_only(server: Server, disks: Disks, subscriber: Subscriber, new_asset: bytes) -> None:
    before = facts(server)
    disks.mirrors.make_read_only()

    with server.client() as client:
        assert_refused(client.save_config(MAC, NEW_CONFIG), cannot_be_written("configurations"))
        assert_refused(client.upload("firmware.bin", new_asset), cannot_be_written("assets"))
        assert_refused(client.delete(f"/configs/{MAC}"), cannot_be_written("configurations"))
        assert_refused(client.delete("/assets/firmware.bin"), cannot_be_written("assets"))

    assert facts(server) == before
    assert_downloads_work(server)
    assert_unhealthy(server, cannot_be_written("configurations"))
    disks.mirrors.make_writable()
    assert_changes_work(server, subscriber, new_asset)


def test_a_delete_makes_room_on_a_full_disk(server: Server, disks: Disks) -> None:
    disks.mirrors.fill()

    with server.client() as client:
        assert client.delete(f"/configs/{MAC}").status_code == 204

    assert server.files("configs") == server.configs() == {}


def test_no_room_for_the_bytes_of_a_new_version(
    server: Server, disks: Disks, subscriber: Subscriber, new_asset: bytes
) -> None:
    disks.blobs.fill()
    before = facts(server)

    with server.client() as client:
        assert_refused(client.upload("firmware.bin", new_asset), no_room("blobs"))
        assert client.save_config(MAC, OLD_CONFIG).status_code == 200
    assert subscriber.next().payload == b'{"filename": "%s.json"}' % MAC.encode()

    assert facts(server)["files"] == before["files"]
    assert_downloads_work(server)
    assert_unhealthy(server, no_room("blobs"))
    disks.blobs.free()
    assert_changes_work(server, subscriber, new_asset)


def test_bytes_of_versions_that_cannot_be_written(
    server: Server, disks: Disks, subscriber: Subscriber, new_asset: bytes
) -> None:
    before = facts(server)
    disks.blobs.make_read_only()

    with server.client() as client:
        assert_refused(client.upload("firmware.bin", new_asset), cannot_be_written("blobs"))

    assert facts(server) == before
    assert_downloads_work(server)
    server.signal(signal.SIGHUP)
    disks.blobs.make_writable()
    assert_changes_work(server, subscriber, new_asset)


def test_a_disk_that_is_read_only_when_the_server_starts(
    server: Server, disks: Disks, subscriber: Subscriber, new_asset: bytes
) -> None:
    first_line = len(server.lines)
    server.kill()
    (server.directory("configs") / ".new-left").write_text("half")
    (server.directory("configs") / "notes.txt").write_text("not known")
    disks.mirrors.make_read_only()
    server.start()

    assert_downloads_work(server)
    assert_unhealthy(server, cannot_be_written("configurations"))
    with server.client() as client:
        assert_refused(client.save_config(MAC, NEW_CONFIG), cannot_be_written("configurations"))
    log = "\n".join(server.lines[first_line:])
    assert "iotsupport.E011" in log
    assert "Not everything could be made equal; see above." in log
    assert "Traceback" not in log

    disks.mirrors.make_writable()
    (server.directory("configs") / "notes.txt").unlink()
    server.stop()
    assert ".new-left" in server.files("configs")
    server.start()
    assert_changes_work(server, subscriber, new_asset)
