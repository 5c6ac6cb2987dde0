"""API tokens, the networks that users sign in from, and what all processes together do once in a time.

Boards have a room of their own: ``iotsupport.boards``; and so have backups: ``iotsupport.backup``.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.utils import timezone

from iotsupport import audit
from iotsupport.accounts.last_uses import LastUses
from iotsupport.accounts.words import NarrowedUser, Word, words_of
from iotsupport.backup.models import BackupRecord
from iotsupport.boards.models import Board, HourlyCount
from iotsupport.serving import strangers

__all__ = [
    "ApiToken",
    "BackupRecord",
    "Board",
    "HourlyCount",
    "Identity",
    "KnownNetwork",
    "NarrowedUser",
    "Throttle",
]

TOKEN_PREFIX = "iot_"  # noqa: S105 - lets secret scanners recognise one
LAST_USE_RESOLUTION = timedelta(minutes=1)
# Until a token expires that does; later, calendars end.
LONGEST = timedelta(days=36525)

# What every request with a token asks: a query set would take ten times as long, for all of a user's columns. Those
# that a request needs, in the order in which the model has them.
USER_FIELDS = ["id", "is_superuser", "username", "is_staff", "is_active"]
AUTHENTICATE = f"""
    SELECT token.id, token.last_used_at, token.description, token.may, token.expires_at,
        {", ".join(f"auth_user.{name}" for name in USER_FIELDS)}
    FROM iotsupport_apitoken token JOIN auth_user ON auth_user.id = token.user_id
    WHERE token.digest = %s AND token.revoked_at IS NULL AND auth_user.is_active
"""  # noqa: S608

KNOWN_FOR = timedelta(days=90)
# Of each user, the latest.
KNOWN_NETWORKS = 20


class ExpiredToken(Exception):
    """Raised for a token that was valid until a moment; only who has it learns that."""

    def __init__(self, expired_at: datetime) -> None:
        super().__init__()
        self.expired_at = expired_at


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def usable(self) -> Self:
        return self.filter(revoked_at=None).exclude(expires_at__lte=timezone.now())

    def expired(self) -> Self:
        return self.filter(revoked_at=None, expires_at__lte=timezone.now())

    def revoke(self, why: str | None = None) -> int:
        """Make these tokens invalid for ever, the expired too; return how many were not before."""
        count = self.filter(revoked_at=None).update(revoked_at=timezone.now())
        if count:
            audit.tell("revoked", "iotsupport.apitoken", count=count, why=why)
        return count


class ApiToken(models.Model):
    """A user's key to the API. Only its digest is stored: it is shown once, when it is made."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    description = models.CharField(max_length=100, blank=True, help_text="What it is for, such as the CI job's name.")
    # Words with blanks between them; null: whatever its user may. Empty would be a token that may nothing.
    may = models.CharField(max_length=100, null=True, blank=True)  # noqa: DJ001
    expires_at = models.DateTimeField("expires", null=True, blank=True)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField("begins with", max_length=12, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField("last used", null=True, editable=False)
    revoked_at = models.DateTimeField("revoked", null=True, editable=False)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = "API token"

    def __str__(self) -> str:
        return f"{self.hint}… of {self.user}"

    @property
    def words(self) -> list[Word] | None:
        """What it may do; None: whatever its user may."""
        return None if self.may is None else [word for word in Word if word in self.may.split()]

    @words.setter
    def words(self, words: Collection[str] | None) -> None:
        self.may = None if words is None else " ".join(word for word in Word if word in words)

    def tell_what_it_may(self) -> str:
        """As in "read assets, write assets"."""
        return "everything that its user may" if self.words is None else ", ".join(word.label for word in self.words)

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    def clean(self) -> None:
        if self.user_id is not None and self.words is not None:
            held = words_of(self.user)
            lacking = [word for word in self.words if word not in held]
            if lacking:
                labels = ", ".join(word.label for word in lacking)
                message = (
                    f"The user {self.user} may not {labels}. Give the user that permission first, or leave it out."
                )
                raise ValidationError({"may": message})
        if self.expires_at is not None and not timedelta() < self.expires_at - timezone.now() <= LONGEST:
            raise ValidationError({"expires_at": "Choose a time to come, and within a hundred years."})

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
    def authenticate(cls, token: str) -> tuple[User, str] | None:
        """Return the active user whose valid token this is, and its description; note its use (to the minute).

        None where it is not valid. Raises :class:`ExpiredToken` where only its time is over. What is seldom asked of a
        user is read when it is.
        """
        with connection.cursor() as cursor:
            cursor.execute(AUTHENTICATE, [digest(token)])
            row = cursor.fetchone()
        if row is None:
            return None
        pk, used_at, description, may, expires_at, *values = row
        now = timezone.now()
        if expires_at is not None and _in_utc(expires_at) <= now:
            raise ExpiredToken(_in_utc(expires_at))
        # To the minute, so that a script's thousand requests are not a thousand writes.
        if used_at is None or now - _in_utc(used_at) > LAST_USE_RESOLUTION:
            last_uses.note(pk, now)
        strangers.note_valid(token)
        if may is None:
            return User.from_db(connection.alias, USER_FIELDS, values), description
        return NarrowedUser.from_row(may.split(), connection.alias, USER_FIELDS, values), description

    @classmethod
    def note_uses(cls, uses: dict[int, datetime]) -> None:
        for pk, used_at in uses.items():
            cls.objects.filter(pk=pk).update(last_used_at=used_at)


class KnownNetworkManager(models.Manager["KnownNetwork"]):
    def knows(self, username: str, network: str | None) -> bool:
        since = timezone.now() - KNOWN_FOR
        return network is not None and self.filter(user__username=username, network=network, used_at__gt=since).exists()

    def note(self, user: Any, network: str) -> None:
        """Remember where a user has just signed in from, to the day."""
        now = timezone.now()
        rows = self.filter(user=user, network=network)
        if rows.filter(used_at__gt=now - timedelta(days=1), used_at__lte=now).exists():
            return
        # Where the clock was ahead, and was set back, none may stay known longer, or push this one out.
        self.filter(user=user, used_at__gt=now).update(used_at=now)
        noted, _ = self.update_or_create(user=user, network=network, defaults={"used_at": now})
        others = self.filter(user=user).exclude(pk=noted.pk).order_by("-used_at", "-pk")
        kept = others.values_list("pk", flat=True)[: KNOWN_NETWORKS - 1]
        others.exclude(pk__in=list(kept)).delete()


class KnownNetwork(models.Model):
    """Where a user has signed in from: an address of IPv4, or the first one of a /64."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    network = models.GenericIPAddressField()
    used_at = models.DateTimeField()

    objects = KnownNetworkManager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "network"], name="one_row_for_a_known_network")]

    def __str__(self) -> str:
        return f"{self.network} of {self.user}"


class Identity(models.Model):
    """Who a user is at a provider of OpenID Connect, which gives no subject twice (OpenID Connect Core, section 2)."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="identity")
    issuer = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="one_user_for_a_subject")]
        default_permissions = ()  # it has no pages

    def __str__(self) -> str:
        return f"{self.subject} of {self.issuer}"


