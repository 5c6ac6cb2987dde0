"""What ``make run`` and a container do before the server starts."""

from __future__ import annotations

import threading
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from iotsupport.container import DATABASE_AWAY
from iotsupport.database.alone import alone
from iotsupport.management.commands import prepare
from iotsupport.tests.support.waiting import LIMIT


def create_first_admin() -> str:
    output = StringIO()
    call_command("create_first_admin", stdout=output)
    return output.getvalue()


@pytest.mark.both_databases
def test_the_printed_password_lets_the_first_administrator_in(db):
    output = create_first_admin()

    password = output.split()[-1]
    admin = User.objects.get(username="admin")
    assert admin.check_password(password)
    assert admin.is_superuser


@pytest.mark.both_databases
def test_a_password_that_was_set_is_taken_and_not_printed(db, settings):
    settings.DJANGO_SUPERUSER_USERNAME = "ada"
    settings.DJANGO_SUPERUSER_PASSWORD = "pigeons-and-mirrors"

    output = create_first_admin()

    assert User.objects.get(username="ada").check_password("pigeons-and-mirrors")
    assert "pigeons" not in output


@pytest.mark.both_databases
def test_there_is_one_first_administrator(db):
    User.objects.create_superuser("ada")

    assert create_first_admin() == ""
    assert User.objects.count() == 1


@pytest.mark.both_databases
def test_a_name_that_somebody_else_has_is_refused_with_what_to_do(db):
    User.objects.create_user("admin")

    with pytest.raises(CommandError, match="Set DJANGO_SUPERUSER_USERNAME to a new name"):
        create_first_admin()


@pytest.mark.postgresql
def test_one_process_at_a_time_prepares_a_database_that_several_use(transactional_db: None) -> None:
    done: list[str] = []

    def second() -> None:
        with alone(connection):
            done.append("second")
        connection.close()

    with alone(connection):
        thread = threading.Thread(target=second)
        thread.start()
        # It waits: the server says for what.
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with connection.cursor() as cursor:
            while not cursor.execute(waiting).fetchone()[0]:
                assert thread.is_alive()
        done.append("first")
    thread.join(LIMIT)

    assert done == ["first", "second"]


@pytest.mark.postgresql
def test_a_database_that_is_away_is_told_apart_from_one_that_cannot_be_migrated(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OperationalError("connection refused")

    with monkeypatch.context() as patched:  # the rest of the test needs it again
        patched.setattr(connection, "ensure_connection", refuse)
        with pytest.raises(CommandError, match="The database does not answer: connection refused") as refused:
            call_command("prepare", skip_checks=True)

    assert refused.value.returncode == DATABASE_AWAY


@pytest.mark.postgresql
def test_a_database_that_is_away_can_be_waited_for(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter([OperationalError("connection refused"), OperationalError("starting up")])
    called: list[str] = []

    def answer_at_last() -> None:
        for error in refusals:
            raise error

    monkeypatch.setattr(connection, "ensure_connection", answer_at_last)
    monkeypatch.setattr(prepare, "AGAIN_SECONDS", 0)
    monkeypatch.setattr(prepare, "call_command", lambda name, **options: called.append(name))

    call_command("prepare", "--wait", skip_checks=True)

    assert called == ["migrate", "create_first_admin", "collectstatic"]
