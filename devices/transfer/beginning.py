"""An import begins as a change of many: planned, looked at and applied as any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from devices.changes.models import Change, Kind
from devices.changes.planning import begin
from devices.transfer.zips import MAY_ADD_TYPES, ConfigsZip, types_not_allowed
from iotsupport.editing import origins
from iotsupport.errors import ApiError


class Begun(NamedTuple):
    change: Change
    left_out: list[tuple[str, str]]
    """Names of the zip's files, each with a sentence."""


class _Given(Mapping[str, Any]):
    """What each device is to have, read from the zip when it is asked for: together they may be larger than memory."""

    def __init__(self, zipped: ConfigsZip, mac_addresses: list[str]) -> None:
        self._zipped, self._mac_addresses = zipped, mac_addresses

    def __getitem__(self, mac_address: str) -> dict[str, Any]:
        text, type_name = self._zipped.text_of(mac_address), self._zipped.type_name_of(mac_address)
        return {"content": text} if type_name is None else {"content": text, "type": type_name}

    def __iter__(self) -> Iterator[str]:
        return iter(self._mac_addresses)

    def __len__(self) -> int:
        return len(self._mac_addresses)


def begin_import(zipped: ConfigsZip, user: User, *, reason: str) -> Change:
    """Have a zip taken over in the background, or nothing of it.

    What would be refused when it is written, stops the change before; then somebody says whether to leave that out.
    Raises 400 where something in the zip cannot be taken at all, and ``ValidationError`` where nothing is in it.
    """
    readable, refused = _sort_out(zipped, user)
    if refused:
        message = f"{len(refused)} of the zip's files cannot be taken, so none is. Correct them, or leave them out."
        raise ApiError(400, "REFUSED_FILES", message, refused=[refused_file(*each) for each in refused])
    _save_types(zipped, user)
    return _begin(zipped, readable, user, chosen_by="a zip", reason=reason, goes_on=True)


def plan_import(zipped: ConfigsZip, user: User, *, name: str, reason: str) -> Begun:
    """Plan what a zip would change. New types are saved at once. Raises ``ValidationError`` where nothing is in it."""
    readable, refused = _sort_out(zipped, user)
    if not readable:
        raise ValidationError("No configuration in the zip can be read. " + ": ".join(refused[0]))
    if user.has_perm(MAY_ADD_TYPES):
        _save_types(zipped, user)
    return Begun(_begin(zipped, readable, user, chosen_by=f"the zip {name}", reason=reason), refused)


def refused_file(name: str, reason: str) -> dict[str, str]:
    return {"name": name, "reason": reason}


def _sort_out(zipped: ConfigsZip, user: User) -> tuple[list[str], list[tuple[str, str]]]:
    """The MAC addresses of those that can be read, and what is refused."""
    readable = zipped.readable()
    refused = [*zipped.refused, *types_not_allowed(zipped, user)]
    if not readable and not refused:
        raise ValidationError("No configuration is in the zip.", code="NOTHING_FOUND")
    return readable, refused


def _save_types(zipped: ConfigsZip, user: User) -> None:
    for each in zipped.new_types:
        each.updated_by = user
        each.save()


def _begin(zipped: ConfigsZip, mac_addresses: list[str], user: User, **fields: Any) -> Change:
    given = _Given(zipped, mac_addresses)
    return begin(given, kind=Kind.IMPORT, created_by=user, token=origins.current().token, **fields)
