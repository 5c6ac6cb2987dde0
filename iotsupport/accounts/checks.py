"""System checks of single sign-on: settings that do nothing without others."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks


def check_single_sign_on(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Who sets up single sign-on has set all that it needs."""
    return _proxy_problems()


def _proxy_problems() -> list[checks.CheckMessage]:
    wrong = settings.ENVIRONMENT_PROBLEMS
    problems: list[checks.CheckMessage] = []
    if settings.REMOTE_USER_HEADER and not settings.TRUSTED_PROXIES and "TRUSTED_PROXIES" not in wrong:
        message = f"The header {settings.REMOTE_USER_HEADER} is believed from nobody: TRUSTED_PROXIES names no address."
        hint = "Name the addresses from which your proxy connects, such as TRUSTED_PROXIES=127.0.0.1."
        problems.append(checks.Warning(message, hint=hint, id="iotsupport.W066"))
    if settings.REMOTE_GROUPS_HEADER and not settings.REMOTE_USER_HEADER and "REMOTE_USER_HEADER" not in wrong:
        message = "REMOTE_GROUPS_HEADER does nothing: REMOTE_USER_HEADER says in which header the user's name comes."
        hint = "Set REMOTE_USER_HEADER, too, or leave both out."
        problems.append(checks.Warning(message, hint=hint, id="iotsupport.W067"))
    return problems
