"""What becomes of PostgreSQL's connection pool while the server cannot be reached; named in the settings."""

from __future__ import annotations

import threading
from typing import Any


def discard(pool: Any) -> None:
    """Tell whoever waits for a connection now that there is none; the next request starts with a new pool.

    Left alone, each request waits for its whole timeout, though the server refuses at once; and when it is back, the
    lost connections are found one by one, with a longer pause after each.
    """
    # Closing waits for the pool's threads, of which this is one.
    threading.Thread(target=_close, args=[pool], daemon=True).start()


def _close(pool: Any) -> None:
    # Not above: gunicorn's master reads the settings, and must not load what belongs to its workers.
    from django.db import connection

    if connection.pool is pool:  # type: ignore[attr-defined]
        connection.close_pool()  # type: ignore[attr-defined]
