"""Deleting what is selected in a list, in parts: each is a transaction of its own, so that others save in between."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Self

from django.contrib import messages
from django.contrib.admin import action, actions, helpers
from django.contrib.admin.utils import NestedObjects, model_ngettext
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DatabaseError, connections, models, router, transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from iotsupport.database import is_shared
from iotsupport.editing import origins
from iotsupport.editing.reasons import check_reason
from iotsupport.editing.undo import MOST_ROWS, deleted_rows
from iotsupport.errors import explain_database, is_outage, log_outage
from iotsupport.mirror.files import MirrorBehindError, MirrorError

logger = logging.getLogger(__name__)

# What a page names of what it asks about.
NAMED_ROWS = 20

# A transaction takes one step after another, and none after so long: whoever saves meanwhile waits for it.
STEP_ROWS = 10
PART_SECONDS = 0.2

# Between two transactions. SQLite's other writers look ten times a second whether it is their turn.
PAUSE_SECONDS = 0.15

# In one request; then a page says how far it is.
REQUEST_SECONDS = 2.0

KEYS = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)


class Keys:
    """Primary keys, sorted, that fit into one field of a form however many they are: ``1-20000 20002``."""

    def __init__(self, ranges: Iterable[range] = ()) -> None:
        self._ranges = deque(ranges)

    @classmethod
    def join(cls, keys: Iterable[int]) -> Self:
        """Make ranges of keys. A range has no key that was not given: it would be deleted, too."""
        joined: list[range] = []
        for key in keys:
            if joined and joined[-1].stop == key:
                joined[-1] = range(joined[-1].start, key + 1)
            else:
                joined.append(range(key, key + 1))
        return cls(joined)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str()`` wrote; whatever else there is counts for nothing."""
        found = [match for match in map(KEYS.fullmatch, text.split()) if match]
        return cls(each for each in (range(int(m[1]), int(m[2] or m[1]) + 1) for m in found) if each)

    def __str__(self) -> str:
        return " ".join(f"{each.start}-{each.stop - 1}" if len(each) > 1 else str(each.start) for each in self._ranges)

    def copy(self) -> Self:
        return type(self)(self._ranges)

    @property
    def count(self) -> int:
        return sum(map(len, self._ranges))

    def take(self, count: int) -> list[int]:
        """Remove the first so many, and return them."""
        taken: list[int] = []
        while self._ranges and len(taken) < count:
            first = self._ranges.popleft()
            part = first[: count - len(taken)]
            taken += part
            if len(part) < len(first):
                self._ranges.appendleft(first[len(part) :])
        return taken


@action(permissions=["delete"], description=actions.delete_selected.short_description)  # type: ignore[attr-defined]
def delete_selected(model_admin: Any, request: HttpRequest, queryset: models.QuerySet[Any]) -> HttpResponse | None:
    """Ask, then delete in parts: each answer says how far it is, and its form goes on with what is left."""
    if not isinstance(model_admin.opts.pk, models.IntegerField):
        return actions.delete_selected(model_admin, request, queryset)
    is_confirmed = bool(request.POST.get("post"))
    if is_confirmed and "rows" in request.POST:
        keys = Keys.parse(request.POST["rows"])
    else:
        keys = Keys.join(queryset.order_by("pk").values_list("pk", flat=True).distinct())
    deletion = Deletion(model_admin, request, keys)
    if not is_confirmed:
        return deletion.ask()
    try:
        origins.current().reason = check_reason(deletion.reason)
    except ValidationError as error:
        return deletion.ask(error.messages)
    return deletion.go_on()


