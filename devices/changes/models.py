"""A change of many configurations, and what becomes of each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F, Q
from django.utils import timezone

# A process that works at a change has it so long, unless it renews that; then another takes it.
LEASE = timedelta(seconds=6)
# So many are planned together, and no more are written together.
TOGETHER = 200
# So many are written down together when a change begins.
TAKEN_TOGETHER = 1000

NOBODY: dict[str, Any] = {"worked_by": "", "worked_until": None}


class Kind(models.TextChoices):
    PATCH = "patch", "patch"
    TYPE = "type", "set type"
    ANNOUNCE = "announce", "announce again"
    UNDO = "undo", "undo"
    IMPORT = "import", "import"


class State(models.TextChoices):
    PLANNING = "planning", "is being planned"
    PLANNED = "planned", "is planned"
    REFUSED = "refused", "would be refused in part"
    APPLYING = "applying", "is being applied"
    STOPPED = "stopped", "was stopped"
    APPLIED = "applied", "is applied"


class ItemState(models.TextChoices):
    """What the plan says of one configuration, and what became of it."""

    PLANNED = "planned", "would change"
    UNCHANGED = "unchanged", "stay as they are"
    REFUSED = "refused", "would be refused"
    CHANGED = "changed", "changed"
    SKIPPED = "skipped", "left alone"
    FAILED = "failed", "failed"


class JSONText(models.TextField):  # type: ignore[type-arg]
    """JSON as text. PostgreSQL's own kind takes no null character, also where it is written as an escape."""

    _pyi_private_set_type: Any  # which mypy asks for

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        return None if value is None else json.loads(value)

    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs  # for the table, it is text


class CannotBegin(ValidationError):
    """A change is not in the state to be applied, stopped or undone. The message says why; ``code`` is a constant."""


class Lost(Exception):
    """Somebody stopped the change, or another process has it now: what was done in this transaction is taken back."""


class ChangeManager(models.Manager["Change"]):
    def begin(self, given: Mapping[str, Any], **fields: Any) -> Change:
        """Begin to plan a change; it has a lease by ``worked_by``.

        ``given`` has the MAC addresses, and of each what its kind needs to know. That may be much: it is asked for one
        after the other, and written some at a time, so that others can save meanwhile.
        """
        change = self.model(count=len(given), worked_until=timezone.now() + LEASE, **fields)
        addresses = sorted(given)
        for start in range(0, len(addresses) or 1, TAKEN_TOGETHER):
            parts = _parts(given, addresses[start : start + TAKEN_TOGETHER])
            with transaction.atomic():
                if start:
                    change.keep()
                else:
                    change.save(force_insert=True)
                change.take(parts)
        return change

    def claim(self, name: str) -> Change | None:
        """Take the oldest change that is to be planned or applied and that no other process works at."""
        now = timezone.now()
        # What lies further ahead than anybody writes it was written before the clock was set back.
        is_free = Q(worked_until=None) | Q(worked_until__lte=now) | Q(worked_until__gt=now + 2 * LEASE)
        due = self.filter(is_free | Q(worked_by=name), state__in=[State.PLANNING, State.APPLYING])
        change = due.order_by("pk").first()
        if change is None or not due.filter(pk=change.pk).update(worked_by=name, worked_until=now + LEASE):
            return None
        change.worked_by = name
        return change

    def stop_all(self, remark: str) -> int:
        """Stop each that is planned or applied just now; none can be planned to its end. Returns how many."""
        with transaction.atomic():
            planning, applying = self.filter(state=State.PLANNING), self.filter(state=State.APPLYING)
            fields = {"state": State.STOPPED, "remark": remark, "finished_at": timezone.now(), **NOBODY}
            return planning.update(**fields, taken=0) + applying.update(**fields)


