"""The versions of a row, as django-simple-history keeps them: in the order in which they were saved.

The library orders by the clock. That may have been ahead, and set back; the numbers of versions only grow.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Self

from django.contrib.auth.models import User
from django.db.models import CharField, Exists, Index, Model, OuterRef, PositiveIntegerField, Q, TextField
from simple_history import manager, models, utils

from iotsupport.editing import origins

# What simple-history notes in ``history_type``.
DELETED = "-"


class HistoryManager(manager.HistoryManager):
    """Makes its class once: the library makes another whenever it is asked for a history, which is at every save."""

    @classmethod
    @cache
    def from_queryset(cls, queryset_class: type[Any], class_name: str | None = None) -> Any:
        return super().from_queryset(queryset_class, class_name)


class VersionQuerySet(manager.HistoricalQuerySet):
    def of(self, name: str) -> Self:
        """Those of all rows that ever had this name."""
        found: Self = self.filter(**{self.model.instance_type.name_field: name})
        return found

    def deleted(self) -> Self:
        """The deletions of what does not exist since, the last one first."""
        row = self.model.instance_type
        name = {row.name_field: OuterRef(row.name_field)}
        later = self.model._base_manager.filter(**name, history_id__gt=OuterRef("history_id"))
        gone = ~Exists(later) & ~Exists(row._base_manager.filter(**name))
        found: Self = self.filter(gone, history_type=DELETED).order_by("-history_id")
        return found


class CameAbout(Model):
    """How a version came about, beside who saved it, when and why. Null for versions from before this was kept."""

    history_way = CharField(max_length=20, null=True, choices=origins.Way.choices, default=origins.way)  # noqa: DJ001
    # Its description: the token itself may be deleted.
    history_token = TextField("API token", null=True, default=origins.token)  # noqa: DJ001
    # How many versions of its name came before the oldest one that is kept, and are kept no more: it says so, and its
    # number counts them. Null where that is none.
    history_forgotten = PositiveIntegerField(null=True, editable=False)

    class Meta:
        abstract = True


class Versions(models.HistoricalRecords):
    """Keeps each version of a row that is saved or deleted."""

    def __init__(self, **kwargs: Any) -> None:
        options = {
            "history_manager": HistoryManager,
            "historical_queryset": VersionQuerySet,
            "history_change_reason_field": TextField(null=True),  # noqa: DJ001 - as the library has it
            "bases": [CameAbout],
        }
        super().__init__(**{**options, **kwargs})

    def get_history_user(self, instance: Any) -> User | None:
        return origins.current().person

    def get_change_reason_for_object(self, instance: Any, history_type: str, using: str | None) -> str | None:
        return origins.current().reason or None

    def fields_included(self, model: Any) -> list[Any]:
        # Those that are kept in a column: a relation to what has the same name is none.
        return [field for field in super().fields_included(model) if field.concrete]

    def get_meta_options(self, model: Any) -> dict[str, Any]:
        options: dict[str, Any] = super().get_meta_options(model)
        name = model._meta.model_name
        indexes = [
            # All that housekeeping asks of a version is in it.
            Index(fields=[model.name_field, "history_id", "history_date"], name=f"{name}_by_name"),
            Index(fields=["history_id"], condition=Q(history_type=DELETED), name=f"{name}_deleted"),
        ]
        return {**options, "ordering": ["-history_id"], "get_latest_by": "history_id", "indexes": indexes}

    def get_extra_fields(self, model: Any, fields: Any) -> dict[str, Any]:
        extra: dict[str, Any] = super().get_extra_fields(model, fields)
        return {**extra, "next_record": property(_next_record), "prev_record": property(_previous_record)}


def _next_record(version: Any) -> Any:
    versions = utils.get_history_manager_from_history(version)
    return versions.filter(history_id__gt=version.history_id).order_by("history_id").first()


def _previous_record(version: Any) -> Any:
    versions = utils.get_history_manager_from_history(version)
    return versions.filter(history_id__lt=version.history_id).order_by("-history_id").first()
