"""Addresses that nearly lead somewhere: what was meant is said, instead of something about hosts or tokens."""

from __future__ import annotations

import re
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse
from django.urls import is_valid_path

from iotsupport.errors import ApiError

# Where devices and programs look. Names of assets stay as they are: they may be in any case.
PLACES = re.compile("/(?:api/)?(?:configs|esp32/config|assets|health|metrics)(?=/|$)", re.IGNORECASE)
CONFIG_FILE = re.compile(r"/(?:api/)?(?:configs|esp32/config)/[^/]+\.json", re.IGNORECASE)


def right_address(path: str) -> str | None:
    """Return what was meant by a path with too many slashes, or letters of the wrong case; None for any other."""
    right = "/" + "/".join(filter(None, path.split("/")))
    right = PLACES.sub(lambda place: place[0].lower(), right, count=1) if PLACES.match(right) else right
    if CONFIG_FILE.fullmatch(right):
        right = right[: -len(".json")] + ".json"
    # What nobody means stays an unknown address; the admin has its own ways.
    if right in {path, "/"} or right.startswith("/admin/") or not PLACES.match(right):
        return None
    return right if is_valid_path(right) else None


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
