"""Who guesses passwords waits, costs next to nothing, and is in the log; who knows theirs is let in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from iotsupport.accounts import signin
from iotsupport.accounts.password_checks import BURST, SHARE
from iotsupport.accounts.signin import LOCKED_FOR
from iotsupport.buckets import Buckets
from iotsupport.models import KNOWN_FOR, KNOWN_NETWORKS, KnownNetwork, Throttle
from iotsupport.tests.support.api_client import failing_statements, make_user

pytestmark = pytest.mark.django_db

PASSWORD, GUESS = "swallows-return", "guessed"
HOME, OFFICE = "192.0.2.1", "192.0.2.2"


class Clock:
    def __init__(self) -> None:
        self.now = timezone.now()
        self.seconds = 1000.0
        # Of the processor: looking at a password takes none.
        self.cpu_seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ["iotsupport.accounts.signin", "iotsupport.models"]:
        monkeypatch.setattr(f"{module}.timezone.now", lambda: clock.now)
    for name in ["checks", "of_network", "of_slowed_name"]:
        monkeypatch.setattr(getattr(signin, name), "_clock", clock)
    monkeypatch.setattr(signin.checks, "_cpu_clock", lambda: clock.cpu_seconds)
    return clock


@pytest.fixture
def maria() -> User:
    return make_user(username="maria", password=PASSWORD, is_staff=True)


@pytest.fixture
def slowed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer failures slow a name: how many, one test counts."""
    monkeypatch.setattr(signin, "NAME_LIMIT", 12)


