"""What ``make run`` does before the server starts."""

from __future__ import annotations

from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command


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
