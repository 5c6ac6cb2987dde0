"""What each release left is there after the way to this one: rows, files, what they are answered as, what is owed."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from django.apps import apps
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from assets.models import Asset
from iotsupport.settings import BASE_DIR
from iotsupport.tests.owed.fleet import heard_until_the_end, wait_until_announced
from iotsupport.tests.support.api_client import read, refusal, session_client
from iotsupport.tests.support.databases import Database, make_database
from iotsupport.tests.support.installations import leave_database
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.page_walk import history_of, registered
from iotsupport.tests.support.releases import VERSIONS, Release, pack
from iotsupport.tests.support.server import Installation, Server, sign_in
from iotsupport.tests.support.waiting import poll

# Where a later release keeps what an earlier one had: (table, column) of before to (table, column) of now.
MOVED: dict[tuple[str, str], tuple[str, str]] = {}


class Table(NamedTuple):
    name: str
    columns: list[str]
    rows: list[str]


class Upgraded(NamedTuple):
    """An installation of an earlier release after ``manage.py migrate``."""

    facts: dict[str, Any]
    before: list[list[Any]]
    """What each table had, as :class:`Table` has it."""

    def script(self, kind: str) -> Client:
        """Of somebody who has a ``token``, or a ``narrow_token`` that may only read."""
        return Client(headers={"Authorization": f"Bearer {self.facts[kind]}"})


@pytest.fixture(params=VERSIONS)
def upgraded(
    request: pytest.FixtureRequest,
    earlier: Callable[..., Any],
    own_database: Database,
    directories: Path,
    tmp_path: Path,
) -> Upgraded:
    def upgrade() -> list[Any]:
        release = Release.unpack(request.param, tmp_path / "release")
        leave_database()
        release.load_into(own_database)
        release.copy_files(directories)
        before = [Table(name, columns, rows_of(name, columns)) for name, columns in tables().items()]
        call_command("migrate", verbosity=0)
        return [release.facts, before]

    return Upgraded(*earlier(f"upgraded-from-{request.param}", upgrade))


def tables() -> dict[str, list[str]]:
    """All that the database has, each with its columns."""
    ask = connection.introspection
    with connection.cursor() as cursor:
        names = ask.table_names(cursor)
        return {name: [column.name for column in ask.get_table_description(cursor, name)] for name in names}


def rows_of(table: str, columns: list[str]) -> list[str]:
    quoted = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(map(quoted, columns))} FROM {quoted(table)}")  # noqa: S608
        return [repr([bytes(cell) if isinstance(cell, memoryview) else cell for cell in row]) for row in cursor]


@pytest.mark.both_databases
def test_every_row_is_there_and_says_the_same(upgraded: Upgraded):
    lost = []
    for name, columns, rows in upgraded.before:
        places = [MOVED.get((name, column), (name, column)) for column in columns]
        [table] = {table for table, _ in places}
        now = rows_of(table, [column for _, column in places])
        lost += [f"{name}: {row}" for row in (Counter(rows) - Counter(now)).elements()]

    assert lost == []


@pytest.mark.both_databases
def test_every_row_can_be_read_and_its_pages_open(upgraded: Upgraded):
    for model in apps.get_models():
        assert all(str(row) for row in model._base_manager.all()), model
    browser = session_client(User.objects.get(username="admin"))

    answers = {address: browser.get(address) for address in pages()}

    assert {address: answer.status_code for address, answer in answers.items() if answer.status_code != 200} == {}
    assert len(answers) > 20


def pages() -> Iterator[str]:
    """Every list, one row of each, and the versions of all that has some."""
    for model in registered():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield reverse(f"{name}_changelist")
        row = model._base_manager.order_by("-pk").first()
        if row is not None and not model._meta.proxy:
            yield reverse(f"{name}_change", args=[quote(row.pk)])
        history = history_of(model)
        if history is not None:
            named = set(history._base_manager.values_list(model.name_field, flat=True))  # type: ignore[attr-defined]
            yield from (reverse(f"{name}_versions", args=[each]) for each in named)


@pytest.mark.both_databases
def test_files_are_as_the_rows_say_and_answered_as_before(upgraded: Upgraded, directories: Path):
    said = StringIO()

    call_command("sync_mirror", "--check", stdout=said)

    assert said.getvalue() == "Files and database are equal.\n"
    for path, etag in upgraded.facts["etags"].items():
        answer, body = read(Client().get(urllib.parse.quote(path)))
        assert (answer.status_code, answer["ETag"]) == (200, etag), path
        assert body == (directories / path.removeprefix("/")).read_bytes()


@pytest.mark.both_databases
def test_scripts_go_on_with_their_tokens_and_what_they_save_is_one_version_more(upgraded: Upgraded):
    script, reader = upgraded.script("token"), upgraded.script("narrow_token")
    mac = reader.get("/configs").json()["configs"][-1]["mac_address"]
    number = script.get(f"/configs/{mac}/versions").json()["versions"][0]["number"]
    uploads = Asset.history.filter(filename="firmware.bin").count()

    assert refusal(reader.put(f"/configs/{mac}.json", "{}", content_type="application/json"))[0] == 403
    assert script.put(f"/configs/{mac}.json", "{}", content_type="application/json").status_code == 200
    assert script.post("/assets", {"file": SimpleUploadedFile("firmware.bin", b"new")}).status_code == 200

    assert script.get(f"/configs/{mac}/versions").json()["versions"][0]["number"] == number + 1
    assert Asset.history.filter(filename="firmware.bin").count() == uploads + 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_announces_what_was_owed_once_and_goes_on_with_what_was_begun(
    version: str, tmp_path: Path, broker: Mosquitto
):
    release = Release.unpack(version, tmp_path)
    installed = make_database(release.directory / "data")
    release.load_into(installed)
    facts, installation = release.facts, Installation(release.directory / "data", installed, release.facts["token"], "")
    server = Server(installation, tmp_path / "server", MQTT_URL=broker.url, HISTORY_DAYS="0")
    release.copy_files(server.data_dir)
    try:
        server.manage("migrate")
        with Subscriber(broker.port) as subscriber:
            server.start()
            states = "SELECT state FROM devices_change WHERE reason IN ('planning', 'applying') ORDER BY 1"
            poll(lambda: server.query(states), lambda found: found == [("applied",), ("planned",)])
            wait_until_announced(server)
            with requests.Session() as browser, server.client() as script:
                assert sign_in(browser, server.url, "admin", facts["password"]).history
                etags = {path: script.head(urllib.parse.quote(path)).headers["ETag"] for path in facts["etags"]}
            heard = heard_until_the_end(server, subscriber)
    finally:
        server.remove()

    assert heard == Counter([filename for _, filename in facts["owed"]] + facts["in_the_middle"])
    changed = {path for path, etag in facts["etags"].items() if etags[path] != etag}
    assert changed == {f"/configs/{filename}" for filename in facts["in_the_middle"]}


def test_each_release_but_the_last_has_an_archive():
    released = re.findall(r"^## (\d+\.\d+\.\d+)\b", (BASE_DIR / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert [version for version in released[1:] if version not in VERSIONS] == [], "See releases.py for how to make it."


def test_an_archive_is_the_same_bytes_for_the_same_files(tmp_path: Path):
    archives: list[bytes] = []
    for name in ["one", "other"]:
        directory = Release.unpack(VERSIONS[0], tmp_path / name).directory
        os.utime(directory / "facts.json", (len(archives), len(archives)))
        archives.append(pack(directory.parent))

    assert archives[0] == archives[1]
