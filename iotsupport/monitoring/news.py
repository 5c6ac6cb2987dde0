"""Trouble that lasts is said once, by one process of a server: whoever looks next would say the same again."""

from __future__ import annotations

import mmap
import zlib

# One byte for each trouble that was said. gunicorn's master makes it, and shares it with the workers that it forks.
_said = mmap.mmap(-1, 4096)


def is_news(trouble: str) -> bool:
    """Return whether some trouble is still to be said; from now on, it is not."""
    is_new = not _said[_place(trouble)]
    _said[_place(trouble)] = True
    return is_new


def is_over(trouble: str) -> None:
    """Note that some trouble has ended: if it comes again, it is news."""
    _said[_place(trouble)] = False


def _place(trouble: str) -> int:
    return zlib.crc32(trouble.encode()) % len(_said)