class Change(models.Model):
    """One change of many configurations: who wants what, and how far it is."""

    kind = models.CharField(max_length=10, choices=Kind.choices)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PLANNING)
    remark = models.TextField(blank=True)  # why it was stopped, or what it waits for: a sentence
    patch = models.TextField(blank=True)  # as it was typed
    # The type to be set, and its name then: empty where the type is to be taken away, which is not the same as one that
    # was deleted meanwhile.
    type = models.ForeignKey("devices.DeviceType", null=True, on_delete=models.SET_NULL, related_name="+")
    type_name = models.TextField(blank=True)
    count = models.PositiveIntegerField(default=0)  # how many configurations were chosen
    # How many of them were written down: less than all while it begins, and none where its plan ended early.
    taken = models.PositiveIntegerField(default=0)
    goes_on = models.BooleanField(default=False)  # to be applied at once, if nothing would be refused
    chosen_by = models.TextField(blank=True)  # what was searched for, in words; empty where they were named
    undoes = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="undone_by")

    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    reason = models.TextField(blank=True)
    token = models.TextField(null=True)  # noqa: DJ001 - what the API token is described as; null: there is none

    applied_at = models.DateTimeField(null=True)  # when that began
    applied_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    finished_at = models.DateTimeField(null=True)  # when it was planned, applied or stopped

    worked_by = models.CharField(max_length=40, blank=True)
    worked_until = models.DateTimeField(null=True)

    objects = ChangeManager()

    class Meta:
        ordering = ["-pk"]
        default_permissions = ()  # what one may do with configurations decides

    def __str__(self) -> str:
        return self.reason or f"{self.get_kind_display().capitalize()} {self.pk}"

    def take(self, parts: list[dict[str, Any]]) -> None:
        """Write down what is to be planned; it can begin with the last of it."""
        Part.objects.bulk_create(Part(change=self, given=part) for part in parts)
        self.taken += sum(map(len, parts))
        type(self).objects.filter(pk=self.pk).update(taken=self.taken)

    def keep(self) -> None:
        """Renew the lease, in the transaction of a step. Raises :class:`Lost`."""
        mine = type(self).objects.filter(pk=self.pk, state=self.state, worked_by=self.worked_by)
        if not mine.update(worked_until=timezone.now() + LEASE, remark=""):
            raise Lost

    def leave(self, state: State, remark: str = "") -> None:
        """Let go of it, in a state in which nobody has to work at it. Raises :class:`Lost`."""
        mine = type(self).objects.filter(pk=self.pk, state=self.state, worked_by=self.worked_by)
        with transaction.atomic():
            if not mine.update(state=state, remark=remark, finished_at=timezone.now(), **NOBODY):
                raise Lost
            self._forget_what_is_not_planned()
        self.refresh_from_db()

    def release(self) -> None:
        """Leave it to whichever process comes first."""
        type(self).objects.filter(pk=self.pk, worked_by=self.worked_by).update(**NOBODY)

    def note(self, remark: str) -> None:
        """Say what it waits for, to whoever looks at it."""
        type(self).objects.filter(pk=self.pk, worked_by=self.worked_by).update(remark=remark)

    def tally(self) -> Counter[str]:
        """How many items are in each state."""
        counted = self.items.order_by().values_list("state").annotate(models.Count("pk"))
        return Counter(dict(counted))

    def apply(self, user: User | None, *, token: str | None, leave_out: bool) -> None:
        """Have the server begin, or go on. Whatever would be refused has to be left out. Raises CannotBegin."""
        fields: dict[str, Any] = {"applied_by": user, "token": token, "state": State.APPLYING, "remark": ""}
        states = [State.PLANNED, State.STOPPED, *([State.REFUSED] if leave_out else [])]
        ready = type(self).objects.filter(pk=self.pk, state__in=states, taken=F("count"))
        if not ready.update(**fields, **NOBODY, applied_at=timezone.now(), finished_at=None):
            raise self._cannot_be_applied()
        self.refresh_from_db()

    def stop(self, user: User) -> None:
        """Write no more: a step that is under way is taken back. Raises CannotBegin."""
        running = type(self).objects.filter(pk=self.pk, state__in=[State.PLANNING, State.APPLYING])
        remark = f"{user} stopped it."
        with transaction.atomic():
            if not running.update(state=State.STOPPED, remark=remark, finished_at=timezone.now(), **NOBODY):
                raise CannotBegin("Nothing is under way that could be stopped.", code="NOT_RUNNING")
            self._forget_what_is_not_planned()
        self.refresh_from_db()

    def _forget_what_is_not_planned(self) -> None:
        """Of a plan that ends early, which can never be applied."""
        parts, _ = self.parts.all().delete()
        if parts:
            type(self).objects.filter(pk=self.pk).update(taken=0)

    @property
    def is_running(self) -> bool:
        """Whether the server has something to do about it."""
        return self.state in {State.PLANNING, State.APPLYING}

    def _cannot_be_applied(self) -> CannotBegin:
        self.refresh_from_db()
        if self.state == State.REFUSED:
            message = "Some would be refused. Correct them, or the patch, and plan anew; or leave them out."
            return CannotBegin(message, code="WOULD_BE_REFUSED")
        if self.state == State.STOPPED:
            return CannotBegin("Its planning was stopped. Begin a change anew.", code="NOT_PLANNED")
        message = f"This change {self.get_state_display()}. It cannot be applied now."
        return CannotBegin(message, code="NOT_PLANNED")


def _parts(given: Mapping[str, Any], addresses: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {mac_address: given[mac_address] for mac_address in addresses[start : start + TOGETHER]}
        for start in range(0, len(addresses), TOGETHER)
    ]


class Part(models.Model):
    """Some of the configurations that a change is still to be planned for; it goes when they are."""

    change = models.ForeignKey(Change, on_delete=models.CASCADE, related_name="parts")
    given: Any = JSONText()  # MAC addresses, and what the change's kind needs to know of each

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{len(self.given)} of {self.change_id}"


class ChangeItem(models.Model):
    """What a change means for one configuration."""

    change = models.ForeignKey(Change, on_delete=models.CASCADE, related_name="items", db_index=False)
    mac_address = models.CharField(max_length=17)
    state = models.CharField(max_length=10, choices=ItemState.choices)
    before = models.CharField(max_length=64, null=True)  # noqa: DJ001 - SHA-256 of the text that the plan saw
    before_type = models.BigIntegerField(null=True)  # the primary key of its type then
    reason = models.TextField(blank=True)  # a sentence, where it was refused or left alone
    given: Any = JSONText(null=True)  # what the change's kind needs to know of it
    version = models.BigIntegerField(null=True)  # the one that was written

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["change", "mac_address"], name="one_item_for_each_configuration")
        ]
        indexes = [models.Index("change", "state", "mac_address", name="changeitem_by_state")]

    def __str__(self) -> str:
        return self.mac_address


def over() -> dict[str, models.QuerySet[Any]]:
    """What of old changes is forgotten, as old versions are. One that was undone stays as long as what undid it."""
    if not settings.HISTORY_DAYS:
        return {}
    before = timezone.now() - timedelta(days=settings.HISTORY_DAYS)
    old = Change.objects.filter(created_at__lt=before).exclude(state__in=[State.PLANNING, State.APPLYING])
    return {
        "items of changes of many": ChangeItem.objects.filter(change__in=old),
        "changes of many": old.filter(items=None, parts=None, undone_by=None),
    }
