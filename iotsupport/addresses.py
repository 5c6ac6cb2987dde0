"""Addresses that are nearly right: the right one is said, instead of something about hosts or tokens."""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse
from django.urls import is_valid_path

from iotsupport.errors import ApiError
from iotsupport.serving.downloads import registered
from iotsupport.serving.strangers import GLANCES


@cache
def _places() -> re.Pattern[str]:
    """How addresses of devices and programs begin, in letters of any case."""
    names = [downloads.folder_pattern for downloads in registered] + [glance.strip("/") for glance in GLANCES]
    return re.compile(f"/(?:api/)?(?:{'|'.join(names)})(?=/|$)", re.IGNORECASE)


@cache
def _files() -> list[tuple[re.Pattern[str], str]]:
    """Addresses of files that all end alike, in letters of any case; and how they end."""
    return [
        (re.compile(f"(/(?:api/)?(?:{kind.folder_pattern})/[^/]+){re.escape(kind.ending)}", re.IGNORECASE), kind.ending)
        for kind in registered
        if kind.ending
    ]


def right_address(path: str) -> str | None:
    """Return what was meant by a path with too many slashes, or letters of the wrong case; None for any other.

    Names of assets stay as they are: they may be in any case.
    """
    right = "/" + "/".join(filter(None, path.split("/")))
    # What nobody means stays an unknown address; the admin has its own ways.
    if not _places().match(right):
        return None
    right = _places().sub(lambda place: place[0].lower(), right, count=1)
    for file, ending in _files():
        if found := file.fullmatch(right):
            right = found[1] + ending
    return right if right != path and is_valid_path(right) else None


def refuse_address(request: HttpRequest) -> HttpResponse | None:
    """Answer 404 with the right address, whoever asks, and under whatever name of the server."""
    right = right_address(request.path_info)
    if right is None:
        return None
    address = quote(right)
    message = f"There is nothing at {quote(request.path_info)[:200]}. The right address is {address}."
    response = ApiError(404, "NOT_FOUND", message, address=address).response()
    response["X-Content-Type-Options"] = "nosniff"
    return response
