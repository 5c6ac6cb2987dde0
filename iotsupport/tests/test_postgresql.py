"""PostgreSQL goes away and comes back, on a server that nothing else uses; and how its connections are shared."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import requests
from django.db import connection, transaction
from django.test import Client

from devices.models import DeviceConfig
from iotsupport.monitoring.logs import SECONDS_FOR_A_LASTING_LINE
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.databases import SERVER_VARIABLE
from iotsupport.tests.support.noting import ask_while_nothing_is_noted, wait_until_noted
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.postgresql import PostgreSQL, query
from iotsupport.tests.support.server import NEW, NEW_CONF, Installation, Server, clean_environ, manage
from iotsupport.tests.support.waiting import LIMIT, poll

pytestmark = [pytest.mark.postgresql, pytest.mark.processes]

MAC = "aa-bb-cc-dd-ee-ff"
REASON = "The database does not answer, or is not migrated. Check DATABASE_URL, then run 'manage.py migrate'."


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    postgresql = PostgreSQL().start()
    yield postgresql
    postgresql.close()


@pytest.fixture(scope="module")
def installed(template: Installation, postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return template.copy_to(postgresql.url, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def running_server(
    installed: Installation, postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """It is no more patient than any other server."""
    conf = tmp_path_factory.mktemp("conf") / "impatient.py"
    update = f"globals().update(runpy.run_path({str(NEW_CONF)!r}))"
    conf.write_text(f"import runpy\n{update}\npost_worker_init = _post_worker_init\n")
    server = Server(installed, tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="2").start("--config", str(conf))
    yield server
    server.end()


@pytest.fixture
def server(running_server: Server, postgresql: PostgreSQL) -> Iterator[Server]:
    """It has one configuration, and is used to PostgreSQL's coming back."""
    if not running_server.is_running:
        running_server.start()
    poll(lambda: health(running_server)[0], lambda status: status == 200)
    with running_server.client() as client:
        assert client.save_config(MAC, b"{}").status_code == 200
    yield running_server
    if not postgresql.is_running:  # where the test failed
        postgresql.start()


@pytest.fixture
def new_server(installed: Installation, postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Server]:
    """One that has not said anything yet, with one worker, and one configuration."""
    server = Server(installed, tmp_path / "server").start(*NEW)
    with server.client() as client:
        assert client.save_config(MAC, b"{}").status_code == 200
    yield server
    server.end()
    if not postgresql.is_running:
        postgresql.start()
    server.remove()


def health(server: Server) -> tuple[int, Any]:
    response = requests.get(f"{server.url}/health", timeout=LIMIT)
    return response.status_code, response.json()


def test_while_it_is_away_changes_are_refused_and_devices_go_on_downloading(
    new_server: Server, postgresql: PostgreSQL
) -> None:
    server = new_server
    postgresql.stop()
    before, start = len(server.lines), time.monotonic()

    with server.client() as client:
        for _ in range(50):
            assert client.get("/configs").status_code == 503
        refused = client.save_config(MAC, b'{"version": 2}')
        downloaded = client.get(f"/configs/{MAC}.json")
        left = client.get("/metrics")

    assert left.status_code == 200
    assert "\niot_database_up 0.0\n" in left.text
    # Of each app that asks the database at the scrape, and of none of the counts.
    assert not re.search(r"^(iot_config_files_count|iot_devices|iot_silent_devices|mqtt_owed)", left.text, re.MULTILINE)
    assert re.search(r"^iot_config_operations_total\{", left.text, re.MULTILINE)
    answer = {"status": "unhealthy", "reason": REASON, "broker": "off", "owed": None}
    poll(lambda: health(server), lambda seen: seen == (503, answer))
    assert refused.status_code == 503
    assert refused.json()["code"] == "DATABASE_UNAVAILABLE"
    assert refused.json()["error"] == "The database is not available just now. Try again in a moment."
    assert (downloaded.status_code, downloaded.content) == (200, b"{}")
    # A worker says so once, and then once a minute.
    log = "\n".join(server.lines[before:])
    assert "The database did not answer" in log
    assert "Connection refused" in log
    assert log.count("Traceback") <= 1
    assert log.count("ERROR") <= 1 + (time.monotonic() - start) // SECONDS_FOR_A_LASTING_LINE
    assert "psycopg.pool" not in log
    assert "Service Unavailable" not in log
    postgresql.start()
    assert server.files("configs") == server.configs() == {f"{MAC}.json": b"{}"}


