"""Configurations come in from outside: compared with what there is, and written together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError

from devices.fields import normalise_mac_address
from devices.models import DeviceConfig, DeviceType
from devices.parsing import decode_config
from devices.writing import KEEP, Keep, Outcome, Write, write_many
from iotsupport.characters import fold
from iotsupport.management.importing import Taken, refused
from iotsupport.mirror.files import MirrorError

# How often something is written anew that somebody else saves at each of these moments.
TRIES = 3

WORDS = {Outcome.CREATED: "taken", Outcome.CHANGED: "replaced", Outcome.UNCHANGED: "unchanged"}


class Incoming(NamedTuple):
    """What the configuration of one device is to be."""

    content: str
    type: DeviceType | Keep | None = KEEP


class Judged(NamedTuple):
    """What would become of it now, and what there is."""

    outcome: Outcome
    reason: str = ""
    row: DeviceConfig | None = None


class Types:
    """Types by the devices that have them: those that are there, and those that are about to be."""

    def __init__(self, names: Mapping[str, str], types: Iterable[DeviceType]) -> None:
        """``names`` has the name of each device's type. Raises ``ValidationError`` for what is no MAC address."""
        self._names = {normalise_mac_address(mac_address): name for mac_address, name in names.items()}
        self._types = {each.folded: each for each in types}

    def name_of(self, mac_address: str) -> str | None:
        """None where nothing is said of it."""
        return self._names.get(mac_address)

    def of(self, mac_address: str) -> DeviceType | Keep:
        """Raises ``ValidationError`` where there is no type of the name."""
        name = self.name_of(mac_address)
        if name is None:
            return KEEP
        if fold(name) not in self._types:
            raise ValidationError(f"There is no type “{name}”. Add it first, or leave it out of types.json.")
        return self._types[fold(name)]


def judge(incoming: Mapping[str, Incoming], *, is_written: bool = False) -> dict[str, Judged]:
    """Say what would become of these MAC addresses' configurations now. Nothing is changed.

    Those that are written next are checked then.
    """
    rows = DeviceConfig.objects.select_related("type").filter(mac_address__in=incoming)
    present = {row.mac_address: row for row in rows}
    return {
        mac_address: _judge(mac_address, each, present.get(mac_address), is_written)
        for mac_address, each in incoming.items()
    }


def _judge(mac_address: str, incoming: Incoming, row: DeviceConfig | None, is_written: bool) -> Judged:
    kept = None if row is None else row.type
    device_type = kept if isinstance(incoming.type, Keep) else incoming.type
    candidate = DeviceConfig(mac_address=mac_address, content=incoming.content, type=device_type)
    is_same = row is not None and row.content == incoming.content and kept == device_type
    try:
        if is_same:
            candidate.read_content()  # that it does not fit its type, is marked already
        elif not is_written:
            candidate.clean()
    except ValidationError as error:
        return Judged(Outcome.REFUSED, " ".join(error.messages), row)
    return Judged(Outcome.UNCHANGED if is_same else Outcome.CREATED if row is None else Outcome.CHANGED, "", row)


# --- Files -------------------------------------------------------------------------------------------------------


class File(NamedTuple):
    mac_address: str
    incoming: Incoming


def take_files(paths: Sequence[Path], types: Types | None = None, *, dry_run: bool) -> list[Taken]:
    """Take over ``<mac>.json`` files of different devices; return what became of each."""
    read = [_read(path, types) for path in paths]
    files = [each for each in read if isinstance(each, File)]
    taken = _take({file.mac_address: file.incoming for file in files}, dry_run=dry_run)
    return [taken[each.mac_address] if isinstance(each, File) else each for each in read]


def _read(path: Path, types: Types | None) -> File | Taken:
    try:
        if path.suffix != ".json":
            raise ValidationError("It is not called <MAC address>.json. Rename it, or leave it out.")
        mac_address = normalise_mac_address(path.stem)
        if path.stat().st_size > settings.CONFIG_MAX_BYTES:
            # Not read at all: it may be of any size.
            raise ValidationError(
                f"It is larger than {settings.CONFIG_MAX_BYTES} bytes. Shorten it, or raise CONFIG_MAX_BYTES."
            )
        content = decode_config(path.read_bytes())
        return File(mac_address, Incoming(content, KEEP if types is None else types.of(mac_address)))
    except (ValidationError, OSError) as error:
        return refused(error)


def _take(incoming: Mapping[str, Incoming], *, dry_run: bool) -> dict[str, Taken]:
    taken: dict[str, Taken] = {}
    for _ in range(TRIES):
        left = {mac_address: each for mac_address, each in incoming.items() if mac_address not in taken}
        if not left:
            break
        writes = []
        for mac_address, (outcome, reason, row) in judge(left, is_written=not dry_run).items():
            if outcome is Outcome.REFUSED:
                taken[mac_address] = Taken("refused", reason)
            elif dry_run or outcome is Outcome.UNCHANGED:
                taken[mac_address] = Taken(WORDS[outcome])
            else:
                before = None if row is None else row.content_sha256
                writes.append(Write(mac_address, before, left[mac_address].content, left[mac_address].type))
        taken |= _write(writes) if writes else {}
    busy = Taken("refused", "It is changed again and again meanwhile. Run this again.")
    return dict.fromkeys(incoming, busy) | taken


def _write(writes: list[Write]) -> dict[str, Taken]:
    """Of what was changed by somebody else in between, nothing is said."""
    try:
        written = write_many(writes)
    except MirrorError as error:
        return {write.mac_address: refused(error) for write in writes}
    return {
        each.mac_address: Taken("refused", each.reason) if each.reason else Taken(WORDS[each.outcome])
        for each in written
        if each.outcome is not Outcome.SKIPPED
    }
