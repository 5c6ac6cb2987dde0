"""After a commit, the files that it changed are made equal to their rows: all together, then what waited for them."""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from django.db import DatabaseError, connections, transaction
from django.dispatch import Signal

from iotsupport.mirror.files import (
    LOCK_POLL_SECONDS,
    MirrorBehindError,
    MirrorError,
    MirrorStorage,
    StagedFile,
    mirror_storage,
)
from iotsupport.mirror.rows import MirroredModel, Wanted
from iotsupport.mirror.together import Replaced, freed_together

logger = logging.getLogger(__name__)

# The transaction that is open changes files, or removes them. Sent by their model, with ``filenames`` and ``using``.
changed = Signal()

# What waits for files to be in place: called with their names.
CallInPlace = Callable[[list[str]], Any]

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
    calls: list[CallInPlace] = field(default_factory=list)
    error: Exception | None = None
    is_done: bool = False

    def follow_commit(self) -> None:
        """The first change of a transaction sees to all of them. Raises :class:`MirrorBehindError`."""
        if not self.is_done:
            noted = _noted.pop(connections[self.using], None)
            others = [change for change in noted.values() if not change.is_done] if noted is not None else []
            make_all_equal(list(dict.fromkeys([self, *others])))

    def make_equal(self, storage: MirrorStorage, wanted: Wanted | None) -> None:
        """Make the file equal to its row, which wants this now; None where there is no row."""
        if wanted is None:
            storage.delete(self.filename)
            self.calls.clear()  # there is nothing to download
        elif storage.matches(self.filename, wanted.sha256):
            storage.mark(self.filename, wanted.mode)
        else:
            row = self.model.with_filename(self.filename, self.using)
            if row is not None:  # else deleted meanwhile: whoever did that waits for the lock
                storage.replace(self.filename, row.stage())


# The changes of the transaction that each connection has open. Only ``on_commit`` keeps them: what is rolled back, to a
# savepoint or all of it, is gone from here, too.
_noted: WeakKeyDictionary[Any, WeakValueDictionary[tuple[type, str], Change]] = WeakKeyDictionary()


def mirror_saved(row: MirroredModel, filename: str, staged: StagedFile | None, using: str) -> None:
    """Call in ``post_save``: what is staged gets the row's file name after the commit.

    None where the row's bytes are those that it had.
    """
    _note([Change(type(row), filename, using, staged)])
    name = getattr(row, row.name_field)
    if row.name_as_read not in {None, name}:
        _note([Change(type(row), row.filename_of(str(row.name_as_read)), using)])
    row.name_as_read = name


def mirror_deleted(model: type[MirroredModel], filename: str, using: str) -> None:
    """Call in ``post_delete``: the file follows after the commit. Raises :class:`MirrorError` where it could not."""
    mirror_storage(model.storage_alias).check_writable()
    _note([Change(model, filename, using)])


def mirror_saved_together(model: type[MirroredModel], staged: Mapping[str, StagedFile], using: str) -> None:
    """Call where rows were written without ``post_save``: what is staged gets its file name after the commit."""
    _note([Change(model, filename, using, file) for filename, file in staged.items()])


def call_when_in_place(model: type[MirroredModel], filenames: Sequence[str], using: str, call: CallInPlace) -> None:
    """Call after the commit, with those of these files that are in place. What ``call`` raises is logged.

    For receivers of signals, after those of the mirror.
    """
    noted = _noted.get(connections[using])
    in_place = []
    for filename in filenames:
        change = noted.get((model, filename)) if noted is not None else None
        if change is not None:
            change.calls.append(call)
        else:  # there was no transaction
            in_place.append(filename)
    if in_place:
        _call(call, in_place, using)


def make_equal(model: type[MirroredModel], filename: str, using: str) -> None:
    """Make one file equal to what its row says now. Raises :class:`MirrorBehindError`."""
    make_all_equal([Change(model, filename, using)])


def make_all_equal(changes: list[Change]) -> None:
    """Make files equal to what their rows say now; the last to get here finds the last commit.

    Every one is tried. Raises one :class:`MirrorBehindError` for all that are behind.
    """
    by_model = defaultdict(list)
    for change in changes:
        by_model[change.model].append(change)
    try:
        for group in by_model.values():
            _make_group_equal(group)
    finally:
        for change in changes:
            change.is_done = True
            if change.staged is not None:
                change.staged.close()
                change.staged = None
    behind = []
    in_place = defaultdict(list)
    for change in changes:
        if change.error is not None:
            behind.append(change)
            continue
        for call in change.calls:
            in_place[call, change.using].append(change.filename)
    for (call, using), filenames in in_place.items():
        _call(call, filenames, using)
    if behind:
        raise _behind_error(behind) from behind[0].error


def _call(call: CallInPlace, filenames: list[str], using: str) -> None:
    """At once: no transaction is open."""
    transaction.on_commit(lambda: call(filenames), using=using, robust=True)


def _note(changes: list[Change]) -> None:
    """Make them equal after the commit. They are of one model and one database."""
    model, using = changes[0].model, changes[0].using
    changed.send(model, filenames=[change.filename for change in changes], using=using)
    noted = _noted.setdefault(connections[using], WeakValueDictionary())
    for change in changes:
        noted[model, change.filename] = change
        transaction.on_commit(change.follow_commit, using=using)


def _make_group_equal(changes: list[Change]) -> None:
    """Changes of one model and one database."""
    left = deque(changes)
    while left:
        try:
            with freed_together() as replaced:
                _make_some_equal(left, replaced)
        except (MirrorError, DatabaseError) as error:  # it would be the same with the others, and take as long
            for change in left:
                change.error = error
            return
        if left:
            time.sleep(PAUSE_SECONDS)


def _make_some_equal(left: deque[Change], replaced: Replaced) -> None:
    """Take as many as can be seen to while the directory is locked for a short time, from the left."""
    model, using = left[0].model, left[0].using
    some = list(islice(left, TOGETHER))
    filenames = [change.filename for change in some]
    storage = mirror_storage(model.storage_alias)
    with storage.explained(), storage.lock():
        until = time.monotonic() + HOLD_SECONDS
        wanted_files = model.wanted_files(filenames, using)
        for change in some:
            wanted = wanted_files.get(change.filename)
            if len(some) > 1:
                replaced.keep(storage.path(change.filename))
            try:
                with storage.explained():
                    if change.staged is not None and (change.staged.sha256, change.staged.mode) == wanted:
                        storage.replace(change.filename, change.staged)
                    else:
                        change.make_equal(storage, wanted)
            except MirrorError as error:
                change.error = error
            left.popleft()
            if time.monotonic() >= until:
                return


def _behind_error(behind: list[Change]) -> MirrorBehindError:
    first, count = behind[0], len(behind)
    sentences = {
        change.filename: f"The change is saved, but the file of {change.filename} is not up to date: {change.error}"
        for change in behind
    }
    logger.error("%s is saved, but its file is not (files in all: %d): %s", first.filename, count, first.error)
    together = f"The change is saved, but {count} files are not up to date: {first.error}"
    error = MirrorBehindError(sentences[first.filename] if count == 1 else f"{together} The first is {first.filename}.")
    error.sentences = sentences
    return error
