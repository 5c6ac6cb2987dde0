"""Who may download, and who may read the metrics: everybody, or who says with each request what the settings have.

Devices say a name and a password, by HTTP's Basic authentication (RFC 7617); what reads the metrics says a token (RFC
6750). Neither needs a session or the database. Settings that cannot be right let nobody in: no mistake opens anything.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from prometheus_client import Counter

# Two, so that devices can be given another one while the old one is still taken.
MOST_PASSWORDS = 2
# Of a name, and of a password: so whatever is sent as credentials has a limit, too.
MOST_BYTES = 255
MOST_SENT = 4 * ((2 * MOST_BYTES + 1 + 2) // 3)

# What a 401 asks for.
BASIC = 'Basic realm="IoT Support", charset="UTF-8"'
BEARER = 'Bearer realm="IoT Support"'

REFUSED = Counter("iot_refused_downloads_total", "Downloads that were refused with 401, for want of a right password.")


def is_device(environ: Mapping[str, Any]) -> bool:
    """Whether a WSGI request comes from a device that may download."""
    accepted = _digests_of_devices(settings.DEVICE_USERNAME, settings.DEVICE_PASSWORD)
    return accepted is None or _says_one_of(accepted, "basic", environ)


def may_be_person(environ: Mapping[str, Any]) -> bool:
    """Whether a WSGI request says something of which the view knows more: a session, or a token of the API."""
    return "HTTP_COOKIE" in environ or environ.get("HTTP_AUTHORIZATION", "")[:7].lower() == "bearer "


def may_read_metrics(environ: Mapping[str, Any]) -> bool:
    """Whether who sends a WSGI request may have the metrics."""
    accepted = _digests_of_metrics(settings.METRICS_TOKEN)
    return accepted is None or _says_one_of(accepted, "bearer", environ)


def refusal_headers(challenge: str) -> dict[str, str]:
    """Headers of a 401, which has no body: the same for what is there and for what is not."""
    return {"WWW-Authenticate": challenge, "Content-Length": "0", "X-Content-Type-Options": "nosniff"}


def refusal(challenge: str) -> HttpResponse:
    """A view's 401."""
    response = HttpResponse(status=401, headers=refusal_headers(challenge))
    del response["Content-Type"]
    return response


def passwords_of_devices() -> list[str] | None:
    """Return the passwords that the settings have, the one that devices are given now first; None: they need none.

    Raises ``ValueError`` with a sentence, which quotes nothing, where the settings cannot be right.
    """
    return _passwords(settings.DEVICE_USERNAME, settings.DEVICE_PASSWORD)


def credentials_of_devices() -> list[str] | None:
    """Return what devices may send behind ``Basic`` for these passwords; raises what that does."""
    passwords = passwords_of_devices()
    return None if passwords is None else [basic_credentials(settings.DEVICE_USERNAME, each) for each in passwords]


def _passwords(username: str, password: str) -> list[str] | None:
    if not username and not password:
        return None
    passwords = [stripped for item in password.split(",") if (stripped := item.strip())]
    if not username.strip() or not passwords:
        given, missing = ("PASSWORD", "USERNAME") if passwords else ("USERNAME", "PASSWORD")
        raise ValueError(f"DEVICE_{given} is set, but DEVICE_{missing} is not.")
    if ":" in username:
        raise ValueError("DEVICE_USERNAME holds a colon, which no name can that is sent with a password.")
    if len(passwords) > MOST_PASSWORDS:
        raise ValueError(f"DEVICE_PASSWORD holds {len(passwords)} passwords, but at most {MOST_PASSWORDS} are taken.")
    for name, values in {"DEVICE_USERNAME": [username], "DEVICE_PASSWORD": passwords}.items():
        for value in values:
            if not _can_be_sent(value):
                raise ValueError(
                    f"{name} is too long, not text in UTF-8, or holds a control character: it cannot be sent."
                )
    return passwords


def basic_credentials(username: str, password: str) -> str:
    """Return what is sent behind ``Basic``: in UTF-8, of Unicode's form NFC."""
    pair = unicodedata.normalize("NFC", f"{username.strip()}:{password}")
    return base64.b64encode(pair.encode()).decode()


def problem_of_devices() -> str | None:
    """Return why the settings let no device in, in a sentence; None where they do."""
    try:
        passwords_of_devices()
    except ValueError as error:
        return str(error)
    return None


def problem_of_metrics() -> str | None:
    """Return why the settings let nobody read the metrics, in a sentence; None where they do."""
    token = settings.METRICS_TOKEN.strip()
    if not settings.METRICS_TOKEN or (re.fullmatch("[!-~]+", token) and len(token) <= MOST_SENT):
        return None
    return f"METRICS_TOKEN is not of 1 to {MOST_SENT} visible characters of ASCII, without a blank."


@lru_cache(maxsize=8)
def _digests_of_devices(username: str, password: str) -> tuple[bytes, ...] | None:
    try:
        passwords = _passwords(username, password)
        return None if passwords is None else _digests(basic_credentials(username, each) for each in passwords)
    except ValueError:  # which a system check says
        return ()


@lru_cache(maxsize=8)
def _digests_of_metrics(token: str) -> tuple[bytes, ...] | None:
    if not token:
        return None
    return () if problem_of_metrics() else _digests([token.strip()])


def _digests(secrets: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(hashlib.blake2s(secret.encode()).digest() for secret in secrets)


def _says_one_of(accepted: tuple[bytes, ...], scheme: str, environ: Mapping[str, Any]) -> bool:
    """Compare what is sent with all of them, so that the time it takes tells nothing of any."""
    said, _, sent = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    # One character more than any can have: a longer text is not cut to one of them. BLAKE2s, for SHA-256 by OpenSSL
    # takes three times as long where it is not called all the time: a twentieth of a download.
    digest = hashlib.blake2s(sent.strip(" ")[: MOST_SENT + 1].encode("utf-8", "backslashreplace")).digest()
    is_right = False
    for each in accepted:
        is_right |= hmac.compare_digest(digest, each)
    return is_right and said.lower() == scheme


def _can_be_sent(value: str) -> bool:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return False
    return size <= MOST_BYTES and all(unicodedata.category(character) != "Cc" for character in value)
