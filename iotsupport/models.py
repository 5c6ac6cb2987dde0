"""Tokens with which scripts and CI use the API."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Self

from django.conf import settings
from django.db import models
from django.utils import timezone

from iotsupport.last_uses import LastUses

TOKEN_PREFIX = "iot_"  # noqa: S105 - lets secret scanners recognise one
LAST_USE_RESOLUTION = timedelta(minutes=1)


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def usable(self) -> Self:
        return self.filter(revoked_at=None)

    def revoke(self) -> int:
        """Have them open nothing any more; return how many of them did until now."""
        return self.usable().update(revoked_at=timezone.now())


class ApiToken(models.Model):
    """A user's key to the API. Only its digest is stored: it is shown once, when it is made."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    description = models.CharField(max_length=100, blank=True, help_text="What it is for, such as the CI job's name.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField("begins with", max_length=12, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField("last used", null=True, editable=False)
    revoked_at = models.DateTimeField("revoked", null=True, editable=False)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API token"

    def __str__(self) -> str:
        return f"{self.hint}… of {self.user}"

    def generate(self) -> str:
        """Give this token a new secret, and return it: it cannot be read again."""
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        self.digest = digest(token)
        self.hint = token[: len(TOKEN_PREFIX) + 4]
        return token

    def revoke(self) -> None:
        if self.revoked_at is None:
            self.revoked_at = timezone.now()
            self.save(update_fields=["revoked_at"])

    @classmethod
    def authenticate(cls, token: str) -> Self | None:
        """Return the valid token of an active user, and note its use (to the minute), or ``None``."""
        row = (
            cls.objects.select_related("user")
            .filter(digest=digest(token), revoked_at=None, user__is_active=True)
            .first()
        )
        if row is not None:
            now = timezone.now()
            # To the minute, so that a script's thousand requests are not a thousand writes.
            if row.last_used_at is None or now - row.last_used_at > LAST_USE_RESOLUTION:
                last_uses.note(row.pk, now)
        return row

    @classmethod
    def note_uses(cls, uses: dict[int, datetime]) -> None:
        for pk, used_at in uses.items():
            cls.objects.filter(pk=pk).update(last_used_at=used_at)


last_uses = LastUses(ApiToken.note_uses)


def digest(token: str) -> str:
    """SHA-256 in hexadecimal. A token has 256 random bits, so a slow password hash would protect nothing."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
