"""Two who save one configuration: what the second of them is shown before anything is overwritten."""

from __future__ import annotations

import hashlib
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from django.core.exceptions import ValidationError

from devices.line_ends import as_stored, with_lf
from devices.models import DeviceConfig
from iotsupport.editing.differences import Row, difference
from iotsupport.editing.meanwhile import Change, changes_after
from iotsupport.editing.merging import Merged, merge

# The version that an edit began with is among the newest; older ones are not looked through.
MOST_VERSIONS = 100


@dataclass
class Conflict:
    """What somebody typed, and what others made of the same configuration since they began."""

    mac_address: str
    mine: str
    row: DeviceConfig | None
    """As it is now; None where it was deleted."""
    base: str | None
    """What the edit began with; None where nothing is known of that."""
    changes: list[Change]
    """Newest first."""

    @classmethod
    def of(cls, row: DeviceConfig, mine: str, shown: str) -> Self:
        """Somebody would overwrite the row; ``shown`` is what :func:`shown_of` said when they began."""
        versions = DeviceConfig.history.filter(mac_address=row.mac_address)
        version = _find(versions, shown)
        base = None if version is None else version.content
        return cls(row.mac_address, mine, copy(row), base, changes_after(versions, version))

    @classmethod
    def of_new(cls, row: DeviceConfig, mine: str) -> Self:
        """Somebody would add what others have added before."""
        versions = DeviceConfig.history.filter(mac_address=row.mac_address)
        return cls(row.mac_address, mine, row, None, changes_after(versions, None))

    @classmethod
    def of_deleted(cls, last: Any, mine: str, shown: str) -> Self:
        """Somebody changed what others have deleted; ``last`` is its last version."""
        versions = DeviceConfig.history.filter(mac_address=last.mac_address)
        version = _find(versions, shown)
        base = last if version is None else version
        mine = as_stored(mine, base.content)
        return cls(last.mac_address, mine, None, base.content, changes_after(versions, version))

    @property
    def who(self) -> str:
        return self.changes[0].who if self.changes else "Somebody else"

    @property
    def theirs(self) -> str:
        return "" if self.row is None else self.row.content

    @cached_property
    def merged(self) -> Merged | None:
        """Both changes in one text that may be saved; None where there is none that is neither mine nor theirs."""
        if self.row is None or self.base is None:
            return None
        merged = merge(with_lf(self.base), with_lf(self.mine), with_lf(self.theirs))
        if merged.text in {with_lf(self.mine), with_lf(self.theirs)} or not self._may_be_saved(merged.text):
            return None
        return merged

    def _may_be_saved(self, text: str) -> bool:
        candidate = copy(self.row)
        assert candidate is not None  # noqa: S101 - asked where there is one
        candidate.content = text
        try:
            candidate.clean()
        except ValidationError:
            return False
        return True

    @property
    def is_merged_whole(self) -> bool:
        """Whether both changes are in the merged text, and none gave way to the other."""
        return self.merged is not None and not self.merged.conflicts

    @property
    def suggestion(self) -> str:
        """What the editor has: as much of both as there can be."""
        return self.mine if self.merged is None else self.merged.text

    @property
    def places(self) -> str:
        """Where in the merged text mine took the place of theirs: ``lines 3, 7 to 9``."""
        conflicts = self.merged.conflicts if self.merged else []
        told = ", ".join(f"{first} to {last}" if last > first else str(first) for first, last in conflicts)
        return f"line{'' if told.isdecimal() else 's'} {told}"

    def their_difference(self) -> list[Row]:
        return difference(self.base or "", self.theirs)

    def my_difference(self) -> list[Row]:
        base = self.base or ""
        return difference(base, as_stored(self.mine, base))

    def merged_difference(self) -> list[Row]:
        """What the merged text changes in theirs."""
        return difference(self.theirs, as_stored(self.suggestion, self.theirs))

    def replacing_difference(self) -> list[Row]:
        """What mine, alone, changes in theirs."""
        return difference(self.theirs, as_stored(self.mine, self.theirs))


def shown_of(row: DeviceConfig) -> str:
    """What a page says of the row that it has shown: the entity tag of its text, and the key of its type."""
    return f"{row.etag} {row.type_id or 0}"


def _find(versions: Any, shown: str) -> Any:
    """The newest of the versions whose text a page has shown; None where it is not among them."""
    texts = versions.exclude(history_type="-").order_by("-history_id")[:MOST_VERSIONS].iterator(chunk_size=10)
    sha256 = shown.partition(" ")[0].strip('"')
    return next((each for each in texts if hashlib.sha256(each.content.encode()).hexdigest() == sha256), None)
