"""Accounts of those who sign in with OpenID Connect: one for each subject of an issuer, and never one of before.

A name or an e-mail address is what people choose at many providers: by those, nobody gets an account that is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import jwt
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from iotsupport.accounts.rights import DEACTIVATED, NotLetIn, can_be_username, give, no_group, rights_of
from iotsupport.models import Identity

# OpenID Connect Core, section 2.
SUBJECT_CHARS = 255


def sign_in(issuer: str, claims: dict[str, Any]) -> User:
    """Return the active user of these claims, with the rights of their groups; raises :class:`NotLetIn`.

    Whose groups may do nothing here gets no account, and one of before loses what it may.
    """
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_CHARS or "\0" in subject:
        raise jwt.InvalidTokenError("The provider's subject cannot be one.")
    names = _groups_in(claims)
    rights = rights_of(names)
    user = User.objects.filter(identity__issuer=issuer, identity__subject=subject).first()
    if user is not None and not user.is_active:
        raise NotLetIn(DEACTIVATED.format(name=user))
    if rights is None:
        if user is not None:
            give(user, None)
        raise no_group(str(user or next(_names(issuer, claims))), names)
    with transaction.atomic():
        if user is None:
            user = _make(issuer, claims)
        _tell_apart(user, claims)
        give(user, rights)
    return user


def _groups_in(claims: dict[str, Any]) -> set[str]:
    said = claims.get("groups") or []
    return {name for name in ([said] if isinstance(said, str) else said) if isinstance(name, str)}


def _make(issuer: str, claims: dict[str, Any]) -> User:
    """An account with the first name that nobody has; where two begin at once, the second finds the first one's."""
    identity = {"issuer": issuer, "subject": claims["sub"]}
    for name in _names(issuer, claims):
        if User.objects.filter(username__iexact=name).exists():
            continue
        try:
            with transaction.atomic():
                user = User.objects.create_user(name)
                Identity.objects.create(user=user, **identity)
                return user
        except IntegrityError:
            if found := Identity.objects.filter(**identity).first():
                return found.user
    raise NotLetIn("All names for an account of yours are taken. Ask an administrator of this server.")


def _names(issuer: str, claims: dict[str, Any]) -> Iterator[str]:
    """Names for an account, the nicest first; the last is nobody else's."""
    host = urlsplit(issuer).hostname or ""
    digest = hashlib.sha256(f"{issuer}\n{claims['sub']}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
    name = next((name for key in ["preferred_username", "email"] if (name := claims.get(key)) and _fits(name)), "")
    for candidate in [name, f"{name}@{host}" if name else "", f"user-{digest}"]:
        if _fits(candidate):
            yield candidate


def _fits(name: Any) -> bool:
    return isinstance(name, str) and can_be_username(name)


def _tell_apart(user: User, claims: dict[str, Any]) -> None:
    """Keep what helps to see who it is, as the provider tells it now."""
    told = {
        "first_name": _text(claims.get("given_name"), 150),
        "last_name": _text(claims.get("family_name"), 150),
        "email": _email(claims.get("email")),
    }
    new = [name for name, value in told.items() if getattr(user, name) != value]
    for name in new:
        setattr(user, name, told[name])
    if new:
        user.save(update_fields=new)


def _text(value: Any, most_chars: int) -> str:
    return value[:most_chars] if isinstance(value, str) and value.isprintable() else ""


def _email(value: Any) -> str:
    try:
        validate_email(value)
    except ValidationError:
        return ""
    return str(value) if len(value) <= 254 else ""
