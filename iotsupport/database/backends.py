"""Which backend a database gets, and its options: ``DATABASE_URL`` made fit for several who write at once."""

from __future__ import annotations

from typing import Any

from iotsupport.database.sqlite import PrivateConnection

SQLITE = {
    "timeout": 20,  # seconds
    # What makes several writers wait for each other instead of failing.
    "transaction_mode": "IMMEDIATE",
    "factory": PrivateConnection,
    "init_command": (
        # WAL lets readers read meanwhile; only with FULL, a commit in it is on the disk when it returns. Not mapped
        # into memory: where a disk cannot read it, the process would end with SIGBUS.
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA mmap_size=0;"
        " PRAGMA journal_size_limit=27103364; PRAGMA cache_size=2000;"
    ),
}

POSTGRESQL = {
    # Seconds, and milliseconds: TCP alone would wait for many minutes for a server that went away without a word.
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    # The same for one that has been asked already: ten seconds, then three questions.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


def configured(database: dict[str, Any], connections: int) -> dict[str, Any]:
    """Return a database of Django's settings with our backend for its kind.

    A process makes at most so many ``connections`` to PostgreSQL. Options of the address win there.
    """
    if database["ENGINE"] == "django.db.backends.sqlite3":
        # Those who write wait in turn; a connection that is closed is kept for the next request.
        return database | {"ENGINE": "iotsupport.database.sqlite", "OPTIONS": SQLITE}
    if database["ENGINE"] != "django.db.backends.postgresql":
        return database
    pool = {
        "min_size": 0,
        "max_size": connections,
        "max_idle": 10,  # seconds, after which one of those that nobody needed is closed
        "timeout": 5,  # seconds
        # A server that refuses is away. Trying again in the background let every request wait, and went on failing for
        # up to ten seconds when it was back.
        "reconnect_timeout": 0,
    }
    return database | {
        # Waits for no answer without end while it serves.
        "ENGINE": "iotsupport.database.postgresql",
        "CONN_MAX_AGE": 0,  # seconds; back to the pool with the end of the request
        "CONN_HEALTH_CHECKS": True,  # when one is taken: what was lost meanwhile is replaced
        "OPTIONS": POSTGRESQL | {"pool": pool} | database.get("OPTIONS", {}),
    }
