"""How check-ins get into the database: one statement for all boards of which something is to be written."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from django.db import connection, transaction

from iotsupport.boards.firmware import FoundVersion, find
from iotsupport.boards.models import AHEAD, MOST_WAITING, Board, HourlyCount, State
from iotsupport.boards.pending import Batch
from iotsupport.database import is_shared
from iotsupport.database.names import lock_names
from iotsupport.database.sqlite import patience
from iotsupport.errors import DATABASE_ERRORS

logger = logging.getLogger(__name__)

# How long it is waited for whoever writes to the database, or to a row of it; then it is tried again a second later. On
# PostgreSQL, less than it takes there to look for those who wait for each other (deadlock_timeout): the other one,
# which may be somebody's save, goes on.
PATIENCE_SECONDS = 0.2

# Of a report, as the statement has it, and its type in PostgreSQL.
COLUMNS = {
    "mac_address": "varchar",
    "at": "timestamptz",
    "asked": "bigint",
    "holds_sha256": "varchar",
    "holds_at": "timestamptz",
    "last_address": "inet",
    "address_before": "inet",
    "two_addresses_at": "timestamptz",
    "user_agent": "varchar",
    "runs_version": "varchar",
    "runs_md5": "varchar",
    "runs_sha256": "varchar",
    "sdk_version": "varchar",
    "chip_size": "bigint",
    "runs_filename": "varchar",
    "runs_asset_sha256": "varchar",
}
_values = attrgetter(*COLUMNS)  # dataclasses.asdict() takes ten times as long
_columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
_members = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in COLUMNS)
TOLD = {
    "postgresql": f"json_to_recordset(%(told)s::json) AS told({_columns})",
    "sqlite": f"(SELECT {_members} FROM json_each(%(told)s)) AS told",  # noqa: S608
}
WITHIN_A_MINUTE = {
    "postgresql": "excluded.last_seen - board.last_seen < interval '1 minute'",
    "sqlite": "julianday(excluded.last_seen) - julianday(board.last_seen) < 1.0 / 1440",
}

# Of two nodes, the later time wins. What lies ahead of everybody was written before the clock was set back.
IS_LATER = "(board.last_seen IS NULL OR excluded.last_seen >= board.last_seen OR board.last_seen > %(ahead)s)"
TELLS = (
    "(excluded.holds_sha256 IS NOT NULL AND (board.holds_at IS NULL OR excluded.holds_at >= board.holds_at"
    " OR board.holds_at > %(ahead)s))"
)
HOLDS = f"CASE WHEN {TELLS} THEN excluded.holds_sha256 ELSE board.holds_sha256 END"
MOVES = f"({IS_LATER} AND excluded.last_address <> board.last_address)"
HAS_TWO = f"({IS_LATER} AND excluded.address_before IS NOT NULL)"
# What it runs is told whole, by a digest; a version that is another one says that the digest is of the past.
SAYS_DIGEST = f"({IS_LATER} AND (excluded.runs_md5 <> '' OR excluded.runs_sha256 <> ''))"
SAYS_OTHER_VERSION = (
    f"({IS_LATER} AND excluded.runs_version <> '' AND board.runs_version <> ''"
    " AND excluded.runs_version <> board.runs_version)"
)


def _said(name: str, nothing: str = "''") -> str:
    is_said = "excluded.{0} IS NOT NULL" if nothing == "NULL" else "excluded.{0} <> ''"
    return f"CASE WHEN {IS_LATER} AND {is_said.format(name)} THEN excluded.{name} ELSE board.{name} END"


def _found(name: str) -> str:
    return f"CASE WHEN {SAYS_DIGEST} THEN excluded.{name} WHEN {SAYS_OTHER_VERSION} THEN '' ELSE board.{name} END"


# Column, what a new row has, and what becomes of one that is there. Only a board that asks for a configuration that is
# not there gets a new row: one that has a configuration has a row.
SETS = {
    "state": (
        "'waiting'",
        "CASE WHEN board.config_sha256 IS NULL AND excluded.asked > 0 THEN 'waiting'"
        " WHEN board.config_sha256 IS NULL THEN board.state"
        f" WHEN {HOLDS} IS NULL THEN 'never_fetched'"
        f" WHEN {HOLDS} = board.config_sha256 THEN 'current' ELSE 'behind' END",
    ),
    "asked": ("told.asked", "CASE WHEN board.config_sha256 IS NULL THEN board.asked + excluded.asked ELSE 0 END"),
    "waiting_since": (
        "told.at",
        "CASE WHEN board.config_sha256 IS NULL AND excluded.asked > 0"
        " THEN COALESCE(board.waiting_since, excluded.waiting_since) ELSE board.waiting_since END",
    ),
    "behind_since": (
        "NULL",
        f"CASE WHEN board.config_sha256 IS NULL OR {HOLDS} IS NULL OR {HOLDS} = board.config_sha256 THEN NULL"
        # It fetched after that save, and before another one: what it has not fetched was saved since.
        f" WHEN {TELLS} AND excluded.holds_sha256 <> board.holds_sha256 AND excluded.holds_at > board.behind_since"
        " THEN excluded.holds_at"
        " ELSE COALESCE(board.behind_since, excluded.last_seen) END",
    ),
    "first_seen": ("told.at", "COALESCE(board.first_seen, excluded.first_seen)"),
    "last_seen": ("told.at", f"CASE WHEN {IS_LATER} THEN excluded.last_seen ELSE board.last_seen END"),
    "holds_sha256": ("told.holds_sha256", HOLDS),
    "holds_since": (
        "told.holds_at",
        f"CASE WHEN {TELLS} AND (board.holds_sha256 IS NULL OR board.holds_sha256 <> excluded.holds_sha256)"
        " THEN excluded.holds_at ELSE board.holds_since END",
    ),
    "holds_at": ("told.holds_at", f"CASE WHEN {TELLS} THEN excluded.holds_at ELSE board.holds_at END"),
    "last_address": ("told.last_address", _said("last_address", "NULL")),
    "address_before": (
        "told.address_before",
        f"CASE WHEN {HAS_TWO} THEN excluded.address_before WHEN {MOVES} THEN board.last_address"
        " ELSE board.address_before END",
    ),
    "address_changed_at": (
        "CASE WHEN told.address_before IS NOT NULL THEN told.at END",
        f"CASE WHEN {HAS_TWO} OR {MOVES} THEN excluded.last_seen ELSE board.address_changed_at END",
    ),
    "two_addresses_at": (
        "told.two_addresses_at",
        f"CASE WHEN {IS_LATER} AND excluded.two_addresses_at IS NOT NULL THEN excluded.two_addresses_at"
        f" WHEN {MOVES} AND {{within_a_minute}} THEN excluded.last_seen"
        " ELSE board.two_addresses_at END",
    ),
    **{name: (f"told.{name}", _said(name)) for name in ["user_agent", "runs_version", "sdk_version"]},
    "chip_size": ("told.chip_size", _said("chip_size", "NULL")),
    **{
        name: (f"told.{name}", _found(name))
        for name in ["runs_md5", "runs_sha256", "runs_filename", "runs_asset_sha256"]
    },
}

NOTE = f"""
    INSERT INTO iotsupport_board AS board (mac_address, {", ".join(SETS)})
    SELECT told.mac_address, {", ".join(new for new, _ in SETS.values())}
    FROM {{told}} LEFT JOIN iotsupport_board AS known ON known.mac_address = told.mac_address
    WHERE known.mac_address IS NOT NULL OR told.asked > 0
    ORDER BY told.mac_address
    ON CONFLICT (mac_address) DO UPDATE SET {", ".join(f"{name} = {after}" for name, (_, after) in SETS.items())}
