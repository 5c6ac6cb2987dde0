"""Many configurations are written in one transaction, as saves of each would: by imports and by changes of many.

What a save does for one (see :mod:`iotsupport.mirror.rows` and ``devices/receivers.py``) is done here for all together:
texts are parsed and staged ahead of the transaction, then rows, versions, boards, outbox and mirror follow in a few
statements. Neither ``save()`` nor its signals are called; ``saved_together`` is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.utils import timezone

from devices.models import DeviceConfig, DeviceType, DoesNotFit
from devices.parsing import parse_config
from iotsupport import audit
from iotsupport.boards.configurations import note_saved_together
from iotsupport.bulk import bulk_change
from iotsupport.editing import origins
from iotsupport.mirror.after_commit import mirror_saved_together
from iotsupport.mirror.files import MirrorBehindError, StagedFile, mirror_storage
from iotsupport.mirror.together import stage_together
from iotsupport.signals import saved_together

# So many at a time. Each has a file open until it is in place; and on SQLite nobody else saves while they are written.
TOGETHER = 200


class Keep(Enum):
    KEEP = "The type stays as it is; a new row has none."


KEEP: Final = Keep.KEEP


@dataclass(frozen=True, slots=True)
class Write:
    """What is to become of one configuration."""

    mac_address: str
    """As rows have it."""
    before: str | None
    """SHA-256 of the text that is expected there, in hexadecimal; None where there must be no row yet."""
    content: str
    type: DeviceType | Keep | None = KEEP
    """None takes the type away."""
    before_type: int | Keep | None = KEEP
    """Primary key of the type that is expected there, None for no type; ``KEEP`` where it does not matter."""


class Outcome(StrEnum):
    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    """Somebody else saved or deleted it meanwhile."""
    REFUSED = "refused"
    BEHIND = "behind"
    """It is saved, but its file is not up to date."""

    @property
    def is_saved(self) -> bool:
        return self in {Outcome.CREATED, Outcome.CHANGED, Outcome.BEHIND}


@dataclass(slots=True)
class Written:
    """What became of it."""

    mac_address: str
    outcome: Outcome
    reason: str = ""
    """A sentence, where it was skipped or refused, or its file is behind."""
    version: int | None = None
    """The primary key of the version that was written."""


Note = Callable[[list[Written]], Any]


def write_many(writes: Sequence[Write], note: Note | None = None) -> list[Written]:
    """Write at most :data:`TOGETHER` configurations, of as many devices; return what became of each, in their order.

    One that is refused keeps none of the others back. ``note`` is called with the outcomes in the transaction: what it
    writes is committed with the rows, or not at all; whether a file is behind is not known then. Who changes them, by
    which way and why is the :func:`origin <iotsupport.editing.origins.current>`; whether they may is for the caller to
    ask. Raises :class:`MirrorError` where the disk takes nothing: then nothing was changed.
    """
    if len({write.mac_address for write in writes}) < len(writes):
        raise ValueError("Two of these are for the same device.")
    items = [_Item(write) for write in writes]
    _judge_ahead(items)
    new = [item for item in items if item.is_new_text]
    files = stage_together(mirror_storage("configs"), [[item.write.content.encode()] for item in new])
    for item, file in zip(new, files, strict=True):
        item.staged = file
    try:
        with bulk_change(), transaction.atomic():
            _write(items)
            if note is not None:
                note([item.written for item in items])
    except MirrorBehindError as error:
        for item in items:
            if sentence := error.sentences.get(DeviceConfig.filename_of(item.write.mac_address)):
                item.written.outcome, item.written.reason = Outcome.BEHIND, sentence
    except BaseException:
        for file in files:
            file.close()
        raise
    finally:
        for item in items:
            if item.staged is not None:
                item.staged.close()
    return [item.written for item in items]


class _Item:
    """One of them, on its way: parsed as it is made."""

    staged: StagedFile | None = None
    """Until the mirror has it."""
    candidate: DeviceConfig
    """What the row would be, as far as it is known before it is locked: its type judged this text."""
    row: DeviceConfig

    def __init__(self, write: Write) -> None:
        self.write = write
        self.written = Written(write.mac_address, Outcome.UNCHANGED)
        self.is_new_text = hashlib.sha256(write.content.encode(errors="surrogatepass")).hexdigest() != write.before
        if self.is_new_text:
            try:
                self.config = parse_config(write.content)
            except ValidationError as error:
                self.refuse(error)

    def refuse(self, error: ValidationError) -> None:
        self.conclude(Outcome.REFUSED, " ".join(error.messages))
        self.is_new_text = False

    def conclude(self, outcome: Outcome, reason: str = "") -> None:
        self.written.outcome, self.written.reason = outcome, reason

    def judge(self, row: DeviceConfig | None) -> None:
        """By the row that is locked now: whether it is what was expected, and so is written."""
        before = self.write.before
        if row is None and before is not None:
            self.conclude(Outcome.SKIPPED, "It was deleted meanwhile.")
        elif row is not None and before is None:
            self.conclude(Outcome.SKIPPED, "It was created meanwhile.")
        elif row is not None and row.content_sha256 != before:
            self.conclude(Outcome.SKIPPED, "It was changed meanwhile.")
        elif row is not None and not self._is_of_type(row) and self.write.before_type not in (KEEP, row.type_id):
            self.conclude(Outcome.SKIPPED, "It was given another type meanwhile.")
        elif self.is_new_text or not self._is_of_type(row):
            self.conclude(Outcome.CREATED if row is None else Outcome.CHANGED)
            self._change(row or DeviceConfig(mac_address=self.write.mac_address))

    def _is_of_type(self, row: DeviceConfig | None) -> bool:
        type_ = self.write.type
        return type_ is KEEP or row is None or row.type_id == (type_ and type_.pk)

    def _change(self, row: DeviceConfig) -> None:
        if self.is_new_text:
            row.content = self.write.content
            row.read_content(self.config)
        if self.write.type is not KEEP:
            row.type = self.write.type
        row.take_judgement(self.candidate)
        try:
            row.judge_fit()
        except DoesNotFit as error:
            self.refuse(error)
            return
        row.updated_by = origins.current().person
        self.row = row


def _judge_ahead(items: list[_Item]) -> None:
    """Let types judge texts now: while the rows are locked, nobody else can save."""
    addresses = [item.write.mac_address for item in items if item.write.type is KEEP]
    rows = DeviceConfig.objects.filter(mac_address__in=addresses).exclude(type=None)
    types = DeviceType.objects.in_bulk(set(rows.values_list("type", flat=True)))
    kept = {mac_address: types.get(pk) for mac_address, pk in rows.values_list("mac_address", "type")}
    for item in items:
        write = item.write
        type_ = kept.get(write.mac_address) if write.type is KEEP else write.type
        item.candidate = DeviceConfig(mac_address=write.mac_address, content=write.content, type=type_)
        if item.is_new_text or write.type is not KEEP:
            try:
                item.candidate.judge_fit()
            except DoesNotFit as error:
                item.refuse(error)


def _write(items: list[_Item]) -> None:
    """Call it in the transaction."""
    asked = {item.write.mac_address: item for item in items if item.written.outcome is not Outcome.REFUSED}
    new = [mac_address for mac_address, item in asked.items() if item.write.before is None]
    rows = DeviceConfig.objects.lock_together(asked.keys(), new)
    types = DeviceType.objects.in_bulk({row.type_id for row in rows.values() if row.type_id is not None})
    for mac_address, item in asked.items():
        row = rows.get(mac_address)
        if row is not None and row.type_id is not None:
            row.type = types[row.type_id]  # one for all, and as it is now
        item.judge(row)
    saved = [item for item in asked.values() if item.written.outcome.is_saved]
    if not saved:
        return
    created = [item for item in saved if item.written.outcome is Outcome.CREATED]
    changed = [item for item in saved if item.written.outcome is Outcome.CHANGED]
    _save(created, is_update=False)
    _save(changed, is_update=True)
    audit.tell("saved together", "devices.deviceconfig", created=len(created), changed=len(changed))
    staged = {item.row.filename: item.staged for item in saved if item.staged is not None}
    sha256s = {item.row.mac_address: item.staged.sha256 for item in saved if item.staged is not None}
    for item in saved:
        item.staged = None
    if staged:
        mirror_saved_together(DeviceConfig, staged, DEFAULT_DB_ALIAS)
        note_saved_together(sha256s, DEFAULT_DB_ALIAS)
        saved_together.send(DeviceConfig, filenames=list(staged), using=DEFAULT_DB_ALIAS)


def _save(items: list[_Item], *, is_update: bool) -> None:
    """The rows of these, and a version of each. A query set would take several times as long, and hold up who saves."""
    if not items:
        return
    connection, meta = connections[DEFAULT_DB_ALIAS], DeviceConfig._meta
    fields = [field for field in meta.concrete_fields if not field.primary_key]
    columns = [connection.ops.quote_name(str(field.column)) for field in fields]
    values = [
        [field.get_db_prep_save(field.pre_save(item.row, not is_update), connection) for field in fields]
        for item in items
    ]
    with connection.cursor() as cursor:
        if is_update:
            sets = ", ".join(f"{column} = %s" for column in columns)
            pks = [item.row.pk for item in items]
            cursor.executemany(
                f"UPDATE {meta.db_table} SET {sets} WHERE id = %s",  # noqa: S608
                [[*each, pk] for each, pk in zip(values, pks, strict=True)],
            )
        else:
            marks = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"INSERT INTO {meta.db_table} ({', '.join(columns)}) VALUES ({marks})", values)  # noqa: S608
    _keep_versions(items, "~" if is_update else "+")


def _keep_versions(items: list[_Item], history_type: str) -> None:
    """Copy rows as they are now to the history."""
    connection, history = connections[DEFAULT_DB_ALIAS], DeviceConfig.history.model
    origin = origins.current()
    about = history(
        history_date=timezone.now(),
        history_type=history_type,
        history_user=origin.person,
        history_change_reason=origin.reason or None,
    )
    tracked = {field.attname for field in history.tracked_fields}
    copied = [field for field in history._meta.concrete_fields if field.attname in tracked]
    others = [field for field in history._meta.concrete_fields if not field.primary_key and field not in copied]
    columns = [connection.ops.quote_name(field.column) for field in [*copied, *others]]
    marks = ", ".join(["%s"] * len(items))
    addresses = [item.row.mac_address for item in items]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {history._meta.db_table} ({', '.join(columns)})"  # noqa: S608
            f" SELECT {', '.join(columns[: len(copied)] + ['%s'] * len(others))}"
            f" FROM {DeviceConfig._meta.db_table} WHERE mac_address IN ({marks}) ORDER BY mac_address",
            [*(field.get_db_prep_save(getattr(about, field.attname), connection) for field in others), *addresses],
        )
        cursor.execute(
            f"SELECT mac_address, MAX(history_id) FROM {history._meta.db_table}"  # noqa: S608
            f" WHERE mac_address IN ({marks}) GROUP BY mac_address",
            addresses,
        )
        versions = dict(cursor.fetchall())
    for item in items:
        item.written.version = versions[item.row.mac_address]
