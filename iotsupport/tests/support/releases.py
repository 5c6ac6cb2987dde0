"""Installations as each release left them: database and files, one archive a release in ``iotsupport/tests/releases``.

The archive of a release is made once, by its own code, and never changed::

    git worktree add ../release v1.2.3
    make -C ../release to-test
    (cd ../release && .venv/bin/python -m iotsupport.tests.support.releases) > iotsupport/tests/releases/1.2.3.tar.gz

In it, of each kind of database: ``database.sql``, all that it holds as statements; ``data/``, what its ``DATA_DIR``
has; ``facts.json``, what its users know, and what devices were answered. The same rows and files are the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from iotsupport import __version__
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.databases import DATABASE, DATABASES, Database, PostgreSQLDatabase, SQLiteDatabase
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.postgresql import PostgreSQL, create_database, program
from iotsupport.tests.support.server import clean_environ

ARCHIVES = BASE_DIR / "iotsupport" / "tests" / "releases"
VERSIONS = sorted(path.name.removesuffix(".tar.gz") for path in ARCHIVES.glob("*.tar.gz"))

# What an installation keeps; all else in its data directory is made anew.
KEPT = ["assets", "blobs", "configs", "secret_key"]

# Run in a process of its own, whose environment says which installation it is.
FILL = """
import json
from django.conf import settings
from django.core.management import call_command
call_command("migrate", verbosity=0)
settings.ALLOWED_HOSTS += ["testserver"]
from iotsupport.tests.support.release_contents import fill, models_without_rows
facts = fill()
print(json.dumps({"facts": facts, "without_rows": models_without_rows()}))
"""


class Release(NamedTuple):
    """An unpacked one, of the kind of database that the tests run on."""

    directory: Path

    @classmethod
    def unpack(cls, version: str, directory: Path) -> Release:
        with tarfile.open(ARCHIVES / f"{version}.tar.gz") as archive:
            for member in archive:
                if member.name.startswith(f"{DATABASE}/"):
                    archive.extract(member, directory, filter="data")
                    # Which takes away what others may do with it: a file says by its mode what it is.
                    (directory / member.name).chmod(member.mode)
        return cls(directory / DATABASE)

    @property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads((self.directory / "facts.json").read_text()))

    def load_into(self, database: Database) -> None:
        """Put all that it holds in the place of what a database has; nobody may be connected."""
        statements = (self.directory / "database.sql").read_bytes().decode()  # with the line ends that are in it
        if isinstance(database, SQLiteDatabase):
            for suffix in ["", "-wal", "-shm"]:
                Path(f"{database.path}{suffix}").unlink(missing_ok=True)
            with closing(sqlite3.connect(database.path)) as connection:
                connection.executescript(statements)
        else:
            database.change(f"DROP SCHEMA public CASCADE; CREATE SCHEMA public; {statements}")

    def copy_files(self, data_dir: Path) -> None:
        shutil.copytree(self.directory / "data", data_dir, dirs_exist_ok=True)


def main() -> int:
    with tempfile.TemporaryDirectory() as path, closing(PostgreSQL().start()) as server:
        directories = {kind: Path(path) / kind for kind in DATABASES}
        for kind, directory in directories.items():
            (directory / "data").mkdir(parents=True)
            database = (
                PostgreSQLDatabase(create_database(server.url))
                if kind == "postgresql"
                else SQLiteDatabase(directory / "data")
            )
            facts = _fill(directory / "data", database)
            (directory / "facts.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1, sort_keys=True))
            (directory / "database.sql").write_bytes(_dump(database))
        sys.stdout.buffer.write(pack(Path(path)))
    return 0


def _fill(data_dir: Path, database: Database) -> dict[str, Any]:
    # A broker that is not there: all that is saved is owed.
    environ = {"DATA_DIR": str(data_dir), **database.environ, "MQTT_URL": f"mqtt://127.0.0.1:{free_port()}"}
    command = [sys.executable, str(BASE_DIR / "manage.py"), "shell", "--verbosity=0", "-c", FILL]
    done = subprocess.run(command, env=clean_environ(environ), stdout=subprocess.PIPE, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    if said["without_rows"]:
        raise SystemExit(f"Add rows of {', '.join(said['without_rows'])} to release_contents.py.")
    return {"version": __version__, **said["facts"]}


def _dump(database: Database) -> bytes:
    if isinstance(database, SQLiteDatabase):
        with closing(sqlite3.connect(database.path)) as connection:
            return "\n".join([*connection.iterdump(), ""]).encode()
    command = [program("pg_dump"), "--inserts", "--no-owner", "--no-privileges", f"--dbname={database.url}"]
    dump = subprocess.run(command, capture_output=True, check=True).stdout
    # Without settings, of which earlier versions of PostgreSQL do not know all, and what only psql understands.
    dump = dump[dump.index(b"CREATE ") :]
    return re.sub(rb"^\\\w+ .*\n", b"", dump, flags=re.MULTILINE)


def pack(directory: Path) -> bytes:
    """Make an archive that has the same bytes for the same files, whenever and by whomever it is made."""
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for path in sorted(directory.rglob("*")):
            parts = path.relative_to(directory).parts
            if path.is_dir() or (parts[1] == "data" and parts[2] not in KEPT):
                continue
            member = archive.gettarinfo(path, "/".join(parts))
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = int(member.mtime) if parts[1] == "data" else 0
            with path.open("rb") as file:
                archive.addfile(member, file)
    return packed.getvalue()


if __name__ == "__main__":
    sys.exit(main())
