"""The versions of a row, as django-simple-history keeps them."""

from __future__ import annotations

from functools import cache
from typing import Any

from simple_history import manager


class HistoryManager(manager.HistoryManager):
    """Makes its class once: the library makes another whenever it is asked for a history, which is at every save."""

    @classmethod
    @cache
    def from_queryset(cls, queryset_class: type[Any], class_name: str | None = None) -> type[Any]:
        return super().from_queryset(queryset_class, class_name)