class Deletion:
    """What is left to delete, and what this request does about it."""

    def __init__(self, model_admin: Any, request: HttpRequest, keys: Keys) -> None:
        self.model_admin, self.request, self.keys = model_admin, request, keys
        self.done = _number(request.POST.get("done"))
        self.reason = request.POST.get("reason", "")
        self.using = router.db_for_write(model_admin.model)

    def ask(self, reason_errors: list[str] | None = None) -> HttpResponse:
        """Name a few, and count the rest: a page of 50,000 names helps nobody."""
        rows = list(self._rows(self.keys.copy().take(MOST_ROWS)))
        shown, counts, lacking, protected = self.model_admin.get_deleted_objects(rows, self.request)
        unnamed = max(0, self.keys.count - NAMED_ROWS)
        context = {
            "title": f"Cannot delete {self._name(2)}" if lacking or protected else "Delete?",
            "perms_lacking": lacking,
            "protected": protected,
            "asks_for_reason": getattr(self.model_admin, "asks_for_reason", False),
            "reason_errors": reason_errors,
            "deletable_objects": [shown],
            "model_count": dict(counts).items(),
            "named": rows[:NAMED_ROWS],
            "unnamed": f"{unnamed:,}" if unnamed else "",
            "related": sorted({str(name) for name in counts} - {str(self._name(2))}),
        }
        return self._page("admin/delete_selected.html", context)

    def go_on(self) -> HttpResponse | None:
        """Delete for a while. Returns None when nothing is left."""
        is_short = self.done == 0 and self.keys.count <= MOST_ROWS  # so few can be brought back together
        until = time.monotonic() + REQUEST_SECONDS
        trouble = None
        while self.keys.count and trouble is None:
            try:
                self._delete_part()
            except (MirrorError, DatabaseError, PermissionDenied) as error:
                if not self.done:
                    raise
                trouble = _explain(error)
            if not is_short and time.monotonic() >= until:
                break
        if not is_short or trouble:  # the rows of this request are not all of them
            deleted_rows(self.request).clear()
        if self.keys.count:
            return self._page("admin/deletion.html", {"title": "Deleting", "trouble": trouble})
        self._say_that_it_is_done(trouble)
        return None

    def _delete_part(self) -> None:
        """Delete what can be deleted in a short transaction, then give others their turn."""
        left, deleted = self.keys.copy(), 0
        try:
            with transaction.atomic(using=self.using):
                until = time.monotonic() + PART_SECONDS
                while step := left.take(STEP_ROWS):
                    deleted += self._delete(step)
                    if time.monotonic() >= until:
                        break
        except MirrorBehindError:  # the rows are gone all the same
            self.keys, self.done = left, self.done + deleted
            raise
        self.keys, self.done = left, self.done + deleted
        if self.keys.count and not is_shared(connections[self.using]):
            time.sleep(PAUSE_SECONDS)

    def _delete(self, keys: list[int]) -> int:
        rows = self._rows(keys)
        if connections[self.using].features.has_select_for_update:
            rows = rows.select_for_update()
        count = len(rows)
        if count:
            self._require_permission(rows)
            self.model_admin.log_deletions(self.request, rows)
            self.model_admin.delete_queryset(self.request, rows)
        return count

    def _require_permission(self, rows: models.QuerySet[Any]) -> None:
        """As Django does before it deletes, also of what belongs to them; without naming all of it."""
        site = self.model_admin.admin_site
        collector: Any = NestedObjects(using=self.using, origin=rows)
        collector.collect(rows)
        for model, found in collector.model_objs.items():
            if site.is_registered(model):
                model_admin = site.get_model_admin(model)
                if not all(model_admin.has_delete_permission(self.request, row) for row in found):
                    raise PermissionDenied(f"You may not delete {model._meta.verbose_name_plural}.")

    def _rows(self, keys: list[int]) -> models.QuerySet[Any]:
        # Whoever sends other keys gets no further than the list that this user sees.
        listed: models.QuerySet[Any] = self.model_admin.get_queryset(self.request)
        return listed.filter(pk__in=keys).select_related(None).order_by("pk")

    def _name(self, count: int) -> str:
        return model_ngettext(self.model_admin.opts, count)

    def _say_that_it_is_done(self, trouble: str | None) -> None:
        if trouble:
            text, level = trouble, messages.WARNING
        elif self.done:
            text, level = f"Successfully deleted {self.done:,} {self._name(self.done)}.", messages.SUCCESS
        else:
            text, level = "What you chose was deleted meanwhile.", messages.INFO
        self.model_admin.message_user(self.request, text, level)

    def _page(self, template: str, context: dict[str, Any]) -> HttpResponse:
        self.request.current_app = self.model_admin.admin_site.name
        left = self.keys.count
        shared = {
            **self.model_admin.admin_site.each_context(self.request),
            "opts": self.model_admin.opts,
            "media": self.model_admin.media,
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "objects_name": self._name(left),
            "rows": str(self.keys),
            "left": f"{left:,}",
            "done": self.done,
            "reason": self.reason,
            "total": self.done + left,
            "progress": f"Deleted: {self.done:,}. Left: {left:,} {self._name(left)}.",
        }
        return TemplateResponse(self.request, template, shared | context)


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _explain(error: MirrorError | DatabaseError | PermissionDenied) -> str:
    if isinstance(error, MirrorBehindError):
        return str(error)
    reason: str | None = str(error)
    if isinstance(error, DatabaseError):
        if is_outage(error):
            log_outage(error)
        else:
            logger.error("The database refused a deletion", exc_info=error)
        reason = explain_database(error) or f"The database could not do it ({error}). The server's log says more."
    return f"The rest was not deleted. {reason}"
