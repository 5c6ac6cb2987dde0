"""``create_first_admin``: makes the administrator who signs in first."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from iotsupport.checks import INSTALLATION


class Command(BaseCommand):
    help = "Make an administrator and print name and password, unless there is a superuser already."
    requires_system_checks = INSTALLATION

    def handle(self, **options: Any) -> None:
        users = get_user_model()._default_manager
        name, given = settings.DJANGO_SUPERUSER_USERNAME, settings.DJANGO_SUPERUSER_PASSWORD
        if users.filter(is_superuser=True).exists():
            return
        if users.filter(username=name).exists():
            raise CommandError(
                f"There is no administrator, and {name} is somebody else. Set DJANGO_SUPERUSER_USERNAME to a new name."
            )
        password = given or secrets.token_urlsafe(12)
        users.create_superuser(name, password=password)
        self.stdout.write("A first administrator was made. The password is not shown again.")
        self.stdout.write(f"  Name:     {name}")
        self.stdout.write(f"  Password: {'as set in DJANGO_SUPERUSER_PASSWORD' if given else password}")
