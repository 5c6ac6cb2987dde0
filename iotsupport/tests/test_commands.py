"""What all commands of ours have in common: starting is most of what they do, so they start with what they need."""

from __future__ import annotations

import pytest
from django.core.management import get_commands, load_command_class

APPS = ["iotsupport", "devices", "assets", "notifications"]
COMMANDS = sorted((app, name) for name, app in get_commands().items() if app in APPS)


@pytest.mark.parametrize(("app", "name"), COMMANDS)
def test_they_check_the_installation_and_not_the_code(app: str, name: str) -> None:
    assert load_command_class(app, name).requires_system_checks == ["environment", "notifications"]