def test_while_it_is_away_the_admin_says_that_nothing_was_saved(server: Server, postgresql: PostgreSQL) -> None:
    [(pk,)] = server.query("SELECT id FROM devices_deviceconfig")
    with server.administrator() as browser:
        form = f"{server.url}/admin/devices/deviceconfig/{pk}/change/"
        assert browser.get(form, timeout=LIMIT).status_code == 200
        postgresql.stop()

        fields = {"content": '{"version": 2}', "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        answers = [browser.post(form, data=fields, timeout=LIMIT), browser.get(form, timeout=LIMIT)]
        page = browser.get(form, headers={"Accept": "text/html"}, timeout=LIMIT)

    sentence = "The database is not available just now. Try again in a moment."
    assert [answer.status_code for answer in answers] == [503, 503]
    assert [answer.text for answer in answers] == [f"Nothing was saved. {sentence}", sentence]
    assert (page.status_code, "This cannot be shown just now" in page.text, sentence in page.text) == (503, True, True)
    assert all(answer.headers["Retry-After"] for answer in [*answers, page])
    postgresql.start()
    assert server.files("configs") == server.configs() == {f"{MAC}.json": b"{}"}


def test_when_it_is_back_everything_works(server: Server, postgresql: PostgreSQL) -> None:
    postgresql.stop()
    poll(lambda: health(server)[0], lambda status: status == 503)

    postgresql.start()

    assert poll(lambda: health(server), lambda answer: answer[0] == 200)
    with server.client() as client:
        assert client.save_config(MAC, b'{"version": 2}').status_code == 200
    assert server.files("configs") == server.configs() == {f"{MAC}.json": b'{"version": 2}'}


def test_while_it_is_frozen_downloads_go_on_and_are_noted_afterwards(server: Server, postgresql: PostgreSQL) -> None:
    with postgresql.frozen():
        name = ask_while_nothing_is_noted(server, MAC)

    wait_until_noted(server, MAC, name)


def test_while_it_is_frozen_everybody_is_answered(server: Server, postgresql: PostgreSQL) -> None:
    """Its processes are stopped: the kernel goes on taking connections and queries, and nobody answers them."""
    workers = server.workers()

    def ask(path: str) -> tuple[int, str, float]:
        start = time.monotonic()
        answer = requests.get(f"{server.url}{path}", timeout=LIMIT)
        return answer.status_code, answer.text, time.monotonic() - start

    with server.client() as client, ThreadPoolExecutor(150) as threads:
        with postgresql.frozen():
            # More than the workers have threads.
            asked = [threads.submit(ask, path) for path in ["/health", "/metrics"] * 75]
            downloaded = client.get(f"/configs/{MAC}.json")
            answers = [each.result() for each in asked]
            start = time.monotonic()
            refused = client.save_config(MAC, b'{"version": 2}')
            waited = time.monotonic() - start
            late = [ask("/health"), ask("/metrics")]

        # Three seconds, where nothing else runs; without a limit of its own, each would wait for a statement's fifteen.
        assert max(seconds for _, _, seconds in [*answers, *late]) < 15
        # At first, what was seen a moment before, or that too many ask just now.
        assert {status for status, _, _ in answers} <= {200, 503}
        assert late[0][0] == 503
        assert late[1][0] == 200
        assert "\niot_database_up 0.0" in late[1][1]
        assert "\ndjango_http_requests_total_by_method_total" in late[1][1]
        assert (downloaded.status_code, downloaded.content) == (200, b"{}")
        assert (refused.status_code, refused.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
        assert refused.headers["Retry-After"]
        assert waited < 15

        # Each worker finds out for itself that it answers again, and lets one of its threads try meanwhile.
        poll(lambda: client.save_config(MAC, b'{"version": 2}').status_code, lambda status: status == 200)
        poll(lambda: health(server)[0], lambda status: status == 200)
    assert server.files("configs") == server.configs() == {f"{MAC}.json": b'{"version": 2}'}
    assert server.workers() == workers


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_nobody_notices_that_it_was_restarted(server: Server, postgresql: PostgreSQL, how: str) -> None:
    getattr(postgresql, how)()
    postgresql.start()

    with server.client() as client:
        statuses = [client.save_config(MAC, b'{"number": %d}' % number).status_code for number in range(10)]

    assert statuses == [200] * 10


def test_a_server_that_was_started_without_it_serves_and_finds_it_later(server: Server, postgresql: PostgreSQL) -> None:
    server.stop()
    postgresql.stop()
    first_line = len(server.lines)

    server.start()

    assert requests.get(f"{server.url}/configs/{MAC}.json", timeout=LIMIT).content == b"{}"
    poll(lambda: health(server)[0], lambda status: status == 503)
    assert "Files may differ from the database" in "\n".join(server.lines[first_line:])
    postgresql.start()
    assert poll(lambda: health(server), lambda answer: answer[0] == 200)


def test_a_server_that_refuses_is_known_to_be_away_at_once(tmp_path: Path) -> None:
    code = """
from django.db import OperationalError, connection
connection.settings_dict["OPTIONS"]["pool"]["timeout"] = 3600
for _ in range(2):
    try:
        connection.ensure_connection()
    except OperationalError as error:
        print(error)
"""
    url = f"postgresql://iotsupport:secret@127.0.0.1:{free_port()}/iotsupport"

    done = manage({"DATA_DIR": str(tmp_path), "DATABASE_URL": url}, "shell", "--no-imports", "-c", code)

    assert re.findall("the pool 'pool-.' is closed", done.stdout) == [
        "the pool 'pool-1' is closed",
        "the pool 'pool-2' is closed",
    ]
    assert done.stdout.count("Connection refused") == 2
    assert done.stderr == ""
    assert "secret" not in done.stdout


def test_workers_keep_few_connections_for_many_requests(server: Server, postgresql: PostgreSQL) -> None:
    def list_configs(number: int) -> set[int]:
        with server.client() as client:
            return {client.get("/configs").status_code for _ in range(3)}

    with ThreadPoolExecutor(40) as clients:
        statuses = set().union(*clients.map(list_configs, range(40)))
    most = connections(postgresql)

    assert statuses == {200}
    assert most <= 2 * 32
    # What nobody needs is closed: threads would have kept theirs.
    poll(lambda: connections(postgresql), lambda count: count < most)


def connections(postgresql: PostgreSQL) -> int:
    [(count,)] = postgresql.query("SELECT count(*) FROM pg_stat_activity WHERE usename = 'iotsupport'")
    return int(count)


# --- Others who change the same row, which SQLite makes wait from the start ----------------------------------------


@pytest.mark.usefixtures("transactional_db")
def test_what_is_deleted_while_the_admin_saves_it_does_not_come_back_unseen(signed_in: Client) -> None:
    config = DeviceConfig.objects.put(MAC, "{}")
    fields = {"content": '{"version": 2}', "csrfmiddlewaretoken": signed_in.cookies["csrftoken"].value}

    def save() -> str:
        try:
            page = signed_in.post(f"/admin/devices/deviceconfig/{config.pk}/change/", fields)
        finally:
            connection.close()
        return unescape(page.content.decode())

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            DeviceConfig.objects.get().delete()
            saving = threads.submit(save)
            poll(count_waiting, bool)
        page = saving.result()

    assert "deleted it meanwhile" in page
    assert '{"version": 2}' in page
    assert not DeviceConfig.objects.exists()


def count_waiting() -> int:
    """How many wait for somebody else's transaction: asked outside of one, which would see one answer for ever."""
    name = connection.settings_dict["NAME"]
    here = f"wait_event_type = 'Lock' AND datname = '{name}'"
    statement = f"SELECT count(*) FROM pg_stat_activity WHERE {here}"  # noqa: S608
    [(count,)] = query(f"{os.environ[SERVER_VARIABLE]}/{name}", statement)
    return int(count)


# --- The settings ------------------------------------------------------------------------------------------------


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The options of the connection in an environment."""

    def options(**environ: str) -> dict[str, Any]:
        code = (
            "import json; from iotsupport import settings;"
            "print(json.dumps(settings.DATABASES['default']['OPTIONS'], default=str))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=BASE_DIR,
            env=clean_environ({"DATA_DIR": str(tmp_path), "DATABASE_URL": "postgresql://u:p@h/n", **environ}),
            capture_output=True,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return options


@pytest.mark.parametrize(("workers", "most"), [(1, 32), (2, 32), (4, 20), (20, 4), (50, 4)])
def test_all_workers_together_leave_some_of_100_connections_to_others(
    options: Callable[..., dict[str, Any]], workers: int, most: int
) -> None:
    assert options(WEB_CONCURRENCY=str(workers))["pool"]["max_size"] == most


def test_what_the_url_says_of_the_connection_wins(options: Callable[..., dict[str, Any]]) -> None:
    found = options(DATABASE_URL="postgresql://u:p@h/n?sslmode=verify-full&connect_timeout=30")

    assert found["sslmode"] == "verify-full"
    assert found["connect_timeout"] == 30
    assert found["tcp_user_timeout"] == 10_000
