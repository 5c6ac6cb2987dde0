"""Fixtures of all tests that have processes of an installation; the root ``conftest.py`` names this as a plugin."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection

from iotsupport.tests.support.databases import Database, make_database, open_database
from iotsupport.tests.support.server import Installation


@pytest.fixture(scope="session")
def new_database() -> Callable[[Path], Database]:
    """Make an empty database for an installation, from the path of its data directory."""
    return make_database


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A directory that does not lie in memory, as those of ``tmp_path`` may.

    Named ahead of whatever starts processes that write to it: what is named last goes first.
    """
    with tempfile.TemporaryDirectory(prefix="iotsupport-tests-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Let one of pytest-xdist's workers make something for all of them; what is returned is handed on as JSON."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def made_once(name: str, make: Callable[[Path], Any]) -> Any:
        """``make`` gets the path of a directory of its own, which is not there yet."""
        facts = shared / f"{name}.json"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not facts.exists():
                facts.write_text(json.dumps(make(shared / name)))
        return json.loads(facts.read_text())

    return made_once


@pytest.fixture(scope="session")
def template(migrated: Callable[[Path], Database], made_once: Callable[..., Any]) -> Installation:
    """An installation with an administrator, to be copied: making one is what takes the time."""

    def make(data_dir: Path) -> list[str]:
        data_dir.mkdir()
        made = Installation.make(data_dir, migrated(data_dir))
        return [str(data_dir), made.database.url, made.token, made.session]

    data_dir, url, *access = made_once("template", make)
    return Installation(Path(data_dir), open_database(url), *access)


@pytest.fixture(scope="session")
def migrated(
    django_test_environment: None, django_db_blocker: Any, made_once: Callable[..., Any]
) -> Callable[[Path], Database]:
    """Make a copy of a database that is migrated once for the run, from the path of its data directory."""

    def migrate(directory: Path) -> str:
        directory.mkdir()
        database = make_database(directory)
        use(database)
        call_command("migrate", verbosity=0)
        leave_database()
        return database.url

    with django_db_blocker.unblock():
        return open_database(made_once("migrated", migrate)).copy


@pytest.fixture(scope="session")
def django_db_setup(
    migrated: Callable[[Path], Database], django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The database of this process. It goes with the run's directory.

    In place of pytest-django's, which migrates one in each process.
    """
    with django_db_blocker.unblock():
        use(migrated(tmp_path_factory.mktemp("database")))
        yield
        leave_database()


@pytest.fixture
def own_database(
    transactional_db: None, migrated: Callable[[Path], Database], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database of this test alone, whose tables it may change: whatever becomes of them, no other test sees it."""
    of_all = connection.settings_dict["NAME"]
    database = migrated(tmp_path_factory.mktemp("own"))
    use(database)
    yield database
    leave_database()
    connection.settings_dict["NAME"] = of_all
    database.drop()


@pytest.fixture
def earlier(
    own_database: Database,
    directories: Path,
    made_once: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str, Callable[[], Any]], Any]]:
    """An installation as an earlier version left it, for all tests that call it by one name.

    The first of them makes it, in its own database and directories; each goes on with copies of both, and with what
    ``make`` returned, as JSON has it. One may be made from another. Going back to earlier tables takes a second of the
    processor.
    """
    copies: list[Database] = []

    def earlier(name: str, make: Callable[[], Any]) -> Any:
        def make_it(directory: Path) -> list[Any]:
            said = make()
            leave_database()
            shutil.copytree(directories, directory / "files")
            made_in = copies[-1] if copies else own_database
            return [str(directory), made_in.copy(directory).url, said]

        directory, url, said = made_once(name, make_it)
        shutil.copytree(Path(directory, "files"), directories, dirs_exist_ok=True)
        copies.append(open_database(url).copy(tmp_path_factory.mktemp("copy")))
        use(copies[-1])
        return said

    yield earlier
    leave_database()
    for copy in copies:
        copy.drop()


def use(database: Database) -> None:
    """Let this process work on a database."""
    leave_database()
    connection.settings_dict["NAME"] = database.name


def leave_database() -> None:
    """Close every connection: a database cannot be copied while somebody has one.

    Another one may have other keys for the same kinds of content.
    """
    ContentType.objects.clear_cache()
    connection.close()
    if connection.vendor == "postgresql":
        connection.close_pool()  # type: ignore[attr-defined]
