"""``/health``: whether configurations and assets can be changed and downloaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.utils import timezone

from iotsupport.database import is_shared
from iotsupport.database.sqlite import patience
from iotsupport.errors import DATABASE_ERRORS, explain_database, public_view
from iotsupport.mirror.files import MirrorError, mirror_storage
from iotsupport.monitoring.glance import BusyError, Glance
from iotsupport.monitoring.logs import AT_LENGTH
from iotsupport.monitoring.news import is_news, is_over
from iotsupport.serving.kept_answers import keep_until

logger = logging.getLogger(__name__)

# What else is reported, and never makes it unhealthy: name to function.
_reports: dict[str, Callable[[], Any]] = {}
# Of these, what is left out where there is nothing to say, and what asks the database.
_occasional_reports: set[str] = set()
_shared_reports: dict[str, Callable[[], Any]] = {}

# How long a change of somebody else may take before it counts as trouble.
BUSY_SECONDS = 1.0

# As much as a save writes.
TRIED_BYTES = 64 * 1024

AWAY = "The database does not answer, or is not migrated. Check DATABASE_URL, then run 'manage.py migrate'."
BUSY = "Too many ask just now, before it is known. Ask again in a moment."
STUCK = "The database or a disk does not answer. See whether they hang."
DATABASE = "health: the database"


def report_also(
    name: str, report: Callable[[], Any], *, asks_database: bool = False, only_where_any: bool = False
) -> None:
    """Add something to the answer that never makes it unhealthy, such as the broker's state."""
    _reports[name] = report
    if only_where_any:
        _occasional_reports.add(name)
    if asks_database:
        _shared_reports[name] = report


@public_view
def health(request: HttpRequest) -> JsonResponse:
    """200 while the database, both mirrors and what the assets are made from work, else 503 with the reason."""
    try:
        seen = json.loads(_glance.get())
        keep_until(request, _glance.fresh_until)
    except BusyError:
        seen = {"reason": BUSY, "reports": {}}
    except TimeoutError:
        seen = {"reason": STUCK, "reports": {}}
    reports = {
        name: seen["reports"].get(name) if name in _shared_reports else report() for name, report in _reports.items()
    }
    reports = {name: said for name, said in reports.items() if said is not None or name not in _occasional_reports}
    if seen["reason"]:
        return JsonResponse({"status": "unhealthy", "reason": seen["reason"], **reports}, status=503)
    return JsonResponse({"status": "healthy", **reports})


def _look() -> bytes:
    reason = _find_trouble()
    reports = {name: report() for name, report in _shared_reports.items()}
    return json.dumps({"reason": reason, "reports": reports}).encode()


_glance = Glance("health", _look)


def _find_trouble() -> str | None:
    try:
        for alias in ["configs", "assets", "blobs"]:
            mirror_storage(alias).probe()
        _try_to_write()
    except DATABASE_ERRORS as error:
        if is_news(DATABASE):
            logger.warning("The database does not work: %s", error, extra=AT_LENGTH)
        return explain_database(error) or AWAY
    except MirrorError as error:
        return str(error)
    is_over(DATABASE)
    return None


def _try_to_write() -> None:
    """Write a row to the database, and take it back. Raises one of ``DATABASE_ERRORS``.

    SQLite writes to its disk when a transaction is committed, or when it holds more pages than it may.
    """
    is_sqlite = not is_shared(connection)
    row = ["health", bytes(TRIED_BYTES) if is_sqlite else "health", timezone.now()]
    with patience(connection, BUSY_SECONDS), transaction.atomic(), connection.cursor() as cursor:
        if is_sqlite:
            cursor.execute("PRAGMA cache_size")
            (usual,) = cursor.fetchone()
            cursor.execute("PRAGMA cache_size = 1")
        try:
            cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, %s)", row)
        finally:
            if is_sqlite:
                cursor.execute(f"PRAGMA cache_size = {usual}")
        transaction.set_rollback(True)
