"""A zip of configurations that somebody sent: looked at, and taken over member by member."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import IO

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from devices.fields import normalise_mac_address
from devices.limits import MAY_ADD, MAY_CHANGE
from devices.models import DeviceType
from devices.parsing import decode_config
from devices.transfer.importing import Incoming, Judged, Types, judge
from devices.transfer.types import DIRECTORY, LIST, compare_type, read_list, read_type
from devices.writing import KEEP, TOGETHER, Outcome
from iotsupport.transfer.unzipping import RefusedZip, Unzipped, open_zip

MAY_ADD_TYPES = "devices.add_devicetype"

# Of a type's file: what the API takes of one, and of the list of types.
TYPE_MAX_BYTES = 1024 * 1024
LIST_MAX_BYTES = 16 * 1024 * 1024


@dataclass
class Report:
    """What an import would do: MAC addresses, and of what is refused the name and a sentence."""

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    new_types: list[str] = field(default_factory=list)

    def note(self, mac_address: str, judged: Judged) -> None:
        if judged.outcome is Outcome.REFUSED:
            self.refused.append((f"{mac_address}.json", judged.reason))
        else:
            words = {Outcome.CREATED: self.new, Outcome.CHANGED: self.changed, Outcome.UNCHANGED: self.unchanged}
            words[judged.outcome].append(mac_address)


class ConfigsZip:
    """What is in a sound zip. A name that means nothing here is refused; the others are taken all the same."""

    def __init__(self, unzipped: Unzipped) -> None:
        """Raises :class:`RefusedZip`."""
        self._unzipped = unzipped
        self.refused: list[tuple[str, str]] = []
        self.new_types: list[DeviceType] = []
        self._members: dict[str, str] = {}
        self._types: Types | None = None
        types = []
        for name in unzipped.names:
            path = PurePosixPath(name)
            if path.parent == PurePosixPath(DIRECTORY) and path.suffix == ".json":
                types.append(name)
            elif len(path.parts) > 1:
                raise RefusedZip(f"{name[:100]!a} is in a directory. Put the files themselves into the zip.")
            elif name != LIST:
                self._add(name)
        self._read_types(types)

    def _add(self, name: str) -> None:
        path = PurePosixPath(name)
        try:
            if path.suffix != ".json":
                raise ValidationError("It is not called <MAC address>.json. Rename it, or leave it out.")
            mac_address = normalise_mac_address(path.stem)
        except ValidationError as error:
            self.refused.append((name, " ".join(error.messages)))
            return
        if mac_address in self._members:
            other = self._members[mac_address]
            raise RefusedZip(f"{other!a} and {name!a} are for the same device. Leave one of the two out.")
        self._members[mac_address] = name

    def _read_types(self, names: list[str]) -> None:
        known = {each.folded: each for each in DeviceType.objects.all()}
        for name in names:
            try:
                incoming = read_type(self._unzipped.read(name, TYPE_MAX_BYTES))
                taken = compare_type(incoming, known.get(incoming.folded))
                if taken.reason:
                    raise ValidationError(taken.reason)
            except RefusedZip:
                raise
            except ValidationError as error:
                self.refused.append((name, " ".join(error.messages)))
                continue
            if taken.outcome == "taken":
                self.new_types.append(incoming)
            known.setdefault(incoming.folded, incoming)
        if LIST in self._unzipped.names:
            try:
                self._types = Types(read_list(self._unzipped.read(LIST, LIST_MAX_BYTES)), known.values())
            except RefusedZip:
                raise
            except ValidationError as error:
                self.refused.append((LIST, " ".join(error.messages)))

    def report(self, user: User) -> Report:
        """Say what would become of each, for somebody who may perhaps not do all of it. Raises :class:`RefusedZip`."""
        report = Report(refused=list(self.refused), new_types=[each.name for each in self.new_types])
        report.refused += types_not_allowed(self, user)
        addresses = iter(sorted(self._members))
        while some := list(islice(addresses, TOGETHER)):
            incoming = {}
            for mac_address in some:
                try:
                    device_type = KEEP if self._types is None else self._types.of(mac_address)
                    incoming[mac_address] = Incoming(self.text_of(mac_address), device_type)
                except RefusedZip:
                    raise
                except ValidationError as error:
                    report.refused.append((self._members[mac_address], " ".join(error.messages)))
            for mac_address, judged in judge(incoming).items():
                report.note(mac_address, _as_user_may(judged, user))
        return report

    def readable(self) -> list[str]:
        """The MAC addresses of those whose text can be read; all others are refused. Raises :class:`RefusedZip`."""
        found = []
        for mac_address, name in sorted(self._members.items()):
            try:
                self.text_of(mac_address)
                found.append(mac_address)
            except RefusedZip:
                raise
            except ValidationError as error:
                self.refused.append((name, " ".join(error.messages)))
        return found

    def text_of(self, mac_address: str) -> str:
        """What this device is to have. Raises ``ValidationError``, and :class:`RefusedZip` for the zip as a whole."""
        return decode_config(self._unzipped.read(self._members[mac_address], settings.CONFIG_MAX_BYTES))

    def type_name_of(self, mac_address: str) -> str | None:
        """The name of the type that this device is to have; None where nothing is said of it."""
        return None if self._types is None else self._types.name_of(mac_address)


def types_not_allowed(zipped: ConfigsZip, user: User) -> list[tuple[str, str]]:
    """New types that this user may not add, each with a sentence."""
    if user.has_perm(MAY_ADD_TYPES):
        return []
    message = "You may not add types. Have somebody add it who may, or leave it out."
    return [(f"{DIRECTORY}/{each.name}.json", message) for each in zipped.new_types]


def _as_user_may(judged: Judged, user: User) -> Judged:
    needed = {Outcome.CREATED: (MAY_ADD, "add"), Outcome.CHANGED: (MAY_CHANGE, "change")}
    if judged.outcome not in needed or user.has_perm(needed[judged.outcome][0]):
        return judged
    verb = needed[judged.outcome][1]
    return Judged(Outcome.REFUSED, f"{user} may not {verb} configurations. Ask an administrator for it.")


@contextmanager
def open_configs(file: IO[bytes]) -> Iterator[ConfigsZip]:
    """Raises :class:`RefusedZip`."""
    with open_zip(file) as unzipped:
        yield ConfigsZip(unzipped)
