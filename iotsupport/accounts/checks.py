"""System checks of single sign-on: settings that do nothing without others, and what is not installed."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks

from iotsupport.accounts import oidc

OIDC_VARIABLES = ["OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"]
INSTALL = ".venv/bin/python -m pip install --require-hashes -r requirements-sso.txt"


def check_single_sign_on(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Who sets up single sign-on has set all that it needs."""
    return [*_proxy_problems(), *_oidc_problems()]


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


def _oidc_problems() -> list[checks.CheckMessage]:
    missing = [name for name in OIDC_VARIABLES if not getattr(settings, name)]
    if len(missing) == len(OIDC_VARIABLES) or "OIDC_ISSUER" in settings.ENVIRONMENT_PROBLEMS:
        return []
    if missing:
        message = f"Nobody can sign in with OpenID Connect: {' and '.join(missing)} {_are(missing)} not set."
        hint = "Set all of OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET, or none."
        return [checks.Warning(message, hint=hint, id="iotsupport.W068")]
    if not oidc.is_installed():
        message = "Nobody can sign in with OpenID Connect: mozilla-django-oidc is not installed."
        # Passwords of this server work all the same, and so must the commands that mend it.
        return [checks.Warning(message, hint=f"Type: {INSTALL}", id="iotsupport.W069")]
    return []


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
