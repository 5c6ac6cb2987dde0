"""The filters of a list that are chosen: they stand above it, each with a way to be without it."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from django.contrib.admin.views.main import ChangeList
from django.utils.text import capfirst


class ChosenFilter(NamedTuple):
    title: str
    choice: str
    without: str
    """The query string of the list without it; everything else that was asked for stays."""


class ChosenFilters(ChangeList):
    @property
    def chosen_filters(self) -> list[ChosenFilter]:
        """Those that the address asks for: what a filter does unasked cannot be removed."""
        # Counting belongs to the filters themselves: once is enough.
        uncounted = copy.copy(self)
        uncounted.add_facets = False
        chosen = [_chosen(spec, uncounted) for spec in self.filter_specs if _is_asked(spec, self.params)]
        return [each for each in chosen if each is not None]


def _is_asked(spec: Any, params: dict[str, Any]) -> bool:
    return any(name in params for name in spec.expected_parameters())


def _chosen(spec: Any, changes: ChangeList) -> ChosenFilter | None:
    without = changes.get_query_string(remove=spec.expected_parameters())
    for choice in spec.choices(changes):
        if choice["selected"]:
            # One of them is to have no filter.
            is_none = choice["query_string"] == without
            return None if is_none else ChosenFilter(_title(spec), str(choice["display"]), without)
    # A value that no choice has, from an address that somebody wrote: fields compare with it, others take it for none.
    used = spec.used_parameters.values() if hasattr(spec, "field") else []
    values = [str(value) for each in used for value in (each if isinstance(each, list) else [each])]
    return ChosenFilter(_title(spec), ", ".join(values), without) if values else None


def _title(spec: Any) -> str:
    return str(capfirst(str(spec.title)))
