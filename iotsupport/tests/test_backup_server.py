"""A backup is made while people save and upload; what it has is restored into SQLite and into PostgreSQL."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import requests

from iotsupport.settings import BASE_DIR
from iotsupport.tests.owed.fleet import OWED
from iotsupport.tests.support.databases import Database, SQLiteDatabase, is_on_postgresql, make_database
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.server import NEW, Server, clean_environ, manage
from iotsupport.tests.support.waiting import LIMIT, poll

pytestmark = [pytest.mark.both_databases, pytest.mark.processes]

SAVES_A_SECOND = 20
DEVICES = 15


class Saver(threading.Thread):
    """Saves 20 configurations a second, and uploads an asset beside each fifth, until it is told to end."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._ending = threading.Event()
        self.answered = 0

    def run(self) -> None:
        with self._server.client() as client:
            while not self._ending.wait(1 / SAVES_A_SECOND):
                number = self.answered
                content = f'{{"save": {number}}}'.encode()
                assert client.save_config(f"00-00-00-00-00-{number % DEVICES:02x}", content).status_code == 200
                if number % 5 == 0:
                    name = f"{number // 5 % 4}.bin"
                    assert client.upload(name, b"%d" % number * 20_000).status_code == 200
                self.answered += 1

    def end(self) -> None:
        self._ending.set()
        self.join(LIMIT)


@pytest.fixture
def saver(make_server: Callable[..., Server]) -> Iterator[Saver]:
    saver = Saver(make_server().start(*NEW))
    saver.start()
    yield saver
    saver.end()


class Restored:
    """An installation that was made from an archive, and is backed up itself."""

    def __init__(self, data_dir: Path, archive: Path, database: Database, backup: Path) -> None:
        data_dir.mkdir(exist_ok=True)
        self.data_dir, self.database = data_dir, database
        self.environ = {"DATA_DIR": str(data_dir), **database.environ}
        # In one process: starting it is what takes the time.
        code = (
            "from django.core.management import call_command as call;"
            f"call('restore', {str(archive)!r}, skip_checks=False); call('backup', {str(backup)!r})"
        )
        manage(self.environ, "shell", "--no-imports", "-c", code)
        self.rows = rows_of(backup)
        """All rows as a backup of this one has them."""


def rows_of(archive: Path) -> dict[str, bytes]:
    with ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist() if name.startswith("rows/")}


def lines(rows: dict[str, bytes], table: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rows[f"rows/{table}.jsonl"].splitlines()]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Database]:
    """Where the rows end up: in PostgreSQL, where the tests run on that."""
    (tmp_path / "last").mkdir()
    database = make_database(tmp_path / "last")
    yield database
    database.drop()


def test_every_row_version_byte_and_etag_comes_back(saver: Saver, target: Database, tmp_path: Path) -> None:
    server, archive = saver._server, tmp_path / "backup.zip"
    poll(lambda: saver.answered, lambda count: count >= SAVES_A_SECOND)

    before = saver.answered
    server.manage("backup", str(archive))
    saver.end()

    assert saver.answered > before  # nobody waited for it
    rows = rows_of(archive)
    versions = lines(rows, "devices.historicaldeviceconfig")
    # All that was answered before, nothing that came after, and no gap between.
    numbers = sorted(json.loads(version["content"])["save"] for version in versions)
    assert numbers == list(range(len(numbers)))
    assert before <= len(numbers) <= saver.answered
    assert {(version["history_id"], version["content"]) for version in versions} <= set(server.query(VERSIONS))
    # Into SQLite, also where it comes from PostgreSQL; and from there to where the server's was.
    again, last = tmp_path / "first.zip", tmp_path / "last.zip"
    restored = Restored(tmp_path / "first", archive, SQLiteDatabase(tmp_path / "first"), again)
    assert without_announcements(restored.rows) == without_announcements(rows)
    check_files(restored, rows)
    if is_on_postgresql():
        restored = Restored(tmp_path / "last", again, target, last)
        assert without_announcements(restored.rows) == without_announcements(rows)
        check_files(restored, rows)
    check_server(restored, rows)


VERSIONS = "SELECT history_id, content FROM devices_historicaldeviceconfig"


