"""Times in the admin's lists and forms, as people say them; of every model, whoever registers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.safestring import SafeString

from iotsupport import times


class ToldTimes(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows a time that nobody edits there by :func:`iotsupport.times.told`."""

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return self._tell(super().get_list_display(request))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return self._tell(super().get_readonly_fields(request, obj))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        edits = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        told = {getattr(name, "__name__", "") for name in self.get_readonly_fields(request, obj)} if edits else None
        return [
            (title, {**options, "fields": self._tell(options["fields"], told)})
            for title, options in super().get_fieldsets(request, obj)
        ]

    def _tell(self, names: Iterable[Any], among: set[str] | None = None) -> list[Any]:
        """These names of fields, with columns in place of the times ``among`` them, by default of all."""
        told: list[Any] = []
        model: Any = self.model
        for name in names:
            if isinstance(name, (list, tuple)):  # on one line of a form
                told.append(self._tell(name, among))
            elif isinstance(name, str) and (among is None or name in among):
                told.append(_column(model, name) or name)
            else:
                told.append(name)
        return told


@cache  # Django looks for the same one in several lists
def _column(model: Any, name: str) -> Callable[[Any], SafeString | None] | None:
    """A column of a list that tells the times of a field; None where the name is no such field's."""
    field = next((field for field in model._meta.concrete_fields if field.name == name), None)
    if not isinstance(field, models.DateTimeField):
        return None

    @admin.display(description=field.verbose_name, ordering=name)
    def column(row: Any) -> SafeString | None:
        moment = getattr(row, name)
        return None if moment is None else times.told(moment)

    column.__name__ = name
    return column
