"""Which asset version a board runs: found from the digests that it tells, by an app that knows assets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple


class FoundVersion(NamedTuple):
    """One version of an asset, of the present or the past."""

    filename: str
    sha256: str
    """Of the file."""
    uploaded_at: datetime
    version: str = ""
    """As the image says it; empty where it does not."""


Finder = Callable[[Iterable[str], Iterable[str]], Mapping[str, FoundVersion]]
"""Called with MD5s of files and SHA-256s at the end of images, in lower-case hexadecimal; returns what was found, by
either digest: of several versions, the newest. Runs in the collector's thread, once a second at most; it may query."""


def _find_nothing(md5s: Iterable[str], image_sha256s: Iterable[str]) -> Mapping[str, FoundVersion]:
    return {}


_finders: list[Finder] = [_find_nothing]


def register(finder: Finder) -> None:
    """Say who finds versions; for :meth:`AppConfig.ready`."""
    _finders[:] = [finder]


def find(md5s: Iterable[str], image_sha256s: Iterable[str]) -> Mapping[str, FoundVersion]:
    return _finders[0](md5s, image_sha256s)
