"""Bringing back an earlier version, of what is there now as of what was deleted: a save like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def restore(model: Any, version: Any, allow: Callable[[Any], None]) -> Any:
    """Save a version anew under its name, and return the row.

    ``allow`` is called with the row that is to be changed, locked, or with a new one that has no ``pk``: what it raises
    refuses the change. Raises ``ValidationError`` for what does not fit any more, and ``MirrorError`` where the bytes
    are gone or cannot be stored.
    """
    ahead = model.ahead_of(version)
    with model.objects.locked(model.spell(getattr(version, model.name_field)), ahead) as row:
        allow(row)
        if row.pk is None and not model._base_manager.filter(pk=version.id).exists():
            row.pk = version.id  # what was deleted is found where it was
        row.take_version(version, ahead)
    return row
