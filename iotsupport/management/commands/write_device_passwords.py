"""``manage.py write_device_passwords [FILE]``: for nginx, which then lets devices in without asking the application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from iotsupport import access
from iotsupport.checks import INSTALLATION
from iotsupport.serving import front_server


class Command(BaseCommand):
    help = (
        "Write for nginx what devices sign in with: DEVICE_USERNAME and DEVICE_PASSWORD, as deploy/nginx.conf reads it."
    )
    requires_system_checks = INSTALLATION

    def add_arguments(self, parser: CommandParser) -> None:
        default = Path(settings.DATA_DIR) / front_server.KNOWN_DEVICES
        parser.add_argument("file", nargs="?", type=Path, default=default, help="default: %(default)s")

    def handle(self, *, file: Path, **options: Any) -> None:
        try:
            front_server.replace_privately(file, front_server.known_devices())
        except ValueError as error:
            raise CommandError(f"{error} Nothing was written.") from error
        except OSError as error:
            raise CommandError(f"'{file}' cannot be written{access.describe(error)}") from error
        self.stdout.write(f"Written: {file}. Have nginx read it: nginx -t && systemctl reload nginx")
