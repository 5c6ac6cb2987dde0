"""The versions of one name, each with a number: 1 is the first one, also when that is kept no more."""

from __future__ import annotations

from functools import cached_property
from typing import Any

# A number of more digits is none, and some databases fail with it.
MOST_DIGITS = 9


def parse_number(text: str) -> int | None:
    """Read the number of a version; None for what cannot be one."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS
    return int(text) if is_number and int(text) > 0 else None


class Numbered:
    """What was saved and deleted under a name, by whatever rows, in the order in which that was done."""

    def __init__(self, model: Any, name: str) -> None:
        self.rows = model.history.of(name)

    @cached_property
    def first(self) -> int:
        """The number of the oldest version that is kept."""
        return (self.rows.order_by("history_id").values_list("history_forgotten", flat=True).first() or 0) + 1

    @cached_property
    def last(self) -> int:
        """The number of the newest version; one less than the first where there is none."""
        return self.first + int(self.rows.count()) - 1

    def get(self, number: int) -> Any:
        """Return the version of this number; None where there is none, or none any more."""
        if not self.first <= number <= self.last:
            return None
        # Of the others, the index alone is looked at.
        keys = self.rows.order_by("history_id").values_list("history_id", flat=True)
        place = number - self.first
        return self.rows.select_related("history_user").filter(history_id__in=list(keys[place : place + 1])).first()

    def number_of(self, version: Any) -> int:
        return self.first + int(self.rows.filter(history_id__lt=version.history_id).count())

    def newest(self, start: int, stop: int, *, without: list[str]) -> list[tuple[int, Any]]:
        """Return versions with their numbers, from the newest on, as a slice does; ``without`` these fields."""
        versions = self.rows.select_related("history_user").defer(*without).order_by("-history_id")[start:stop]
        return [(self.last - start - place, version) for place, version in enumerate(versions)]