def without_announcements(rows: dict[str, bytes]) -> dict[str, bytes]:
    return {name: lines for name, lines in rows.items() if name != "rows/notifications.announcement.jsonl"}


def check_files(restored: Restored, rows: dict[str, bytes]) -> None:
    """The mirrors have what the rows say, and the bytes of every version are there."""
    configs = {f"{row['mac_address']}.json": row["content"] for row in lines(rows, "devices.deviceconfig")}
    assert {path.name: path.read_text() for path in (restored.data_dir / "configs").iterdir()} == configs
    assets = {row["filename"]: row["sha256"] for row in lines(rows, "assets.asset")}
    assert {path.name: digest_of(path) for path in (restored.data_dir / "assets").iterdir()} == assets
    kept = {path.name: digest_of(path) for path in (restored.data_dir / "blobs").iterdir()}
    assert kept == {row["sha256"]: row["sha256"] for row in lines(rows, "assets.historicalasset")}


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_server(restored: Restored, rows: dict[str, bytes]) -> None:
    """It serves with the same tags, lets in who had a token, and owes no message."""
    port = free_port()
    environ = clean_environ({**restored.environ, "PORT": str(port), "METRICS_DIR": str(restored.data_dir / "metrics")})
    assert restored.database.query(OWED) == []
    command = [sys.executable, "-m", "gunicorn", "iotsupport.wsgi"]
    process = subprocess.Popen(command, cwd=BASE_DIR, env=environ, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        poll(lambda: _answers(url), bool)
        for row in lines(rows, "devices.deviceconfig"):
            answer = requests.get(f"{url}/configs/{row['mac_address']}.json", timeout=LIMIT)
            assert answer.headers["ETag"] == f'"{hashlib.sha256(row["content"].encode()).hexdigest()}"'
        for row in lines(rows, "assets.asset"):
            answer = requests.get(f"{url}/assets/{row['filename']}", timeout=LIMIT)
            assert (answer.headers["ETag"], answer.headers["x-MD5"]) == (f'"{row["sha256"]}"', row["md5"])
        refused = manage(restored.environ, "restore", "/dev/null", "--replace", check=False)
        assert f"{url}, started" in refused.stderr and "End that one first" in refused.stderr
    finally:
        process.terminate()
        process.wait(LIMIT)
    assert restored.database.query(OWED) == []


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=LIMIT).status_code == 200
    except requests.ConnectionError:
        return False


# --- Memory ---

MOST_BYTES = 120 * 1024 * 1024
LARGE = 80 * 1024 * 1024  # not all of it fits beside the program


@pytest.mark.sqlite("What it keeps in memory is the same.")
def test_a_large_one_takes_little_memory(tmp_path: Path, make_server: Callable[..., Server]) -> None:
    archive, server, other = tmp_path / "backup.zip", make_server(), make_server()
    sha256 = hashlib.sha256()
    for _ in range(LARGE // len(ZEROS)):
        sha256.update(ZEROS)
    server.directory("blobs").mkdir()
    with (server.directory("blobs") / sha256.hexdigest()).open("wb") as file:
        file.truncate(LARGE)  # it takes no room
    server.database.change(ASSET.format(sha256=sha256.hexdigest(), size=LARGE))

    peaks = {
        "backup": peak_of(server.environ, "backup", str(archive)),
        "verify_backup": peak_of(server.environ, "verify_backup", str(archive)),
        "restore": peak_of(other.environ, "restore", str(archive), "--replace"),
    }

    assert (other.directory("assets") / "large.bin").stat().st_size == LARGE
    assert {command: peak for command, peak in peaks.items() if peak >= MOST_BYTES} == {}


ZEROS = bytes(1024 * 1024)
ASSET = """
INSERT INTO assets_asset (id, filename, size, sha256, md5, folded, warnings, uploaded_at)
VALUES (1, 'large.bin', {size}, '{sha256}', '', '', '[]', '2024-01-01 00:00:00')
"""


COMMAND = """
import re, sys
from manage import main
sys.argv[0] = "manage.py"
main()
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def peak_of(environ: dict[str, str], *arguments: str) -> int:
    """Run a command; return how many bytes of memory it had at most."""
    # Of the program itself: ru_maxrss would also be that of the process from which it was forked.
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=BASE_DIR, env=clean_environ(environ), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stdout.split()[-1]) * 1024
