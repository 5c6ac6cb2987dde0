from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from iotsupport.accounts.words import Word
from iotsupport.checks import INSTALLATION
from iotsupport.models import LONGEST, ApiToken


class Command(BaseCommand):
    help = "Print a new API token for a user. Only its digest is stored: it cannot be shown again."
    requires_system_checks = INSTALLATION

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--description", default="", help="what the token is for")
        parser.add_argument(
            "--may",
            nargs="+",
            action="extend",
            choices=Word.values,
            metavar="WORD",
            help=f"all that it may do ({', '.join(Word.values)}); without it, whatever the user may",
        )
        parser.add_argument("--expires", type=_days, metavar="DAYS", help="after so many days it works no more")

    def handle(
        self, *, username: str, description: str, may: list[str] | None, expires: int | None, **options: Any
    ) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no user {username!r}. Make one in the admin or with 'createsuperuser'.")
        if not user.is_active:
            raise CommandError(f"The user {username!r} is not active, so a token would not work. Activate it first.")
        token = ApiToken(user=user, description=description)
        token.words = may
        if expires is not None:
            token.expires_at = timezone.now() + timedelta(days=expires)
        secret = token.generate()
        try:
            token.full_clean()
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        token.save()
        self.stdout.write(secret)


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= len(text) <= 9 or not 1 <= int(text) <= LONGEST.days:
        raise argparse.ArgumentTypeError(f"{text!a} is no number of days from 1 to {LONGEST.days}")
    return int(text)
