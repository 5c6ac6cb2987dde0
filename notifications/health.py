"""What ``/health`` tells of the announcements. None of it makes the server unhealthy: devices go on downloading."""

from __future__ import annotations

from iotsupport.errors import DATABASE_ERRORS
from notifications.metrics import owed
from notifications.publisher import OLD_PROTOCOL, publisher


def report_trouble() -> dict[str, str] | None:
    """Why there is no connection to the broker, and what to do; None while there is, or while nothing is known."""
    disconnection = publisher.disconnection()
    return disconnection[1]._asdict() if disconnection and disconnection[1] else None


def report_old_protocol() -> str | None:
    """The version of MQTT in the connection to the broker, where it is not 5."""
    protocol = publisher.protocol()
    return protocol if protocol == OLD_PROTOCOL else None


def report_owed() -> dict[str, float] | None:
    """How many files are still to be announced, and since how many seconds; None while the database is away."""
    try:
        count, age_seconds = owed()
    except DATABASE_ERRORS:
        return None
    return {"announcements": count, "oldest_seconds": round(age_seconds, 1)}
