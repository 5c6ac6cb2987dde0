"""Uploads, counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from time import perf_counter
from typing import Any

from django.http import HttpResponse
from prometheus_client import Counter, Histogram

REQUESTS = Counter("iot_asset_upload_requests_total", "Uploads of assets, by outcome.", ["status", "error_type"])
DURATION = Histogram("iot_asset_upload_duration_seconds", "Time taken by uploads of assets.", ["status"])
# 1 KiB to 64 MiB, each four times the one before.
SIZE = Histogram(
    "iot_asset_upload_file_size_bytes", "Sizes of uploaded assets.", buckets=[4**power for power in range(5, 14)]
)

# From the codes of the refusals; anything else is "other".
ERROR_TYPES = {
    "INVALID_FILENAME": "invalid_filename",
    "NO_FILE": "no_file",
    "TOO_LARGE": "too_large",
    "UNSUPPORTED_MEDIA_TYPE": "unsupported_media_type",
    "NOT_AUTHENTICATED": "not_authenticated",
    "CSRF_FAILED": "forbidden",
    "FORBIDDEN": "forbidden",
    "STORAGE_UNAVAILABLE": "storage",
}

REQUESTS.labels("success", "none")
for _status in ["success", "error"]:
    DURATION.labels(_status)


def track_uploads(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Count what a view of the API answers: one upload each, and an error where it refuses."""

    @wraps(view)
    def counted(*args: Any, **kwargs: Any) -> HttpResponse:
        start = perf_counter()
        response = view(*args, **kwargs)
        refusal_code = json.loads(response.content)["code"] if response.status_code >= 400 else None
        count_upload(refusal_code, perf_counter() - start)
        return response

    return counted


def count_upload(refusal_code: str | None, seconds: float) -> None:
    status = "success" if refusal_code is None else "error"
    REQUESTS.labels(status, "none" if refusal_code is None else ERROR_TYPES.get(refusal_code, "other")).inc()
    DURATION.labels(status).observe(seconds)
