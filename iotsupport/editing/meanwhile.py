"""What others did to a row while somebody was editing it: who, when, and by which way."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from iotsupport.editing.origins import Way

# Newer ones are told; an edit that began before as many others is rare.
MOST_CHANGES = 20

WAYS = {
    Way.ADMIN: "in the admin",
    Way.API: "by the API",
    Way.COMMAND: "by a command",
    Way.BULK: "by a change of many",
}
DID = {"+": "added", "~": "changed", "-": "deleted"}


class Change(NamedTuple):
    """One version of a row, told. ``way`` is empty where that was not kept."""

    who: str
    did: str
    way: str
    moment: datetime
    reason: str


def changes_after(versions: Any, version: Any) -> list[Change]:
    """Return what came after a version, newest first; ``versions`` has all of one name. Of None, the last one."""
    later = versions.order_by("-history_id").select_related("history_user")
    later = later[:1] if version is None else later.filter(history_id__gt=version.history_id)[:MOST_CHANGES]
    return [_told(each) for each in later]


def _told(version: Any) -> Change:
    way = WAYS.get(version.history_way, "")
    if version.history_token:
        way = f"{way} (token “{version.history_token}”)"
    who = str(version.history_user or "Somebody else")
    return Change(who, DID[version.history_type], way, version.history_date, version.history_change_reason or "")
