"""One row for each board, and how many downloads there were in each hour."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Count, Q
from django.utils import timezone

# So many waiting boards are kept: anybody may ask for a configuration that is not there.
MOST_WAITING = 1000

# A board whose configuration was deleted, or that waits for one, is remembered for so long after it was last seen.
GONE_FOR = timedelta(days=90)

# What nobody could have written yet was written before the clock was set back.
AHEAD = timedelta(seconds=10)


class State(models.TextChoices):
    """Of a board; whether it is silent is another question."""

    CURRENT = "current", "current"  # it holds its configuration's present bytes
    BEHIND = "behind", "behind"  # it holds others
    NEVER_FETCHED = "never_fetched", "never fetched"  # it has a configuration, and was never sent one
    WAITING = "waiting", "waiting"  # it asks for a configuration, and has none
    # Its configuration was deleted, and it did not ask since: no list shows it. Kept for when it asks again, or the
    # deletion is taken back.
    GONE = "gone", "gone"


# Of boards that have a configuration.
CONFIGURED = [State.CURRENT, State.BEHIND, State.NEVER_FETCHED]


def silent_before() -> datetime | None:
    """Return the moment before which a board that is not silent was not last seen; None where none ever is."""
    return timezone.now() - timedelta(hours=settings.SILENT_AFTER) if settings.SILENT_AFTER else None


class BoardQuerySet(models.QuerySet["Board"]):
    def shown(self) -> Self:
        """All but those that nobody asks for any more."""
        return self.exclude(state=State.GONE)

    def waiting(self) -> Self:
        return self.filter(state=State.WAITING)

    def silent(self, is_silent: bool = True) -> Self:
        """Those with a configuration that were seen, but not within ``SILENT_AFTER`` hours; or all others."""
        before = silent_before()
        if before is None:
            return self.none() if is_silent else self
        is_so = Q(state__in=CONFIGURED, last_seen__lt=before)
        return self.filter(is_so) if is_silent else self.exclude(is_so)

    def count_states(self) -> dict[str, int]:
        """How many boards there are in each state that is shown: one query."""
        groups = self.shown().order_by().values("state").annotate(count=Count("*"))
        found = dict(groups.values_list("state", "count"))
        return {state.value: found.get(state.value, 0) for state in [*CONFIGURED, State.WAITING]}


class Board(models.Model):
    """What is known of one board, by its MAC address. Times are those of the server that it asked."""

    mac_address = models.CharField("MAC address", max_length=17, primary_key=True)
    # SHA-256 of its configuration's present bytes, in hexadecimal; None: it has no configuration.
    config_sha256 = models.CharField(max_length=64, null=True)  # noqa: DJ001
    # The same of what it holds: what it said so of, or was sent whole. None: it was never sent one.
    holds_sha256 = models.CharField("holds", max_length=64, null=True)  # noqa: DJ001
    holds_since = models.DateTimeField(null=True)
    # When it last told so.
    holds_at = models.DateTimeField(null=True)
    # The first save that it has not fetched.
    behind_since = models.DateTimeField(null=True)
    state = models.CharField(max_length=16, choices=State.choices)

    first_seen = models.DateTimeField(null=True)
    last_seen = models.DateTimeField(null=True)  # to the minute
    # While it waits: since when, and how often it asked.
    waiting_since = models.DateTimeField(null=True)
    asked = models.PositiveBigIntegerField("asked", default=0)

    last_address = models.GenericIPAddressField("address", null=True)
    address_before = models.GenericIPAddressField(null=True)
    address_changed_at = models.DateTimeField(null=True)
    # When it was last seen from two addresses within a minute: perhaps two boards have one MAC address.
    two_addresses_at = models.DateTimeField(null=True)

    # What it says of itself; empty where it does not.
    user_agent = models.CharField(max_length=200, default="")
    runs_version = models.CharField("runs", max_length=100, default="")
    runs_md5 = models.CharField(max_length=32, default="")
    runs_sha256 = models.CharField(max_length=64, default="")  # of the image, as it ends: not the file's
    sdk_version = models.CharField("SDK", max_length=100, default="")
    chip_size = models.PositiveBigIntegerField("flash in bytes", null=True)
    # The asset version that has one of these two digests.
    runs_filename = models.CharField(max_length=200, default="")
    runs_asset_sha256 = models.CharField(max_length=64, default="")

    objects = BoardQuerySet.as_manager()

    class Meta:
        ordering = ["mac_address"]
        default_permissions = ["view", "delete"]
        indexes = [
            models.Index(fields=["state", "last_seen"], name="board_state"),
            models.Index(fields=["last_seen"], name="board_last_seen"),
            models.Index(fields=["runs_filename", "runs_asset_sha256"], name="board_runs"),
        ]

    def __str__(self) -> str:
        return self.mac_address

    @property
    def is_silent(self) -> bool:
        before = silent_before()
        return (
            before is not None and self.state in CONFIGURED and self.last_seen is not None and self.last_seen < before
        )


class HourlyCountManager(models.Manager["HourlyCount"]):
    def since(self, kind: str, since: datetime) -> dict[datetime, int]:
        """How many of a kind there were in each hour that had some, by the hour's beginning in UTC."""
        return dict(self.filter(kind=kind, hour__gte=since).values_list("hour", "count"))


class HourlyCount(models.Model):
    """How much of something there was in one hour, on all nodes together. Kept for 31 days."""

    DOWNLOADS = "downloads"
    KEPT_FOR = timedelta(days=31)

    hour = models.DateTimeField()
    kind = models.CharField(max_length=20)
    count = models.PositiveBigIntegerField()

    objects = HourlyCountManager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["hour", "kind"], name="one_count_for_each_hour")]
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.count} {self.kind} in the hour from {self.hour:%Y-%m-%d %H:%M}"
