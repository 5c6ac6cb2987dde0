"""``/health``: 503 with a reason that helps while changes or downloads do not work, and only then."""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from iotsupport.mirror import files as mirror
from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.server import NEW, Server, files
from iotsupport.tests.support.waiting import poll

DATABASE = "The database does not answer, or is not migrated. Check DATABASE_URL, then run 'manage.py migrate'."
NOTHING_OWED = {"announcements": 0, "oldest_seconds": 0}


def healthy(broker: str) -> dict[str, Any]:
    return {"status": "healthy", "broker": broker, "owed": NOTHING_OWED}


def get(server: Server) -> tuple[int, dict[str, Any]]:
    with server.client() as client:
        response = client.get("/health")
        return response.status_code, response.json()


# --- The mirrors -------------------------------------------------------------------------------------------------


@pytest.mark.both_databases(once=True)
@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/health", "/api/health"])
def test_is_healthy(client: Client, directories: Path, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 200
    assert response.json() == {"status": "healthy", "broker": "off", "owed": NOTHING_OWED}
    assert [files(directories / name) for name in ["configs", "assets", "blobs"]] == [{}, {}, {}]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["configs", "assets", "blobs"])
def test_a_missing_directory_is_unhealthy(client: Client, directories: Path, name: str) -> None:
    (directories / name).rmdir()

    response = client.get("/health")

    reason = f"The {name} directory is missing. Create it for the server's user, then try again."
    assert response.status_code == 503
    assert response.json() == {"status": "unhealthy", "reason": reason, "broker": "off", "owed": NOTHING_OWED}


@pytest.mark.django_db
def test_a_disk_that_takes_no_bytes_is_unhealthy(
    client: Client, directories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(mirror.os, "fsync", fail)

    response = client.get("/health")

    assert response.status_code == 503
    assert "The configs directory cannot be used (Input/output error). Repair it" in response.json()["reason"]
    assert files(directories / "configs") == {}


@pytest.mark.django_db
def test_answers_any_host_and_sets_no_cookie(client: Client, directories: Path, settings: LazySettings) -> None:
    settings.ALLOWED_HOSTS = ["iot.example.com"]

    response = client.get("/health", headers={"Host": "10.1.2.3"})

    assert response.status_code == 200
    assert not response.cookies


# --- The database and the broker, which only a server of its own may lose ----------------------------------------


@pytest.mark.sqlite("replaces the database's file")
def test_a_database_that_is_garbage_or_not_migrated_is_unhealthy_and_devices_go_on_downloading(
    make_server: Callable[..., Server],
) -> None:
    server = make_server().start(*NEW)
    database = server.data_dir / "db.sqlite3"
    with server.client() as client:
        client.save_config("aa-bb-cc-dd-ee-ff", b"{}")
        working = database.with_suffix(".working")
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("VACUUM INTO ?", [str(working)])
        for broken in [b"garbage" * 1000, b""]:
            replace(database, broken)

            answer = {"status": "unhealthy", "reason": DATABASE, "broker": "off", "owed": None}
            poll(lambda: get(server), partial(operator.eq, (503, answer)))
            assert client.get("/configs/aa-bb-cc-dd-ee-ff.json").content == b"{}"
            assert "\niot_database_up 0.0\n" in client.get("/metrics").text
            assert client.get("/configs").status_code == 503
            assert client.get("/configs").json()["code"] == "DATABASE_UNAVAILABLE"
            assert client.save_config("aa-bb-cc-dd-ee-ff", b'{"version": 2}').status_code == 503

        replace(database, working.read_bytes())
        poll(lambda: get(server)[0], lambda status: status == 200)
        assert server.configs() == server.files("configs") == {"aa-bb-cc-dd-ee-ff.json": b"{}"}


def replace(database: Path, content: bytes) -> None:
    for path in database.parent.glob("db.sqlite3-*"):
        path.unlink()
    database.with_suffix(".new").write_bytes(content)
    database.with_suffix(".new").replace(database)


def test_a_broker_that_never_was_or_goes_away_is_reported_and_is_not_unhealthy(
    make_server: Callable[..., Server], broker: Mosquitto
) -> None:
    broker.stop()
    server = make_server(MQTT_URL=broker.url).start(*NEW)

    status, answer = poll(lambda: get(server), lambda answer: "broker_trouble" in answer[1])
    found = answer.pop("broker_trouble")
    assert (status, answer) == (200, healthy("disconnected"))
    assert found["reason"] == "cannot be reached: [Errno 111] Connection refused"
    assert found["advice"].startswith("Nothing listens there: see that the broker runs")
    with server.client() as client:
        assert client.save_config("aa-bb-cc-dd-ee-ff", b"{}").status_code == 200
        poll(lambda: get(server)[1]["owed"]["announcements"], lambda owed: owed == 1)
        assert client.get("/configs/aa-bb-cc-dd-ee-ff.json").content == b"{}"

    broker.start()
    poll(lambda: get(server), lambda answer: answer == (200, healthy("connected")))
    broker.stop()
    poll(lambda: get(server), lambda answer: (answer[0], answer[1]["broker"]) == (200, "disconnected"))