"""  # noqa: S608

COUNT = """
    INSERT INTO iotsupport_hourlycount AS counted (hour, kind, count) VALUES (%s, %s, %s)
    ON CONFLICT (hour, kind) DO UPDATE SET count = counted.count + excluded.count
"""


def write(batch: Batch, now: float) -> None:
    """Write a batch, and wait for nobody long. Raises what the database does."""
    reports = _with_versions(batch)
    with patience(connection, PATIENCE_SECONDS), transaction.atomic():
        if is_shared(connection):
            _be_impatient()
        if reports:
            _write_reports(reports, now)
        for hour, count in sorted(batch.hours.items()):
            _add(HourlyCount.DOWNLOADS, datetime.fromtimestamp(hour * 3600, UTC), count)


def _be_impatient() -> None:
    with connection.cursor() as cursor:
        # Nobody is told that it is written: a server that crashes may lose it.
        cursor.execute(f"SET LOCAL lock_timeout = {int(PATIENCE_SECONDS * 1000)}; SET LOCAL synchronous_commit = off")


def _with_versions(batch: Batch) -> list[dict[str, Any]]:
    """Return what the statement is given, with the asset versions that the digests tell of."""
    md5s = {report.runs_md5 for report in batch.reports} - {""}
    sha256s = {report.runs_sha256 for report in batch.reports} - {""}
    found = _find(md5s, sha256s) if md5s or sha256s else {}
    told = []
    for report in batch.reports:
        row = dict(zip(COLUMNS, _values(report), strict=True))
        row["at"] = _moment(report.at)
        for name in ["holds_at", "two_addresses_at"]:
            row[name] = row[name] and _moment(row[name])
        version = found.get(report.runs_sha256) or found.get(report.runs_md5)
        if version is not None:
            row |= {"runs_filename": version.filename, "runs_asset_sha256": version.sha256}
        told.append(row)
    return told


def _find(md5s: set[str], sha256s: set[str]) -> Mapping[str, FoundVersion]:
    try:
        return find(sorted(md5s), sorted(sha256s))
    except DATABASE_ERRORS:
        raise
    except Exception:
        logger.exception("Which versions the boards run cannot be found")
        return {}


def _write_reports(reports: list[dict[str, Any]], now: float) -> None:
    is_asked = any(report["asked"] for report in reports)
    if is_asked:
        lock_names(connection, ["boards that wait"])
    vendor = connection.vendor
    statement = NOTE.format(told=TOLD[vendor], within_a_minute=WITHIN_A_MINUTE[vendor])
    with connection.cursor() as cursor:
        cursor.execute(statement, {"told": json.dumps(reports), "ahead": _moment(now + AHEAD.total_seconds())})
    if is_asked:
        waiting = Board.objects.filter(state=State.WAITING)
        too_many = waiting.order_by("-last_seen", "mac_address").values_list("mac_address", flat=True)[MOST_WAITING:]
        if forgotten := list(too_many):
            waiting.filter(mac_address__in=forgotten)._raw_delete(connection.alias)


def _add(kind: str, hour: datetime, count: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(COUNT, [connection.ops.adapt_datetimefield_value(hour), kind, count])


def _moment(seconds: float) -> str:
    """Return a time as the database takes it in text; SQLite has no zones, and Django keeps UTC there."""
    return str(datetime.fromtimestamp(seconds, UTC)).removesuffix("" if is_shared(connection) else "+00:00")