class ThrottleManager(models.Manager["Throttle"]):
    def take(self, name: str, every: timedelta) -> bool:
        """Whether this caller may do it: of all processes of all nodes, one in that time is told so.

        In a transaction that is rolled back, nobody was told so.
        """
        now = timezone.now()
        # What lies further ahead than anybody writes it was written before the clock was set back.
        is_due = models.Q(next_at__lte=now) | models.Q(next_at__gt=now + 2 * every)
        if not self.filter(name=name).exists():
            self.bulk_create([Throttle(name=name, next_at=now)], ignore_conflicts=True)
        elif not self.filter(is_due, name=name).exists():
            return False  # without waiting for who else writes
        return self.filter(is_due, name=name).update(next_at=now + every) == 1

    def note(self, name: str, every: timedelta) -> None:
        """Say that it was done just now, by whoever was not asked to wait for its time."""
        self.update_or_create(name=name, defaults={"next_at": timezone.now() + every})

    def give_back(self, name: str, after: timedelta) -> None:
        """Have somebody take it again after this time: something is left to do."""
        self.filter(name=name).update(next_at=timezone.now() + after)


class Throttle(models.Model):
    """Something that all processes together do once in a time at most, such as housekeeping; and when it is due."""

    name = models.CharField(max_length=50, primary_key=True)
    next_at = models.DateTimeField()

    objects = ThrottleManager()

    class Meta:
        db_table = "iotsupport_turn"  # its name in earlier versions
        default_permissions = ()  # it has no pages

    def __str__(self) -> str:
        return self.name


def _in_utc(moment: datetime) -> datetime:
    """SQLite says no zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


last_uses = LastUses(ApiToken.note_uses)


def digest(token: str) -> str:
    """SHA-256 in hexadecimal. A token has 256 random bits, so a slow password hash would protect nothing."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
