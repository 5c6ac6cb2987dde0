"""Which asset version a board runs: found from the digests that it tells, by an app that knows assets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from django.http import HttpRequest


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


PageFinder = Callable[[HttpRequest, FoundVersion], str]
"""Returns the address of the page of a version's asset; empty where there is none that who asks may view."""


def _find_no_page(request: HttpRequest, version: FoundVersion) -> str:
    return ""


_finders: list[Finder] = [_find_nothing]
_page_finders: list[PageFinder] = [_find_no_page]


def register(finder: Finder, page_finder: PageFinder = _find_no_page) -> None:
    """Say who finds versions, and their pages; for :meth:`AppConfig.ready`."""
    _finders[:] = [finder]
    _page_finders[:] = [page_finder]


def find(md5s: Iterable[str], image_sha256s: Iterable[str]) -> Mapping[str, FoundVersion]:
    return _finders[0](md5s, image_sha256s)


def page_of(request: HttpRequest, version: FoundVersion) -> str:
    return _page_finders[0](request, version)
