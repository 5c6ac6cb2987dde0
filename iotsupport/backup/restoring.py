"""An archive becomes an installation: first bytes, which harm nobody; then all rows at once; then what follows them.

Killed before the rows are committed, it leaves what was there before, and bytes that the next start removes. Killed
afterwards, all rows are the new ones; the next start makes the files equal to them, and announces none of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.core.management.sql import emit_post_migrate_signal
from django.db import DEFAULT_DB_ALIAS, connection, transaction
from django.utils import timezone

from iotsupport.backup import following
from iotsupport.backup.archive import BLOBS, Watch
from iotsupport.backup.beginning import all_models, is_migrated, require_empty
from iotsupport.backup.checking import Checked
from iotsupport.backup.kept import KeptBytes, kept_bytes
from iotsupport.backup.models import BackupRecord
from iotsupport.backup.tables import Row, Table, migrations_here, tables_of
from iotsupport.backup.upgrading import Source, rows_of_today
from iotsupport.mirror.after_commit import Change, make_all_equal, make_equal
from iotsupport.mirror.comparison import reconcile
from iotsupport.mirror.files import MirrorBehindError
from iotsupport.mirror.rows import MirroredModel, mirrored_models
from iotsupport.signals import restored


@dataclass
class Report:
    """What there is to say of a restoration: sentences."""

    remarks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """On files that are not equal to the restored rows yet."""


def restore(checked: Checked, size: int, watch: Watch, *, replace: bool) -> Report:
    """Replace all that is here by what a sound archive of this size has.

    Raises :class:`iotsupport.backup.errors.BackupError`, ``MirrorError``, ``OSError`` and database errors; then all
    rows are what they were.
    """
    if not is_migrated():
        call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
    report, kept = Report(), kept_bytes()
    before = {model: _filenames(model) for model in mirrored_models()}
    restored_as = secrets.token_hex(16)
    try:
        with kept.hold():
            _bring_bytes(checked, kept, watch)
            with rows_of_today(checked, migrations_here()) as source, transaction.atomic():
                if not replace:
                    require_empty()
                _replace_rows(checked, source, watch)
                for sha256 in checked.archive.blobs():
                    kept.share(sha256)
                _finish_rows(checked, size, restored_as, report)
    except BaseException:
        for model in mirrored_models():
            with suppress(Exception):  # else the next start removes what no row names
                model.collect_garbage()
        raise
    _put_secret_key(checked.archive.secret_key(), report)
    _follow(before, report)
    if not report.failures:
        following.note_followed(restored_as)
    return report


def _filenames(model: type[MirroredModel]) -> set[str]:
    names = model._base_manager.order_by().values_list(model.name_field, flat=True)
    return {model.filename_of(name) for name in names.iterator()}


def _bring_bytes(checked: Checked, kept: KeptBytes, watch: Watch) -> None:
    blobs = checked.archive.blobs()
    show = watch(len(blobs))
    for done, sha256 in enumerate(blobs, 1):
        kept.keep(sha256, checked.archive.chunks(f"{BLOBS}{sha256}"))
        show(done)


def _replace_rows(checked: Checked, source: Source, watch: Watch) -> None:
    """References are looked at when the transaction ends, so that the order of the tables does not matter."""
    tables = checked.archive.manifest.tables
    total, done = sum(rows.count for rows in tables), 0
    show = watch(total)
    last_keys = {rows.label: rows.last_key for rows in tables}

    def shown(rows: Iterator[Row]) -> Iterator[Row]:
        for number, row in enumerate(rows, done + 1):
            yield row
            show(min(number, total))  # of an earlier version, there may be more by now

    for model in all_models():
        Table(model).clear(DEFAULT_DB_ALIAS)
    for label, table in tables_of(migrations_here()).items():
        done += table.insert(DEFAULT_DB_ALIAS, shown(source(label)))
        table.set_last_key(DEFAULT_DB_ALIAS, last_keys.get(label, 0))


def _finish_rows(checked: Checked, size: int, restored_as: str, report: Report) -> None:
    """What follows from the rows, in their transaction."""
    ContentType.objects.clear_cache()
    # Permissions of what an earlier version did not have.
    emit_post_migrate_signal(verbosity=0, interactive=False, db=DEFAULT_DB_ALIAS)
    remarks = [remark for _, remark in restored.send(sender=BackupRecord)]
    report.remarks += [str(remark) for remark in remarks if remark]
    BackupRecord.objects.note(
        made_at=checked.archive.manifest.made_at, size=size, restored_as=restored_as, restored_at=timezone.now()
    )
    connection.check_constraints()


def _put_secret_key(key: str, report: Report) -> None:
    """Nothing that is restored depends on it: sessions, which do, are not."""
    path = Path(settings.DATA_DIR, "secret_key")
    if key == settings.SECRET_KEY:
        return
    if not path.exists() or path.read_text(errors="replace") != settings.SECRET_KEY:
        report.remarks.append("SECRET_KEY is set in the environment, and stays: the backup has another one.")
        return
    following.replace_private(path, key)


def _follow(before: dict[type[MirroredModel], set[str]], report: Report) -> None:
    """Make all files equal to the rows, and announce none. Those of rows that were replaced go."""
    for model, names in before.items():
        gone = [Change(model, name, DEFAULT_DB_ALIAS) for name in sorted(names - _filenames(model))]
        try:
            make_all_equal(gone)
        except MirrorBehindError as error:
            report.failures.append(str(error))
        report.failures += reconcile(model, DEFAULT_DB_ALIAS, write=make_equal).failed
