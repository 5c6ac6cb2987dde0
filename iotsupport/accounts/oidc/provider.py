"""What the provider says of itself: asked when somebody signs in, once an hour (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from django.conf import settings

logger = logging.getLogger(__name__)

# Seconds: to connect, and between two pieces of an answer.
TIMEOUT = (3.05, 5)
KEPT_SECONDS = 3600.0
# After it did not answer, nobody asks again for so long.
CALM_SECONDS = 15.0

AWAY = (
    "The server that signs people in, {name}, does not answer as it should ({why}). Try again in a moment, or sign in"
    " with a password of this server."
)


class Unavailable(Exception):
    """Raised while the provider cannot be asked; its text is for who wants to sign in."""

    def __init__(self, why: str) -> None:
        super().__init__(AWAY.format(name=urlsplit(settings.OIDC_ISSUER).netloc, why=why))


class Provider(NamedTuple):
    issuer: str
    """As the provider spells it, in its tokens, too."""
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    """Empty where it has none."""
    takes_basic: bool
    """Whether a client may say who it is by Basic authentication, which is what is taken where nothing is said."""
    scopes: tuple[str, ...]


class _Known(NamedTuple):
    until: float
    found: Provider | Unavailable


_known: _Known | None = None
_asking = threading.Lock()


def find() -> Provider:
    """Return the provider. Raises :class:`Unavailable`; of several at once, one asks, and the others wait for that."""
    global _known
    with _asking:
        if _known is None or time.monotonic() >= _known.until:
            try:
                _known = _Known(time.monotonic() + KEPT_SECONDS, _discover())
            except Unavailable as error:
                logger.warning("%s", error)
                _known = _Known(time.monotonic() + CALM_SECONDS, error)
        found = _known.found
    if isinstance(found, Unavailable):
        raise found
    return found


def forget() -> None:
    """Ask the provider again, for tests."""
    global _known
    _known = None


def _discover() -> Provider:
    base = settings.OIDC_ISSUER.rstrip("/")
    try:
        answer = requests.get(f"{base}/.well-known/openid-configuration", timeout=TIMEOUT)
        answer.raise_for_status()
        said = answer.json()
    except requests.RequestException as error:
        raise Unavailable(tell(error)) from error
    if not isinstance(said, dict) or not isinstance(said.get("issuer"), str):
        raise Unavailable("what it says of itself is not that of a provider")
    if said["issuer"].rstrip("/") != base:
        raise Unavailable("it calls itself otherwise than OIDC_ISSUER, which has to be set to what it says")
    return Provider(
        issuer=said["issuer"],
        authorization_endpoint=_endpoint(said, "authorization_endpoint"),
        token_endpoint=_endpoint(said, "token_endpoint"),
        jwks_uri=_endpoint(said, "jwks_uri"),
        userinfo_endpoint=_endpoint(said, "userinfo_endpoint") if said.get("userinfo_endpoint") else "",
        takes_basic="client_secret_basic"
        in (said.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]),
        # Some refuse what they do not know, and some say nothing of groups unless asked.
        scopes=(
            "openid",
            "profile",
            "email",
            *[name for name in ["groups"] if name in said.get("scopes_supported", [])],
        ),
    )


def _endpoint(said: dict[str, Any], name: str) -> str:
    """A URL that is as well protected as the issuer's."""
    url = said.get(name)
    if not isinstance(url, str) or urlsplit(url).scheme not in {"https", urlsplit(settings.OIDC_ISSUER).scheme}:
        raise Unavailable(f"its {name} is no address that can be used")
    return url


def tell(error: requests.RequestException) -> str:
    """Say in few words why it cannot be asked."""
    if error.response is not None:
        return f"status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "it takes too long"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted here"
    return "no connection" if isinstance(error, requests.ConnectionError) else "no answer that can be read"
