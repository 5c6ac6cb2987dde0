"""What the admin's lists take from their address, for every model, whoever registers it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList, ChangeListSearchForm
from django.contrib.admin.widgets import url_params_from_lookup_dict
from django.http import HttpRequest

from iotsupport.editing.chosen_filters import ChosenFilters
from iotsupport.editing.lists import QuickList, QuickRows
from iotsupport.editing.told_times import ToldTimes

# Each is a condition of its own: SQLite takes no more than a thousand, one within the other.
MOST_WORDS = 100


class SearchForm(ChangeListSearchForm):
    def clean(self) -> None:
        super().clean()
        if len(self.cleaned_data.get(SEARCH_VAR, "").split()) > MOST_WORDS:
            self.add_error(SEARCH_VAR, f"Search for at most {MOST_WORDS} words. All rows are shown.")


class OfferedLookups(ChosenFilters, QuickList):
    """A list that takes from its address what its filters and its search offer, and refuses every other lookup.

    Django takes whatever names a field of the model itself. A regular expression runs in Python on SQLite, and holds
    the interpreter, downloads included, for as long as its author likes; others read what the list does not show.
    """

    search_form_class = SearchForm

    def get_filters(self, request: HttpRequest) -> Any:
        asked = self.get_filters_params()
        found = super().get_filters(request)
        # What no filter took for its own; and what Django made of the year, month and day that one clicked on.
        left = {lookup for lookup in found[2] if lookup in asked} - self._made_of_date(asked)
        for lookup in left:
            if not self._is_of_raw_id_field(lookup, asked[lookup]):
                raise DisallowedModelAdminLookup(f"Filtering by {lookup} not allowed")
        return found

    def _made_of_date(self, asked: dict[str, list[str]]) -> set[str]:
        field = self.date_hierarchy
        return {f"{field}__gte", f"{field}__lt"} if field and f"{field}__year" in asked else set()

    def _is_of_raw_id_field(self, lookup: str, values: list[str]) -> bool:
        """Whether it is what some field that names rows of this list is limited to: its pop-up sends that along."""
        limits = [limit() if callable(limit) else limit for limit in self.model._meta.related_fkey_lookups]
        offered = {pair for limit in limits for pair in url_params_from_lookup_dict(limit).items()}
        return all((lookup, value) in offered for value in values)


class OfferingAdmin(ToldTimes, QuickRows):
    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        base = super().get_changelist(request, **kwargs)
        return type(base.__name__, (OfferedLookups, base), {"__module__": base.__module__})


class OfferedLookupsSite(admin.AdminSite):
    """Has all lists keep to what they offer: ours, Django's own, and those of other apps."""

    def register(
        self,
        model_or_iterable: Any,
        admin_class: type[admin.ModelAdmin[Any]] | None = None,
        **options: Any,
    ) -> None:
        base = admin_class or admin.ModelAdmin
        limited = type(base.__name__, (OfferingAdmin, base), {"__module__": base.__module__})
        super().register(model_or_iterable, limited, **options)
