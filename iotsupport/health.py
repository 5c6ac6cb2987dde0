"""``/health``: whether configurations and assets can be changed and downloaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.db import connection
from django.http import HttpRequest, JsonResponse

from iotsupport.errors import DATABASE_ERRORS, json_view
from iotsupport.mirror import MirrorError, mirror_storage

logger = logging.getLogger(__name__)

# What else is reported, and never makes it unhealthy: name to function.
_reports: dict[str, Callable[[], Any]] = {}


def report_also(name: str, report: Callable[[], Any]) -> None:
    """Add a fact to the answer, such as the broker's state: devices download while the broker is away."""
    _reports[name] = report


@json_view
def health(request: HttpRequest) -> JsonResponse:
    """200 while the database, both mirrors and what the assets are made from work, else 503 with the reason."""
    reason = _find_trouble()
    facts = {name: report() for name, report in _reports.items()}
    if reason:
        return JsonResponse({"status": "unhealthy", "reason": reason, **facts}, status=503)
    return JsonResponse({"status": "healthy", **facts})


def _find_trouble() -> str | None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM django_migrations LIMIT 1")
        for alias in ["configs", "assets", "blobs"]:
            mirror_storage(alias).probe()
    except DATABASE_ERRORS as error:
        logger.warning("The database does not work: %s", error)
        return "The database does not answer, or is not migrated. Check DATABASE_URL, then run 'manage.py migrate'."
    except MirrorError as error:
        return str(error)
    return None
