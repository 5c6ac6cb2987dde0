"""An import that is killed, and one beside which people save and devices download."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import requests

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.marathons import IMPORTS_KILLED, TAKEN_TOGETHER, marathon
from iotsupport.tests.support.server import NEW, Installation, Server, clean_environ, files, manage, sha256
from iotsupport.tests.support.waiting import LIMIT

# Nobody listens there: what is to be announced stays owed.
NOWHERE = "mqtt://127.0.0.1:1"


def name(number: int) -> str:
    return f"02-00-00-00-{number // 256:02x}-{number % 256:02x}.json"


def text(number: int, version: int) -> bytes:
    return b'{"deviceName": "Sensor %d", "version": %d, "padding": "%s"}' % (number, version, b"x" * 800)


def write(directory: Path, version: int) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(TAKEN_TOGETHER):
        (directory / name(number)).write_bytes(text(number, version))


@contextmanager
def importing(environ: dict[str, str], directory: Path, stdout: IO[str] | int) -> Iterator[subprocess.Popen[str]]:
    """An import that goes on; its lines come as they are written."""
    command = [sys.executable, "-u", "manage.py", "import_configs", str(directory)]
    env = clean_environ(environ)
    with subprocess.Popen(command, cwd=BASE_DIR, env=env, stdout=stdout, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@marathon
@pytest.mark.both_databases
def test_an_import_that_is_killed_leaves_each_old_or_new(template: Installation, tmp_path: Path) -> None:
    installation = template.copy(tmp_path / "installation")
    environ = {**installation.environ, "MQTT_URL": NOWHERE}
    moments = random.Random(7)  # noqa: S311 - to be repeatable
    for version in range(1, IMPORTS_KILLED + 1):
        before = rows(installation)
        write(tmp_path / "existing", version)

        with importing(environ, tmp_path / "existing", subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(moments.choice([1, TAKEN_TOGETHER // 2, TAKEN_TOGETHER - 1])):
                assert process.stdout.readline().endswith((": taken\n", ": replaced\n"))
            threading.Event().wait(moments.uniform(0, 0.05))  # at any moment of a batch
        installation.database.wait_until_left()

        check_each_old_or_new(installation, before, version)
        manage(environ, "sync_mirror")
        assert files(installation.data_dir / "configs") == rows(installation)
    done = manage(environ, "import_configs", str(tmp_path / "existing"), limit=5 * LIMIT)
    assert done.stdout.splitlines()[-1].endswith(" 0 refused")
    assert rows(installation) == {name(n): text(n, IMPORTS_KILLED) for n in range(TAKEN_TOGETHER)}


def rows(installation: Installation) -> dict[str, bytes]:
    found = installation.database.query("SELECT mac_address, content FROM devices_deviceconfig")
    return {f"{mac_address}.json": content.encode() for mac_address, content in found}


def check_each_old_or_new(installation: Installation, before: dict[str, bytes], version: int) -> None:
    after, query = rows(installation), installation.database.query
    new = {name(number): text(number, version) for number in range(TAKEN_TOGETHER)}
    changed = {each for each in after if after[each] != before.get(each)}
    assert changed
    assert {each: after[each] for each in changed} == {each: new[each] for each in changed}
    for filename, content in files(installation.data_dir / "configs").items():
        assert filename.startswith(".new-") or content in {before.get(filename), new[filename]}
    # What is in the row is so in everything that was written with it, and in nothing else.
    versions = "SELECT mac_address, content FROM devices_historicaldeviceconfig ORDER BY history_id"
    assert {f"{mac_address}.json": content.encode() for mac_address, content in query(versions)} == after
    boards = dict(query("SELECT mac_address, config_sha256 FROM iotsupport_board"))
    assert {f"{mac_address}.json": digest for mac_address, digest in boards.items()} == {
        each: sha256(content) for each, content in after.items()
    }
    owed = {each for (each,) in query("SELECT filename FROM notifications_debt WHERE owed_since IS NOT NULL")}
    assert owed == after.keys()


@marathon
def test_people_save_and_devices_download_while_an_import_runs(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server(MQTT_URL=NOWHERE).start(*NEW)
    write(tmp_path / "existing", 1)
    server.manage("import_configs", str(tmp_path / "existing"), limit=5 * LIMIT)
    write(tmp_path / "existing", 2)
    old_and_new, saves = {text(0, 1), text(0, 2)}, 0

    pause = threading.Event()
    output = tmp_path / "output"  # a pipe that nobody reads would be full
    with (
        output.open("w") as stdout,
        importing(server.environ, tmp_path / "existing", stdout) as process,
        server.client() as client,
    ):
        while process.poll() is None:
            saves += 1
            content = b'{"saves": %d}' % saves
            assert client.save_config("aa-bb-cc-dd-ee-ff", content).status_code == 200
            mine = requests.get(f"{server.url}/configs/aa-bb-cc-dd-ee-ff.json", timeout=LIMIT)
            theirs = requests.get(f"{server.url}/configs/{name(0)}", timeout=LIMIT)
            assert (mine.content, theirs.content in old_and_new) == (content, True)
            pause.wait(0.02)  # the import needs the processor, too

    [*_, summary] = output.read_text().splitlines()
    assert summary == f"0 taken, {TAKEN_TOGETHER} replaced, 0 unchanged, 0 refused"
    assert saves > 1
    imported = {name(n): text(n, 2) for n in range(TAKEN_TOGETHER)}
    assert server.files("configs") == server.configs() == {**imported, "aa-bb-cc-dd-ee-ff.json": content}
