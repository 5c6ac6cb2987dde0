"""The page on the state of this server: who sees it, what it finds, and that it answers whatever is broken."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from unittest.mock import create_autospec

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.backup.models import BackupRecord
from iotsupport.housekeeping import DONE, EVERY, NAME
from iotsupport.mirror import compared
from iotsupport.models import Throttle
from iotsupport.monitoring import glance, metrics_files
from iotsupport.monitoring.workers import Worker
from iotsupport.serving import only_one
from iotsupport.state import clock, database, directories, file_systems, findings, installed, processes, upkeep
from iotsupport.state.file_systems import Room, file_system_of
from iotsupport.state.findings import Finding, Level, Part
from iotsupport.tests.support.api_client import make_user, session_client
from iotsupport.tests.support.waiting import LIMIT, eventually
from notifications import state as notifications_state
from notifications.models import Announcement
from notifications.publisher import Publisher
from notifications.trouble import Trouble

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]

URL = "/admin/state/"
PLENTY = Room(10**11, 10**7, is_read_only=False)


@pytest.fixture(autouse=True)
def data_dir(directories: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of its own, with room, whatever the disk of the tests has."""
    settings.DATA_DIR = directories
    settings.ESP32_CONFIGS_DIR, settings.ASSETS_DIR = directories / "configs", directories / "assets"
    settings.BLOBS_DIR = settings.METRICS_DIR = directories / "blobs"
    monkeypatch.setattr("iotsupport.state.directories.room_at", lambda path: PLENTY)
    return directories


def found(parts: Iterator[Finding]) -> dict[str, Finding]:
    return {each.name: each for each in parts}


def text(client: Client) -> str:
    answer = client.get(URL)
    assert answer.status_code == 200
    return " ".join(answer.text.split())


class TestWho:
    def test_who_has_the_permission_gets_there_from_the_first_page(self):
        operator = session_client(make_user("iotsupport.view_server_state", is_staff=True))

        assert f'href="{URL}"' in operator.get("/admin/").text
        assert "State of this server" in text(operator)

    def test_others_do_not(self):
        editor = session_client(make_user("devices.change_deviceconfig", is_staff=True))

        assert URL not in editor.get("/admin/").text
        assert editor.get(URL).status_code == 403
        assert Client().get(URL).status_code == 302
        assert session_client(make_user("iotsupport.view_server_state", username="none")).get(URL).status_code == 302

    def test_it_is_only_read(self, signed_in: Client):
        assert signed_in.post(URL).status_code == 405


