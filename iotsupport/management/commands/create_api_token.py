from __future__ import annotations

import argparse
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from iotsupport.checks import INSTALLATION
from iotsupport.models import ApiToken


class Command(BaseCommand):
    help = "Print a new API token for a user. Only its digest is stored: it cannot be shown again."
    requires_system_checks = INSTALLATION

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--description", default="", help="what the token is for")

    def handle(self, *, username: str, description: str, **options: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no user {username!r}. Make one in the admin or with 'createsuperuser'.")
        if not user.is_active:
            raise CommandError(f"The user {username!r} is not active, so a token would not work. Activate it first.")
        token = ApiToken(user=user, description=description)
        secret = token.generate()
        token.save()
        self.stdout.write(secret)