@pytest.fixture
def costly_checks(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each password that is looked at takes a second of the processor; for a name that is not there, another one is."""
    looked_at = []

    def costly(method: Callable[[User, str], Any]) -> Callable[[User, str], Any]:
        def look(user: User, password: str) -> Any:
            looked_at.append(password)
            clock.cpu_seconds += 1
            return method(user, password)

        return look

    for name in ["check_password", "set_password"]:
        monkeypatch.setattr(User, name, costly(getattr(User, name)))
    return looked_at


def sign_in(password: str = GUESS, address: str = HOME, username: str = "maria", **headers: str) -> Any:
    fields = {"username": username, "password": password}
    return Client().post("/admin/login/", fields, REMOTE_ADDR=address, headers=headers)


def rows() -> int:
    return sum(model.objects.count() for model in [AccessAttempt, AccessLog, AccessFailureLog])


def guess_from_everywhere(clock: Clock) -> None:
    """As often as slows a name: each guess from another network, and as slowly as all are let through."""
    for number in range(signin.NAME_LIMIT):
        clock.sleep(2)
        assert sign_in(address=f"198.51.{number // 250}.{number % 250 + 1}").status_code == 200


class TestALockedName:
    @pytest.mark.both_databases
    def test_gets_no_row_whatever_the_browser_is_called(self, maria, settings):
        for number in range(settings.AXES_FAILURE_LIMIT):
            sign_in(User_Agent=f"browser {number}")
        assert rows() == 1

        with CaptureQueriesContext(connection) as captured:
            answers = [sign_in(User_Agent=f"another {number}") for number in range(30)]

        assert {answer.status_code for answer in answers} == {429}
        assert rows() == 1
        assert {query["sql"].split()[0] for query in captured} == {"SELECT"}
        assert AccessAttempt.objects.get().failures_since_start == settings.AXES_FAILURE_LIMIT

    @pytest.mark.both_databases
    def test_is_free_again_after_an_hour_however_often_it_was_tried_meanwhile(self, maria, settings, clock):
        for _ in range(settings.AXES_FAILURE_LIMIT):
            sign_in()
        clock.sleep(LOCKED_FOR.total_seconds() - 60)
        assert sign_in(PASSWORD).status_code == 429

        clock.sleep(61)

        assert sign_in().status_code == 200
        assert AccessAttempt.objects.get().failures_since_start == 1
        assert sign_in(PASSWORD).status_code == 302

    def test_of_ipv6_a_whole_64_is_one_client(self, maria, settings):
        for number in range(settings.AXES_FAILURE_LIMIT):
            sign_in(address=f"2001:db8:1:2:{number}::7")

        assert AccessAttempt.objects.get().ip_address == "2001:db8:1:2::"
        assert sign_in(PASSWORD, "2001:db8:1:2:ffff::9").status_code == 429
        assert sign_in(PASSWORD, "2001:db8:1:3::9").status_code == 302

    def test_says_when_to_come_back(self, maria, settings):
        answers = [sign_in() for _ in range(settings.AXES_FAILURE_LIMIT)]

        assert (answers[-1].status_code, answers[-1]["Retry-After"]) == (429, "3600")
        assert "failed 10 times, so it is refused for an hour." in answers[-1].text

    def test_has_no_hold_on_who_signs_in_before_it_is_locked(self, maria, settings):
        for _ in range(settings.AXES_FAILURE_LIMIT - 1):
            sign_in()

        assert sign_in(PASSWORD).status_code == 302

        assert rows() == 0


class TestANameThatIsTriedFromEverywhere:
    def test_is_slow_for_strangers_and_as_ever_for_who_was_there_before(self, maria, clock):
        assert sign_in(PASSWORD).status_code == 302
        guess_from_everywhere(clock)

        answers = [sign_in(address=f"203.0.113.{number}") for number in range(1, 6)]

        assert [answer.status_code for answer in answers] == [200, 429, 429, 429, 429]
        assert 0 < int(answers[-1]["Retry-After"]) <= 10
        assert "failed often, from several addresses" in answers[-1].text
        assert sign_in(PASSWORD).status_code == 302
        assert sign_in(PASSWORD, OFFICE).status_code == 429

    def test_lets_the_right_password_in_from_elsewhere_when_it_has_waited(self, maria, clock, slowed_soon):
        guess_from_everywhere(clock)
        sign_in(address=OFFICE)
        answer = sign_in(PASSWORD, OFFICE)

        clock.sleep(int(answer["Retry-After"]))

        assert sign_in(PASSWORD, OFFICE).status_code == 302
        assert sign_in(PASSWORD, OFFICE).status_code == 302  # known by now

    def test_slows_no_other_name(self, maria, clock, slowed_soon):
        make_user(username="otto", password=PASSWORD, is_staff=True)
        guess_from_everywhere(clock)
        sign_in()

        assert sign_in(PASSWORD, username="otto").status_code == 302

    def test_is_quick_again_an_hour_later(self, maria, clock, slowed_soon):
        guess_from_everywhere(clock)
        clock.sleep(LOCKED_FOR.total_seconds() + 1)

        assert [sign_in(address=OFFICE).status_code for _ in range(3)] == [200] * 3


class TestAllStrangersTogether:
    @pytest.mark.both_databases
    def test_make_a_row_a_second_at_most(self, clock):
        for number in range(15):
            assert sign_in(username=f"name {number}", address=f"198.51.100.{number}").status_code == 200
        assert rows() == 1

        for number in range(5):
            clock.sleep(1)
            sign_in(username=f"other {number}", address=f"198.51.100.{number}")

        assert rows() == 6

    def test_have_few_passwords_looked_at(self, maria, costly_checks):
        answers = [sign_in(username=f"name {number}", address=f"198.51.100.{number}") for number in range(2 * BURST)]

        assert len(costly_checks) == BURST
        assert (answers[-1].status_code, int(answers[-1]["Retry-After"])) == (429, 1 / SHARE)
        assert "the password was not looked at" in answers[-1].text

    def test_take_their_share_of_a_core_in_the_long_run(self, maria, costly_checks, clock):
        for number in range(50):
            clock.sleep(1)
            sign_in(username=f"name {number}", address=f"198.51.100.{number}")

        assert len(costly_checks) == pytest.approx(BURST + 50 * SHARE, abs=1)

    def test_leave_some_tries_to_others(self, maria, costly_checks, clock):
        for number in range(100):
            clock.sleep(1)
            sign_in(username=f"name {number}")

        assert len(costly_checks) < 100 * SHARE
        assert sign_in(PASSWORD, OFFICE).status_code == 302

    def test_do_not_hold_up_who_was_there_before(self, maria, costly_checks):
        sign_in(PASSWORD)
        for number in range(20):
            sign_in(username=f"name {number}", address=f"198.51.100.{number}")

        assert sign_in(PASSWORD).status_code == 302
        assert sign_in(PASSWORD, OFFICE).status_code == 429

    def test_who_waits_as_long_as_told_is_looked_at(self, maria, costly_checks, clock):
        for number in range(10):
            answer = sign_in(username=f"name {number}", address=f"198.51.100.{number}")

        clock.sleep(int(answer["Retry-After"]))

        assert sign_in(PASSWORD).status_code == 302

    def test_who_signs_in_takes_nothing_from_others(self, maria, costly_checks):
        for number in range(4 * BURST):
            assert sign_in(PASSWORD, f"198.51.100.{number}").status_code == 302


@pytest.mark.both_databases
class TestKnownNetworks:
    def test_are_the_user_s_own(self, maria, clock):
        make_user(username="otto", password=PASSWORD, is_staff=True)

        sign_in(PASSWORD, username="otto")

        assert KnownNetwork.objects.knows("otto", HOME)
        assert not KnownNetwork.objects.knows("maria", HOME)
        assert not KnownNetwork.objects.knows("otto", None)

    def test_are_forgotten_after_a_time(self, maria, clock):
        sign_in(PASSWORD)

        clock.sleep(KNOWN_FOR.total_seconds() + 1)

        assert not KnownNetwork.objects.knows("maria", HOME)

    def test_are_few_and_written_once_a_day(self, maria, clock):
        for number in range(KNOWN_NETWORKS + 5):
            clock.sleep(1)
            sign_in(PASSWORD, f"198.51.100.{number}")
        newest = f"198.51.100.{KNOWN_NETWORKS + 4}"
        before = KnownNetwork.objects.get(network=newest).used_at

        sign_in(PASSWORD, newest)

        assert KnownNetwork.objects.count() == KNOWN_NETWORKS
        assert KnownNetwork.objects.get(network=newest).used_at == before
        assert not KnownNetwork.objects.knows("maria", "198.51.100.0")


def test_there_is_no_log_of_sign_ins_in_the_database(maria, client):
    client.post("/admin/login/", {"username": "maria", "password": PASSWORD})
    client.post("/admin/logout/")

    assert rows() == 0


@pytest.mark.both_databases
def test_nothing_of_what_was_sent_is_kept_but_name_and_network(maria):
    Client().post("/admin/login/?a=1", {"username": "maria", "password": "guessed", "b": "2"}, REMOTE_ADDR=HOME)

    [row] = AccessAttempt.objects.values()
    assert [row[name] for name in ["username", "ip_address", "failures_since_start"]] == ["maria", HOME, 1]
    assert {row[name] for name in ["get_data", "post_data", "http_accept", "path_info", "user_agent"]} == {""}


@pytest.mark.both_databases
def test_a_failure_that_cannot_be_written_is_refused_as_any_other(maria, caplog):
    away = OperationalError("database or disk is full")

    def only_writes(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.split()[0] in {"INSERT", "UPDATE", "DELETE"}:
            raise away
        return execute(sql, *rest)

    with connection.execute_wrapper(only_writes):
        answer = sign_in()

    assert answer.status_code == 200
    assert "Please enter the correct" in answer.text
    assert "A failed sign-in could not be counted" in caplog.text


@pytest.mark.both_databases
def test_while_the_database_is_away_that_is_said(maria):
    with failing_statements(OperationalError("away")):
        answer = sign_in()

    assert answer.status_code == 503


class TestTheLog:
    @pytest.fixture
    def lines(self, monkeypatch) -> list[logging.LogRecord]:
        records: list[logging.LogRecord] = []
        handler = logging.Handler()
        handler.emit = records.append  # type: ignore[assignment,method-assign]
        logger = logging.getLogger("iotsupport.accounts.signin")
        monkeypatch.setattr(logger, "handlers", [handler])
        return records

    def test_has_what_was_tried_with_name_and_address(self, maria, lines):
        sign_in(address="2001:db8::7")

        assert [(line.levelname, line.getMessage()) for line in lines] == [
            ("WARNING", "Failed sign-in as 'maria' from 2001:db8::7: wrong name or password")
        ]

    def test_says_so_of_a_locked_name_too(self, maria, lines, settings):
        for _ in range(settings.AXES_FAILURE_LIMIT + 1):
            sign_in()

        assert [line.getMessage().rpartition(": ")[2] for line in lines[-2:]] == ["locked", "locked"]

    @pytest.mark.parametrize("username", ["x" * 5000, "a\nb\x1b[2J", "\u202e" * 300, "é" * 3000])
    def test_is_one_short_line_whatever_the_name(self, maria, lines, username):
        sign_in(username=username, address="2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff")

        [line] = lines
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        assert len(formatter.format(line)) <= 200
        assert line.getMessage().isprintable()


class TestBuckets:
    def test_let_so_many_through_at_once_and_then_one_in_a_time(self):
        clock = Clock()
        buckets = Buckets(3, 10.0, clock=clock)

        assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 10, 10]
        clock.sleep(4)
        assert buckets.take("a") == pytest.approx(6)
        clock.sleep(6)
        assert [buckets.take("a"), buckets.take("a")] == [0, pytest.approx(10)]
        assert buckets.take("b") == 0

    def test_take_back(self):
        buckets = Buckets(1, 10.0, clock=Clock())

        assert buckets.take("a") == 0
        buckets.give_back("a")
        buckets.give_back("a")
        assert [buckets.take("a"), buckets.take("a")] == [0, 10]

    def test_remember_no_more_than_they_may(self):
        buckets = Buckets(1, 10.0, most_keys=100, clock=Clock())

        for number in range(1000):
            buckets.take(str(number))

        assert len(buckets._levels) == 100


@pytest.mark.both_databases
class TestThrottles:
    def test_there_is_one_in_a_time(self, clock):
        take: Callable[[], bool] = lambda: Throttle.objects.take("this", timedelta(minutes=1))  # noqa: E731

        taken = [take(), take()]
        clock.sleep(59)
        taken.append(take())
        clock.sleep(2)
        taken += [take(), take(), Throttle.objects.take("that", timedelta(minutes=1))]

        assert taken == [True, False, False, True, False, True]

    def test_a_clock_that_was_ahead_stops_nothing(self, clock):
        clock.sleep(86400 * 365)
        Throttle.objects.take("this", timedelta(minutes=1))
        clock.sleep(-86400 * 365)

        assert Throttle.objects.take("this", timedelta(minutes=1))
