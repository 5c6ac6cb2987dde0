"""After a commit, the files that it changed are made equal to their rows: all together, then what waited for them."""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from django.db import DatabaseError, connections, transaction
from django.dispatch import Signal

from iotsupport.mirror.files import LOCK_POLL_SECONDS, MirrorBehindError, MirrorError, StagedFile
from iotsupport.mirror.rows import MirroredModel

logger = logging.getLogger(__name__)

# The transaction that is open changes a file, or removes it. Sent by its model, with ``filename`` and ``using``.
changed = Signal()

# So many names are asked for in one query.
TOGETHER = 100
# How long many files may keep a directory locked; then whoever waits for it has time to look.
HOLD_SECONDS = 0.05
PAUSE_SECONDS = 3 * LOCK_POLL_SECONDS


@dataclass(eq=False)
class Change:
    """A file that a transaction changes, and what is to be done when it is in place."""

    model: type[MirroredModel]
    filename: str
    using: str
    staged: StagedFile | None = None
    """Used if these are still the row's bytes."""
    calls: list[Callable[[], Any]] = field(default_factory=list)
    error: Exception | None = None
    is_settled: bool = False

    def settle(self) -> None:
        """After the commit: the first of a transaction settles all of it. Raises :class:`MirrorBehindError`."""
        if not self.is_settled:
            noted = _noted.pop(connections[self.using], None)
            others = [change for change in noted.values() if not change.is_settled] if noted is not None else []
            settle_together(list(dict.fromkeys([self, *others])))

    def put_in_place(self, sha256: str | None) -> None:
        """Make the file equal to its row, which has these bytes now; None where there is no row."""
        storage = self.model.storage()
        if self.staged is not None and self.staged.sha256 == sha256:
            storage.put(self.staged, self.filename)
        elif sha256 is None:
            storage.delete(self.filename)
            self.calls.clear()  # there is nothing to download
        elif not storage.matches(self.filename, sha256):
            row = self.model.with_filename(self.filename, self.using)
            if row is not None:  # else deleted meanwhile: whoever did that waits for the lock
                storage.put(row.stage(), self.filename)


# The changes of the transaction that each connection has open. Only ``on_commit`` keeps them: what is rolled back, to a
# savepoint or all of it, is gone from here, too.
_noted: WeakKeyDictionary[Any, WeakValueDictionary[tuple[type, str], Change]] = WeakKeyDictionary()


def mirror_saved(row: MirroredModel, using: str) -> None:
    """Call in ``post_save``: stage the new bytes now, put them in place after the commit.

    Raises :class:`MirrorError` where they cannot be stored, which rolls the save back.
    """
    staged = row.stage()
    filename, old_filename = row.filename, row.known_filename
    _note(Change(type(row), filename, using, staged))
    if old_filename not in {None, filename}:
        _note(Change(type(row), str(old_filename), using))
    row.known_filename = filename


def mirror_deleted(row: MirroredModel, using: str) -> None:
    """Call in ``post_delete``: the file follows after the commit. Raises :class:`MirrorError` where it could not."""
    row.storage().check_writable()
    _note(Change(type(row), row.filename, using))


def call_when_settled(row: MirroredModel, using: str, call: Callable[[], Any]) -> None:
    """Call after the commit, when the row's file is in place; never where it is behind. What ``call`` raises is logged.

    For receivers of signals, after those of the mirror.
    """
    noted = _noted.get(connections[using])
    change = noted.get((type(row), row.filename)) if noted is not None else None
    if change is not None:
        change.calls.append(call)
    else:  # there was no transaction, so it is settled
        transaction.on_commit(call, using=using, robust=True)


def settle(model: type[MirroredModel], filename: str, using: str) -> None:
    """Make one file equal to what its row says now. Raises :class:`MirrorBehindError`."""
    settle_together([Change(model, filename, using)])


def settle_together(changes: list[Change]) -> None:
    """Make files equal to what their rows say now; the last to get here finds the last commit.

    Every one is tried. Raises one :class:`MirrorBehindError` for all that are behind.
    """
    by_model = defaultdict(list)
    for change in changes:
        by_model[change.model].append(change)
    try:
        for group in by_model.values():
            _settle_group(group)
    finally:
        for change in changes:
            change.is_settled = True
            if change.staged is not None:
                change.staged.close()
    for change in changes:
        if change.error is None:
            for call in change.calls:
                transaction.on_commit(call, using=change.using, robust=True)  # at once
    _raise_for([change for change in changes if change.error is not None])


def _note(change: Change) -> None:
    """Settle it after the commit."""
    changed.send(change.model, filename=change.filename, using=change.using)
    _noted.setdefault(connections[change.using], WeakValueDictionary())[change.model, change.filename] = change
    transaction.on_commit(change.settle, using=change.using)


def _settle_group(changes: list[Change]) -> None:
    """Changes of one model and one database."""
    left = deque(changes)
    while left:
        try:
            _settle_some(left)
        except (MirrorError, DatabaseError) as error:  # it would be the same with the others, and take as long
            for change in left:
                change.error = error
            return
        if left:
            time.sleep(PAUSE_SECONDS)


def _settle_some(left: deque[Change]) -> None:
    """Take as many as can be settled while the directory is locked for a short time, from the left."""
    model, using = left[0].model, left[0].using
    storage = model.storage()
    with storage.explained(), storage.lock():
        until = time.monotonic() + HOLD_SECONDS
        some = list(islice(left, TOGETHER))
        saved = model.saved_sha256s([change.filename for change in some], using)
        for change in some:
            try:
                with storage.explained():
                    change.put_in_place(saved.get(change.filename))
            except MirrorError as error:
                change.error = error
            left.popleft()
            if time.monotonic() >= until:
                return


def _raise_for(behind: list[Change]) -> None:
    if not behind:
        return
    first, count = behind[0], len(behind)
    what = f"the file of {first.filename} is" if count == 1 else f"{count} files are"
    which = "" if count == 1 else f" The first is {first.filename}."
    logger.error("%s is saved, but its file is not (files in all: %d): %s", first.filename, count, first.error)
    raise MirrorBehindError(f"The change is saved, but {what} not up to date: {first.error}{which}") from first.error
