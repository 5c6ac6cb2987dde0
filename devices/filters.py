"""What the list of configurations can be narrowed down to: by what their boards did."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from devices.models import DeviceConfig, DeviceType
from iotsupport.boards.models import CONFIGURED, Board, silent_before

FEW = 10_000

# More are found by the type's page.
MOST_TYPES = 100


def of_boards(configs: QuerySet[DeviceConfig], boards: QuerySet[Board]) -> QuerySet[DeviceConfig]:
    """The configurations of these boards: asked of each of the boards where they are few, else of each configuration.

    Of 50,000, those of the many would be sorted for each page, where row by row a page ends when it is full; and for
    those of the few all would be looked at, where their addresses lead to them.
    """
    if boards.order_by()[: FEW + 1].count() > FEW:
        return configs.filter(Exists(boards.filter(mac_address=OuterRef("mac_address"))))
    return configs.filter(mac_address__in=boards.order_by().values("mac_address"))


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, state.label.capitalize()) for state in CONFIGURED]

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeviceConfig]) -> QuerySet[DeviceConfig]:
        if self.value() not in CONFIGURED:
            return queryset
        return of_boards(queryset, Board.objects.filter(state=self.value()))


class SeenFilter(admin.SimpleListFilter):
    title = "last seen"
    parameter_name = "seen"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        silent = [("silent", "Silent")] if silent_before() else []
        return [("hour", "In the last hour"), *silent, ("never", "Never")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeviceConfig]) -> QuerySet[DeviceConfig]:
        match self.value():
            case "hour":
                boards = Board.objects.filter(last_seen__gte=timezone.now() - timedelta(hours=1))
            case "silent":
                boards = Board.objects.silent()
            case "never":
                boards = Board.objects.filter(last_seen=None)
            case _:
                return queryset
        return of_boards(queryset, boards)


class TypeFilter(admin.SimpleListFilter):
    title = "type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        types = [(str(pk), name) for pk, name in DeviceType.objects.values_list("pk", "name")[:MOST_TYPES]]
        return [*types, ("none", "No type")] if types else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeviceConfig]) -> QuerySet[DeviceConfig]:
        value = self.value() or ""
        if value == "none":
            return queryset.filter(type=None)
        return queryset.filter(type=int(value)) if re.fullmatch("[0-9]{1,18}", value) else queryset


class FitFilter(admin.SimpleListFilter):
    title = "fit"
    parameter_name = "fits"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "Does not fit its type")] if DeviceType.objects.exists() else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeviceConfig]) -> QuerySet[DeviceConfig]:
        return queryset.filter(fits=False) if self.value() == "no" else queryset
