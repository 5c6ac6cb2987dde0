"""Looks at all configurations of a type, a few at a time: which of them a new schema refuses, and to mark those.

Who does it can be killed at any moment: how far it is stands in the row of the draft, or of the type, and is written in
the transaction that writes what was found.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from django.db import transaction

from devices.models import DeviceConfig, DeviceType, SchemaDraft
from devices.schemas import SchemaError, errors_of

# One step takes no longer than this, or so many rows.
STEP_SECONDS = 0.2
STEP_ROWS = 200

# So many are looked at while somebody waits for the answer.
FEW = 200

# Of what does not fit, so many are named to whoever saves a schema.
MOST_NAMED = 100


class Judged(NamedTuple):
    pk: int
    mac_address: str
    content: str
    errors: list[SchemaError]


def is_wanted() -> bool:
    """Whether there is something to do."""
    return (
        SchemaDraft.objects.filter(tried_after__isnull=False).exists()
        or DeviceType.objects.filter(marks_after__isnull=False).exists()
    )


def step() -> bool:
    """Do a little of what there is to do; return whether there was anything."""
    draft = SchemaDraft.objects.filter(tried_after__isnull=False).first()
    if draft is not None:
        try_some(draft)
        return True
    device_type = DeviceType.objects.filter(marks_after__isnull=False).order_by("pk").first()
    if device_type is not None:
        mark_some(device_type)
        return True
    return False


def finish_draft(draft: SchemaDraft) -> None:
    """Look at all configurations at once: they are few."""
    while (current := SchemaDraft.objects.filter(pk=draft.pk, tried_after__isnull=False).first()) is not None:
        try_some(current)


def finish(device_type: DeviceType) -> None:
    """Mark all configurations of a type whose schema was saved, where they are few; else a thread does it."""
    if device_type.configs.all()[: FEW + 1].count() > FEW:
        return
    while (current := DeviceType.objects.filter(pk=device_type.pk, marks_after__isnull=False).first()) is not None:
        mark_some(current)


def try_some(draft: SchemaDraft) -> None:
    """Look at some configurations more, and note which would not fit."""
    judged = list(_judge(draft.type_id, draft.schema, draft.tried_after or 0))
    with transaction.atomic():
        current = SchemaDraft.objects.select_for_update().filter(pk=draft.pk).first()
        if current is None or current.tried_after != draft.tried_after:
            return  # somebody else did it, or it is not wanted any more
        misfits = [each for each in judged if each.errors]
        slow = next((each for each in misfits if each.errors[0].is_too_much_work), None)
        if slow is not None:
            current.trouble = f"{slow.mac_address} {slow.errors[0].message}."
        current.tried += len(judged)
        current.misfits += len(misfits)
        named = [[each.pk, each.mac_address, each.errors[0].sentence] for each in misfits]
        current.found = [*current.found, *named][:MOST_NAMED]
        current.tried_after = judged[-1].pk if judged and slow is None else None
        current.save()


def mark_some(device_type: DeviceType) -> None:
    """Mark some configurations more that do not fit, and take the mark from those that do."""
    judged = list(_judge(device_type.pk, device_type.schema, device_type.marks_after or 0))
    with transaction.atomic():
        # Configurations that get this type meanwhile refer to it, and need not wait.
        current = DeviceType.objects.select_for_update(no_key=True).filter(pk=device_type.pk).first()
        if current is None or current.marks_after != device_type.marks_after or current.schema != device_type.schema:
            return
        _mark(device_type, judged)
        current.marks_after = judged[-1].pk if judged else None
        DeviceType.objects.filter(pk=current.pk).update(marks_after=current.marks_after)  # no version of its own


def _mark(device_type: DeviceType, judged: list[Judged]) -> None:
    # Who is saving one of them, and began under the schema from before, is waited for.
    rows = DeviceConfig.objects.filter(pk__in=[each.pk for each in judged], type=device_type)
    locked = rows.select_for_update().order_by("mac_address")
    now = {pk: (content, fits) for pk, content, fits in locked.values_list("pk", "content", "fits")}
    changed: dict[bool, list[int]] = {True: [], False: []}
    for each in judged:
        if each.pk not in now:
            continue
        content, marked = now[each.pk]
        errors = each.errors if content == each.content else errors_of(device_type.schema, content)
        if marked is not (not errors):
            changed[not errors].append(each.pk)
    for fits, pks in changed.items():
        if pks:
            DeviceConfig.objects.filter(pk__in=pks).update(fits=fits)


def _judge(type_id: int, schema: str, after: int) -> Iterator[Judged]:
    """Yield the next configurations of a type, with what does not fit: none where there are no more."""
    until = time.monotonic() + STEP_SECONDS
    rows = DeviceConfig.objects.filter(type_id=type_id, pk__gt=after).order_by("pk")
    for pk, mac_address, content in rows.values_list("pk", "mac_address", "content")[:STEP_ROWS]:
        yield Judged(pk, mac_address, content, errors_of(schema, content))
        if time.monotonic() > until:
            return
