"""Configurations come in from files: read, compared with what there is, and written together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError

from devices.fields import normalise_mac_address
from devices.models import DeviceConfig
from devices.parsing import decode_config, parse_config
from devices.writing import Outcome, Write, write_many
from iotsupport.management.importing import Taken, refused
from iotsupport.mirror.files import MirrorError

# How often something is written anew that somebody else saves at each of these moments.
TRIES = 3

TAKEN = {Outcome.CREATED: "taken", Outcome.CHANGED: "replaced"}


class File(NamedTuple):
    mac_address: str
    content: str


def take_files(paths: Sequence[Path], *, dry_run: bool) -> list[Taken]:
    """Take over ``<mac>.json`` files of different devices; return what became of each."""
    read = [_read(path) for path in paths]
    files = [each for each in read if isinstance(each, File)]
    taken = _take({file.mac_address: file.content for file in files}, dry_run=dry_run)
    return [taken[each.mac_address] if isinstance(each, File) else each for each in read]


def _read(path: Path) -> File | Taken:
    try:
        if path.suffix != ".json":
            raise ValidationError("It is not called <MAC address>.json. Rename it, or leave it out.")
        mac_address = normalise_mac_address(path.stem)
        if path.stat().st_size > settings.CONFIG_MAX_BYTES:
            # Not read at all: it may be of any size.
            raise ValidationError(
                f"It is larger than {settings.CONFIG_MAX_BYTES} bytes. Shorten it, or raise CONFIG_MAX_BYTES."
            )
        return File(mac_address, decode_config(path.read_bytes()))
    except (ValidationError, OSError) as error:
        return refused(error)


def _take(texts: Mapping[str, str], *, dry_run: bool) -> dict[str, Taken]:
    """What becomes of the texts that these MAC addresses are to have."""
    taken: dict[str, Taken] = {}
    for _ in range(TRIES):
        left = {mac_address: text for mac_address, text in texts.items() if mac_address not in taken}
        if not left:
            break
        rows = DeviceConfig.objects.filter(mac_address__in=list(left)).values_list("mac_address", "content")
        present = dict(rows)
        writes = []
        for mac_address, text in left.items():
            before = present.get(mac_address)
            if dry_run or before == text:
                taken[mac_address] = _judge(text, before)
            else:
                digest = None if before is None else hashlib.sha256(before.encode()).hexdigest()
                writes.append(Write(mac_address, digest, text))
        taken |= _write(writes) if writes else {}
    busy = Taken("refused", "It is changed again and again meanwhile. Run this again.")
    return dict.fromkeys(texts, busy) | taken


def _judge(text: str, before: str | None) -> Taken:
    try:
        parse_config(text)
    except ValidationError as error:
        return refused(error)
    return Taken("taken" if before is None else "unchanged" if before == text else "replaced")


def _write(writes: list[Write]) -> dict[str, Taken]:
    """Of what was changed by somebody else in between, nothing is said."""
    try:
        written = write_many(writes)
    except MirrorError as error:
        return {write.mac_address: refused(error) for write in writes}
    return {
        each.mac_address: Taken("refused", each.reason) if each.reason else Taken(TAKEN[each.outcome])
        for each in written
        if each.outcome is not Outcome.SKIPPED
    }