class TestPage:
    @pytest.mark.both_databases
    def test_says_of_everything_how_it_is(self, signed_in: Client, data_dir: Path, django_assert_max_num_queries: Any):
        config = DeviceConfig.objects.put("02-00-00-00-00-01", "{}")
        (data_dir / "configs" / config.filename).write_text("{}")
        with django_assert_max_num_queries(40):
            shown = text(signed_in)

        for title in ["Directories and room", "Database", "Files and their rows", "Broker and announcements"]:
            assert f">{title}</h2>" in shown
        assert "all are applied" in shown
        assert "1, and as many files" in shown
        assert {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[connection.vendor] in shown
        assert "Traceback" not in shown and "could not be looked at" not in shown

    def test_names_what_is_to_be_seen_to_first(self, signed_in: Client, data_dir: Path):
        (data_dir / "assets").rmdir()

        shown = text(signed_in)

        before, _, after = shown.partition('<section class="panel"')
        assert 'href="#state-directories">Directories and room: Assets</a>' in before
        assert '<span class="state bad">wrong</span>' in before
        assert f"{data_dir}/assets is not there, or no directory." in after
        assert directories.MAKE_IT in after

    def test_what_others_wrote_is_text(self, signed_in: Client, settings: Any, monkeypatch: pytest.MonkeyPatch):
        settings.ASSETS_DIR = Path("/nowhere/<b>assets</b>")
        use_publisher(monkeypatch, since=timezone.now(), reason="says <script>alert(1)</script>" + "x" * 5000)

        shown = text(signed_in)

        assert escape("/nowhere/<b>assets</b> is not there") in shown
        assert escape("says <script>alert(1)</script>") in shown
        assert "<b>" not in shown and "<script>alert" not in shown
        assert "x" * 700 not in shown

    def test_shows_names_of_variables_and_no_value(self, signed_in: Client, settings: Any):
        settings.GIVEN_VARIABLES = {"MQTT_PASSWORD", "PORT"}
        settings.MQTT_PASSWORD = "correct-horse"

        shown = text(signed_in)

        assert "MQTT_PASSWORD, PORT" in shown
        assert "correct-horse" not in shown


class TestPart:
    """What it looks at may be broken, or hang."""

    @pytest.fixture
    def serving(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        is_serving = threading.Event()
        is_serving.set()
        monkeypatch.setattr(glance, "_is_serving", is_serving)
        # However busy the machine is.
        monkeypatch.setattr(glance, "FRESH_SECONDS", LIMIT)
        monkeypatch.setattr(glance, "PATIENCE_SECONDS", LIMIT)
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    @pytest.mark.usefixtures("serving")
    def test_those_that_hang_are_waited_for_together_and_by_one_thread_each(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(glance, "PATIENCE_SECONDS", 0.1)
        may_end, looks = threading.Event(), []

        def hang() -> Iterator[Finding]:
            looks.append(1)
            may_end.wait(LIMIT)
            return iter([Finding("Disk", Level.FINE, "at last")])

        parts = [Part(f"test-{number}", "Disks", hang) for number in range(3)]
        began = time.monotonic()
        for _ in range(2):
            for part in parts:
                part.begin()
            for part in parts:
                [only] = part.findings()
                assert (only.level, only.name) == (Level.WRONG, "Disks")
                assert "no answer in time" in only.says

        assert time.monotonic() - began < LIMIT / 4  # in which none of them ends
        eventually(lambda: len(looks) == 3)
        may_end.set()

    @pytest.mark.usefixtures("serving")
    def test_it_is_looked_at_once_for_all_who_ask(self):
        looks: list[int] = []

        def look() -> Iterator[Finding]:
            looks.append(1)
            yield Finding("Disk", Level.LOOK, "is slow", "Wait.")

        here, there = Part("test", "Disks", look), Part("test", "Disks", look)
        for part in [here, there, here]:
            part.begin()
            assert part.findings() == [Finding("Disk", Level.LOOK, "is slow", "Wait.")]
        assert looks == [1]

    def test_a_mistake_of_ours_keeps_what_was_found_before(self, caplog: pytest.LogCaptureFixture):
        def look() -> Iterator[Finding]:
            yield Finding("Disk", Level.FINE, "there")
            raise KeyError("x")

        first, second = Part("test", "Disks", look).findings()

        assert first.name == "Disk"
        assert (second.level, second.says) == (Level.WRONG, "It could not be looked at: KeyError: 'x'")
        assert "could not be looked at: Disks" in caplog.text


class TestDirectories:
    def test_where_there_is_room_all_are_fine(self, data_dir: Path, settings: Any):
        settings.STATIC_ROOT = data_dir / "static"
        (data_dir / "static" / "admin").mkdir(parents=True)

        said = found(directories.look())

        assert {each.level for each in said.values()} == {Level.FINE}
        assert said["DATA_DIR"].says.startswith(f"{data_dir}, room for 93.1\xa0GB and 10,000,000 files on ")

    @pytest.mark.parametrize(
        ("room", "level"),
        [
            (PLENTY._replace(free_bytes=10**8), Level.LOOK),
            (PLENTY._replace(free_bytes=10**7), Level.WRONG),
            (PLENTY._replace(free_files=5000), Level.LOOK),
            (PLENTY._replace(free_files=3), Level.WRONG),
            (PLENTY._replace(free_files=None), Level.FINE),
            (PLENTY._replace(is_read_only=True), Level.WRONG),
        ],
    )
    def test_says_how_much_room_is_left(self, room: Room, level: Level, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(directories, "room_at", lambda path: room)
        monkeypatch.setattr(directories, "file_system_of", lambda path: file_systems.FileSystem("/", "ext4"))

        said = found(directories.look())["Configurations"]

        assert said.level == level
        assert bool(said.advice) == (level != Level.FINE)

    def test_warns_of_sqlite_on_the_network(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
        mounts = data_dir / "mountinfo"
        mounts.write_text(
            "22 1 0:21 / / rw - ext4 /dev/sda rw\n"
            f"23 22 0:22 / {data_dir} rw,relatime shared:1 - nfs4 server:/iot rw\n"
            "24 22 0:23 / /data/with\\040blank rw - xfs /dev/sdb rw\n"
        )
        monkeypatch.setattr(file_systems, "MOUNTS", mounts)

        assert file_system_of(data_dir / "configs") == (str(data_dir), "nfs4")
        assert file_system_of(Path("/data/with blank/x")) == ("/data/with blank", "xfs")
        assert file_system_of(Path("/data/with")) == ("/", "ext4")
        said = found(directories.look())
        assert (said["DATA_DIR"].level, said["DATA_DIR"].advice) == (Level.WRONG, directories.MOVE_DATABASE)
        assert said["Configurations"].level == Level.FINE

    def test_where_nothing_is_known_of_file_systems_it_says_none(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(file_systems, "MOUNTS", Path("/nowhere"))

        assert file_system_of(Path("/")) == ("", "")
        assert " on " not in found(directories.look())["DATA_DIR"].says

    def test_another_users_directory_is_named_with_its_owner(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(directories.access, "problem", lambda path: f"'{path}' belongs to root.")

        said = found(directories.look())["Assets"]

        assert (said.level, said.advice) == (Level.WRONG, directories.GIVE_IT)


@pytest.mark.both_databases
class TestDatabase:
    def test_it_answers_and_is_migrated(self):
        said = found(database.look())

        # PostgreSQL's of the tests waits for no disk.
        assert (said.pop("Kept for good", None) is None) == (connection.vendor == "sqlite")
        assert {each.level for each in said.values()} <= {Level.FINE, Level.LOOK}  # on a busy machine
        assert said["Migrations"].says == "all are applied"

    def test_names_migrations_that_are_not_applied(self):
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM django_migrations WHERE app = 'devices' AND name LIKE '0010%%'")

        said = found(database.look())["Migrations"]

        assert (said.level, said.says) == (Level.WRONG, "1 of them are not applied: devices 0010_changes.")
        assert "manage.py migrate" in said.advice

    def test_names_migrations_of_a_newer_version(self):
        with connection.cursor() as cursor:
            row: list[Any] = ["devices", "9999_to_come", timezone.now()]
            cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, %s)", row)

        said = found(database.look())["Migrations"]

        assert said.level == Level.WRONG
        assert said.says == "1 of them are not known to this version: devices 9999_to_come."

    def test_says_that_it_is_away(self, monkeypatch: pytest.MonkeyPatch):
        def fail() -> None:
            raise cast(Any, connection).Database.OperationalError("no such host")

        monkeypatch.setattr(connection, "cursor", lambda: connection.wrap_database_errors(fail)())

        [said] = Part("test", "Database", database.look).findings()

        assert (said.level, said.says) == (Level.WRONG, "The database did not answer: no such host")
        assert "DATABASE_URL" in said.advice


@pytest.mark.usefixtures("transactional_db")
def test_says_that_another_process_keeps_sqlite_locked():
    with closing(sqlite3.connect(connection.settings_dict["NAME"])) as other:
        other.execute("BEGIN IMMEDIATE")

        said = found(database.look())["Changes"]

        assert (said.level, said.advice) == (Level.WRONG, database.WAIT_OR_END)
        assert said.says == "The database is kept locked by another process. Try again in a moment."


class TestFiles:
    @pytest.fixture(autouse=True)
    def files(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "SAVING_SECONDS", 0)
        for number in range(1, 4):
            config = DeviceConfig.objects.put(f"02-00-00-00-00-0{number}", '{"a": 1}')
            (data_dir / "configs" / config.filename).write_text('{"a": 1}')

    def compare(self) -> Finding:
        return found(database.look_at_files())["Device configurations"]

    def test_equal(self):
        assert self.compare() == Finding(
            "Device configurations",
            Level.FINE,
            "3, and as many files; the 10 that were saved last were compared byte for byte",
        )
        assert found(database.look_at_files())["Assets"].says == "none yet"

    def test_missing_and_other_bytes(self, data_dir: Path):
        (data_dir / "configs" / "02-00-00-00-00-01.json").unlink()
        (data_dir / "configs" / "02-00-00-00-00-02.json").write_text("{}")

        said = self.compare()

        assert (said.level, said.advice) == (Level.WRONG, database.SYNC)
        assert said.says == "No file is there of 02-00-00-00-00-01.json. Other bytes are in 02-00-00-00-00-02.json."

    def test_what_is_being_saved_is_not_behind(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
        path = data_dir / "configs" / "02-00-00-00-00-01.json"
        path.unlink()
        monkeypatch.setattr(database.time, "sleep", lambda seconds: path.write_text('{"a": 1}'))

        assert self.compare().level == Level.FINE

    def test_of_many_rows_the_files_are_counted_first(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(database, "MANY_ROWS", 2)
        assert self.compare().level == Level.FINE
        (data_dir / "configs" / "02-00-00-00-00-02.json").write_text("{}")
        assert self.compare().says == "Other bytes are in 02-00-00-00-00-02.json."

        (data_dir / "configs" / "02-00-00-00-00-01.json").unlink()

        says = "No file is there of 02-00-00-00-00-01.json. Other bytes are in 02-00-00-00-00-02.json."
        assert self.compare().says == says

    def test_unknown(self, data_dir: Path):
        for number in range(5):
            (data_dir / "configs" / f"{number}.json").write_text("{}")

        said = self.compare()

        assert (said.level, said.says) == (
            Level.LOOK,
            "No row knows 0.json, 1.json, 2.json and 2 more: kept, and not served.",
        )

    def test_when_they_were_last_compared(self, data_dir: Path):
        assert found(database.look_at_files())["Compared whole"].level == Level.LOOK
        (data_dir / "configs" / "02-00-00-00-00-02.json").unlink()

        call_command("sync_mirror", skip_checks=True, verbosity=0)

        assert found(database.look_at_files())["Compared whole"].says == "just now; 1 were made equal"
        call_command("sync_mirror", skip_checks=True, verbosity=0)
        assert found(database.look_at_files())["Compared whole"].says == "just now; all were equal"
        compared.note(0, 2)
        assert found(database.look_at_files())["Compared whole"].level == Level.WRONG
        (data_dir / compared.FILE_NAME).write_text("{")
        assert compared.last() is None

    def test_where_that_cannot_be_noted_nothing_is_left(self, data_dir: Path):
        (data_dir / compared.FILE_NAME).mkdir()

        compared.note(0, 0)

        assert [path.name for path in data_dir.glob(".compared*")] == []


class TestProcesses:
    @pytest.fixture
    def workers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Have a process that lives, and gauges of it."""
        (tmp_path / "metrics").mkdir()
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))

        def say(kind: str, pid: int, **gauges: float) -> None:
            file = metrics_files.WrittenDict(str(tmp_path / "metrics" / f"gauge_{kind}_{pid}.db"))
            for name, value in gauges.items():
                file.write_value(json.dumps([name, name, {}, "help"]), value, 0)
            file.close()

        return say

    def test_of_a_process_that_is_no_worker_little_is_known(self):
        said = found(processes.look())

        assert said["Server"].level == said["Workers"].level == Level.LOOK

    def test_names_the_server_and_each_worker(self, data_dir: Path, workers: Any, settings: Any):
        settings.WEB_CONCURRENCY = 3
        began = time.time() - 65 * 60
        workers("livesum", os.getpid(), iot_busy_threads=31)
        workers("livemin", os.getppid(), iot_worker_start_time_seconds=began, mqtt_enabled=1)
        workers("livemin", 2**31 - 1, iot_worker_start_time_seconds=began)  # is dead
        only_one.take(data_dir)
        only_one.say_where(["http://127.0.0.1:8000"])

        said = found(processes.look())
        only_one.give_away()

        assert said["Server"].says.startswith(f"process {os.getpid()} at http://127.0.0.1:8000, started ")
        assert set(said) == {"Server", f"Worker {os.getpid()}", f"Worker {os.getppid()}", "Fewer workers"}
        assert said[f"Worker {os.getpid()}"][1:3] == (Level.LOOK, "31 of 32 threads at work")
        assert said[f"Worker {os.getppid()}"].says.endswith(", 0 of 32 threads at work")
        assert said["Fewer workers"].says == "3 are to be there, and 2 are."

    def test_many_are_told_together(self, workers: Any, monkeypatch: pytest.MonkeyPatch, settings: Any):
        monkeypatch.setattr(processes, "MOST_WORKERS", 1)
        workers("livesum", os.getpid(), iot_busy_threads=3)
        workers("livesum", os.getppid(), iot_busy_threads=2)

        assert found(processes.look())["Workers"].says == "2 of them, 5 of 64 threads at work"

    def test_says_what_the_front_server_tells(self, workers: Any, rf: Any):
        direct, fronted = rf.get(URL), rf.get(URL, headers={"X-Forwarded-For": "192.0.2.1"})
        assert processes.front_server(direct).says == "none: this page came straight from your browser"
        assert processes.front_server(fronted).level == Level.FACT

        workers("livemin", os.getpid(), iot_worker_start_time_seconds=time.time() - 2 * 60 * 60)

        assert processes.front_server(fronted).level == Level.LOOK

        workers("max", 2**31 - 1, iot_nginx_heard_time_seconds=time.time() - 130)

        assert processes.front_server(fronted)[1:3] == (Level.FINE, "nginx told of a download 2 minutes ago")


class TestUpkeep:
    def test_a_clock_that_is_right(self):
        Asset.objects.upload("a.bin", [b"a"])

        assert found(clock.look())["Clock"].level == Level.FINE

    def test_a_clock_from_before_this_program(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(clock, "installed_at", lambda: timezone.now() + timedelta(days=1))

        said = found(clock.look())["Clock"]

        assert (said.level, said.advice) == (Level.WRONG, clock.SYNCHRONIZE)

    def test_a_clock_that_was_set_back(self):
        Asset.objects.upload("a.bin", [b"a"])
        Asset.history.update(history_date=timezone.now() + timedelta(hours=1))

        said = found(clock.look())["Clock"]

        assert said.level == Level.LOOK
        assert "then or now, the clock was wrong" in said.says

    @pytest.mark.postgresql
    def test_the_clock_of_another_machine(self, monkeypatch: pytest.MonkeyPatch):
        assert found(clock.look())["Clock of PostgreSQL"].level == Level.FINE
        late = timezone.now() - timedelta(minutes=5)
        monkeypatch.setattr(clock.timezone, "now", lambda: late)

        said = found(clock.look())["Clock of PostgreSQL"]

        assert said.level == Level.LOOK
        assert said.says.startswith("It is 5 minutes (30") and said.says.endswith("ahead.")

    @pytest.mark.parametrize(
        ("last", "level"),
        [
            (None, Level.LOOK),
            ((timedelta(days=9), 10**9), Level.LOOK),
            ((timedelta(hours=1), 10**9), Level.FINE),
        ],
    )
    def test_a_backup(self, last: Any, level: Level):
        if last is not None:
            BackupRecord.objects.note(made_at=timezone.now() - last[0], size=last[1])

        said = found(upkeep.look())["Backup"]

        assert said.level == level
        assert ("manage.py backup" in said.advice) == (level == Level.LOOK)
        assert last is None or "953.7\xa0MB" in said.says

    @pytest.mark.parametrize(
        ("due_in", "level", "says"),
        [
            (None, Level.FACT, "not done yet"),
            (EVERY - timedelta(minutes=5), Level.FINE, "done 5 minutes ago"),
            (timedelta(minutes=5), Level.FINE, "goes on within minutes"),
            (timedelta(days=-2, minutes=-1), Level.LOOK, "It has been due for 2 days"),
        ],
    )
    def test_housekeeping(self, due_in: timedelta | None, level: Level, says: str):
        Throttle.objects.all().delete()
        if due_in is not None:
            for throttle in [NAME, DONE]:
                Throttle.objects.create(name=throttle, next_at=timezone.now() + due_in)

        said = found(upkeep.look())["Housekeeping"]

        assert said.level == level
        assert said.says.startswith(says)


def use_publisher(monkeypatch: pytest.MonkeyPatch, **said: Any) -> None:
    """One that is connected, or not since then and for this reason."""
    one = create_autospec(Publisher, instance=True)
    one.is_on = said.get("is_on", True)
    one.protocol.return_value = said.get("protocol", "5")
    one.state.return_value = "disconnected" if "since" in said else "connected"
    one.disconnection.return_value = None
    if "since" in said:
        one.disconnection.return_value = said["since"], Trouble(said.get("reason", ""), said.get("advice", ""))
    monkeypatch.setattr(notifications_state, "publisher", one)
    monkeypatch.setattr(django_settings, "MQTT_URL", said.get("url", "mqtt://maria:secret@broker.example"))


class TestBroker:
    def look(self) -> dict[str, Finding]:
        return found(notifications_state.look())

    def test_connected(self, monkeypatch: pytest.MonkeyPatch):
        use_publisher(monkeypatch)

        assert self.look()["Broker"] == Finding("Broker", Level.FINE, "mqtt://broker.example:1883, connected")

    def test_by_an_old_protocol(self, monkeypatch: pytest.MonkeyPatch):
        use_publisher(monkeypatch, protocol="3.1.1")

        assert self.look()["Broker"].level == Level.LOOK

    def test_away_with_its_reason_and_advice(self, monkeypatch: pytest.MonkeyPatch):
        since = timezone.now() - timedelta(minutes=4)
        use_publisher(monkeypatch, since=since, reason="refuses the connection: Not authorized", advice="Do this.")

        says = "mqtt://broker.example:1883 refuses the connection: Not authorized (for 4 minutes)"
        assert self.look()["Broker"] == Finding("Broker", Level.WRONG, says, "Do this.")

    @pytest.mark.parametrize(("url", "level"), [("", Level.FACT), ("http://x", Level.WRONG)])
    def test_off(self, url: str, level: Level, monkeypatch: pytest.MonkeyPatch):
        use_publisher(monkeypatch, is_on=False, url=url)

        assert self.look()["Broker"].level == level

    def test_each_worker_has_a_connection_of_its_own(self, monkeypatch: pytest.MonkeyPatch):
        use_publisher(monkeypatch)
        living = [Worker(pid, {"mqtt_enabled": 1, "mqtt_connection_state": 1}) for pid in [7, 8]]
        monkeypatch.setattr(notifications_state.workers, "living", lambda: living)
        assert self.look()["Connections of workers"].says == "all 2 have theirs"

        living[1].gauges["mqtt_connection_state"] = 0

        assert self.look()["Connections of workers"][1:3] == (Level.WRONG, "1 of 2 have none: 8")

    @pytest.mark.both_databases
    def test_what_is_owed(self, monkeypatch: pytest.MonkeyPatch):
        use_publisher(monkeypatch)
        Announcement.objects.all().delete()
        assert self.look()["To be announced"].says == "nothing"
        since = timezone.now() - timedelta(hours=2, minutes=1)
        Announcement.objects.create(topic="t", filename="a", owed_since=since, last_error="Quota exceeded")
        Announcement.objects.create(topic="t", filename="b", owed_since=timezone.now())

        assert self.look()["To be announced"] == Finding(
            "To be announced",
            Level.LOOK,
            "2 files, the oldest for 2 hours; its last error was: Quota exceeded",
            notifications_state.SEE_LOG,
        )


class TestSettings:
    def test_what_the_checks_say(self, settings: Any):
        settings.ENVIRONMENT_PROBLEMS = {"PORT": "PORT is 'x', but it must be a whole number."}
        settings.SECRET_KEY = "short"

        said = found(installed.look_at_settings())

        assert said["iotsupport.E008"].level == Level.WRONG
        assert said["iotsupport.E008"].advice == "Set PORT=8000, or leave it out."
        assert said["iotsupport.W013"].level == Level.LOOK

    def test_versions(self):
        said = found(installed.look_at_versions())

        assert {"Python", "Django", "gunicorn", "paho", "SQLite", "OpenSSL"} <= set(said)
        assert {each.level for each in said.values()} == {Level.FACT}


def test_cuts_what_is_far_too_long():
    [only] = Part("test", "x", lambda: [Finding("x", Level.FINE, "y" * 10_000)]).findings()

    assert len(only.says) == findings.MOST_CHARS


def test_this_program_was_installed_before_today():
    assert datetime(2020, 1, 1, tzinfo=UTC) < clock.installed_at() <= timezone.now()
