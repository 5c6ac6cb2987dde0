"""Ended sessions are removed by the server itself: once a day, by one process, a little at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from axes.models import AccessAttempt, AccessLog
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils import timezone

from assets.models import PendingUpload
from assets.pending import KEPT_FOR as PENDING_FOR
from devices.models import DeviceType, SchemaDraft
from devices.types.models import DRAFTS_KEPT_FOR
from iotsupport import housekeeping
from iotsupport.accounts.signin import LOCKED_FOR
from iotsupport.boards.models import GONE_FOR, Board, HourlyCount, State
from iotsupport.housekeeping import CHUNK_ROWS, EVERY, Housekeeper, last_run, tidy
from iotsupport.models import KNOWN_FOR, KnownNetwork, Throttle
from iotsupport.tests.support.api_client import failing_statements, make_user
from iotsupport.tests.support.server import NEW, Server
from iotsupport.tests.support.waiting import LIMIT, poll

pytestmark = [pytest.mark.both_databases]


def make_sessions(count: int, ends_in: timedelta) -> None:
    ends = timezone.now() + ends_in
    start = Session.objects.count()
    Session.objects.bulk_create(
        Session(session_key=f"{start + number:032}", session_data="", expire_date=ends) for number in range(count)
    )


def later(monkeypatch: pytest.MonkeyPatch, delta: timedelta) -> None:
    now = timezone.now() + delta
    monkeypatch.setattr("iotsupport.models.timezone.now", lambda: now)


@pytest.mark.django_db
class TestWhatIsOver:
    def test_is_removed_and_nothing_else(self):
        user = make_user()
        for ends_in in [-timedelta(seconds=1), -timedelta(days=400), timedelta(minutes=1)]:
            make_sessions(1, ends_in)
        now = timezone.now()
        for ago in [LOCKED_FOR * 2, timedelta(0)]:
            AccessAttempt.objects.create(username=str(ago), ip_address="192.0.2.1", failures_since_start=1)
            AccessAttempt.objects.filter(username=str(ago)).update(attempt_time=now - ago)
        AccessLog.objects.create(username="maria")
        for number, ago in enumerate([KNOWN_FOR * 2, timedelta(0)]):
            KnownNetwork.objects.create(user=user, network=f"192.0.2.{number}", used_at=now - ago)
        for ago in [HourlyCount.KEPT_FOR * 2, timedelta(0)]:
            HourlyCount.objects.create(hour=now - ago, kind=HourlyCount.DOWNLOADS, count=1)
        for number, (state, ago) in enumerate(
            [
                (State.GONE, GONE_FOR * 2),
                (State.GONE, timedelta(0)),
                (State.CURRENT, GONE_FOR * 2),
                (State.WAITING, GONE_FOR * 2),
            ]
        ):
            Board.objects.create(mac_address=f"02-00-00-00-00-0{number}", state=state, last_seen=now - ago)
        for ago in [timedelta(days=400), timedelta(0)]:
            LogEntry.objects.create(user=user, action_flag=CHANGE, action_time=now - ago)
        device_type = DeviceType.objects.create(name="lamp", schema="{}")
        for ago in [DRAFTS_KEPT_FOR * 2, timedelta(0)]:
            draft = SchemaDraft.of(device_type, based_on="", typed_by=user)
            draft.save()
            SchemaDraft.objects.filter(pk=draft.pk).update(created_at=now - ago)
        for ago in [PENDING_FOR * 2, timedelta(0)]:
            PendingUpload.objects.create(filename="a.bin", sha256="", md5="", size=0, user=user, created_at=now - ago)

        assert tidy() == 11

        assert HourlyCount.objects.get().hour == now
        assert [row.mac_address[-2:] for row in Board.objects.all()] == ["01", "02"]
        assert [Session.objects.get().expire_date > now, AccessAttempt.objects.get().username] == [True, "0:00:00"]
        assert KnownNetwork.objects.get().network == "192.0.2.1"
        assert not AccessLog.objects.exists()
        assert LogEntry.objects.get().action_time == now
        assert SchemaDraft.objects.get().created_at == PendingUpload.objects.get().created_at == now

    def test_never_goes_from_the_admins_log_where_all_versions_stay(self, settings):
        settings.HISTORY_DAYS = 0
        LogEntry.objects.create(user=make_user(), action_flag=CHANGE, action_time=timezone.now() - timedelta(days=999))

        assert tidy() == 0

    def test_is_removed_once_a_day(self, monkeypatch):
        make_sessions(1, -timedelta(days=1))

        assert [tidy(), tidy()] == [1, None]
        later(monkeypatch, EVERY + timedelta(seconds=1))
        assert tidy() == 0

    def test_that_the_command_removed_keeps_no_server_busy_that_day_and_both_say_when_it_was(self, monkeypatch):
        assert last_run() is None

        call_command("housekeeping", stdout=StringIO())

        assert tidy() is None
        first = last_run()
        assert first is not None
        assert abs(timezone.now() - first) < timedelta(minutes=1)
        later(monkeypatch, EVERY * 1.5)
        tidy()
        second = last_run()
        assert second is not None
        assert second > first + EVERY

    def test_is_removed_in_parts_with_others_in_between(self):
        make_sessions(CHUNK_ROWS * 2 + 1, -timedelta(days=1))
        pauses: list[int] = []

        assert tidy(lambda seconds: pauses.append(Session.objects.count())) == CHUNK_ROWS * 2 + 1

        assert pauses == [CHUNK_ROWS + 1, 1, 0]

    def test_that_is_a_great_deal_is_gone_on_with_soon(self, monkeypatch):
        monkeypatch.setattr(housekeeping, "MOST_ROWS", CHUNK_ROWS)
        make_sessions(CHUNK_ROWS * 2, -timedelta(days=1))

        assert [tidy(), tidy()] == [CHUNK_ROWS, None]
        later(monkeypatch, timedelta(seconds=housekeeping.LOOK_SECONDS + 1))
        assert tidy() == CHUNK_ROWS

    def test_is_tried_again_soon_where_the_database_fails(self, monkeypatch):
        make_sessions(1, -timedelta(days=1))

        with monkeypatch.context() as broken, pytest.raises(OperationalError):
            broken.setattr(housekeeping, "_remove_some", fail)
            tidy()

        assert last_run() is None
        assert tidy() is None
        later(monkeypatch, timedelta(seconds=housekeeping.LOOK_SECONDS + 1))
        assert tidy() == 1

    def test_is_left_alone_while_the_database_is_away(self):
        with failing_statements(OperationalError("away")), pytest.raises(OperationalError):
            tidy()

        assert not Throttle.objects.exists()


def fail(*args: Any) -> None:
    raise OperationalError("disk is full")


def test_one_of_many_processes_does_it(transactional_db, monkeypatch):
    monkeypatch.setattr(housekeeping, "PATIENCE_SECONDS", LIMIT)  # however busy the machine is
    make_sessions(3, -timedelta(days=1))
    together, results = threading.Barrier(8), []

    def look() -> None:
        together.wait(LIMIT)
        try:
            results.append(tidy())
        finally:
            connection.close()

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)

    assert sorted(results, key=str) == [3, *[None] * 7]


def test_whatever_happens_the_next_look_comes(transactional_db, monkeypatch):
    looks: list[str] = []
    is_done = threading.Event()

    def look(pause: Any) -> int:
        looks.append("look")
        if len(looks) == 3:
            is_done.set()
        raise [OperationalError("away"), RuntimeError("x"), OperationalError("away")][min(len(looks), 3) - 1]

    monkeypatch.setattr(housekeeping, "tidy", look)
    monkeypatch.setattr(housekeeping, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(housekeeping, "FIRST_LOOK_SECONDS", 0.0)
    housekeeper = Housekeeper()

    housekeeper.start()
    try:
        assert is_done.wait(LIMIT)
    finally:
        housekeeper.stop()


ENDED = (
    "INSERT INTO django_session (session_key, session_data, expire_date) VALUES ('a', '', '2020-01-01 00:00:00+00:00')"
)


@pytest.mark.sqlite("the thread of a server, whatever its database")
@pytest.mark.processes
def test_a_server_removes_them_by_itself(make_server: Callable[..., Server]) -> None:
    server = make_server()
    [(lasting,)] = server.query("SELECT count(*) FROM django_session")
    server.database.change(ENDED)

    server.start(*NEW)

    poll(lambda: server.query("SELECT count(*) FROM django_session"), lambda found: found == [(lasting,)])
    server.wait_for_log("Removed what was over, such as ended sessions: 1 rows")
