"""How long the marathons are: short in ``make test``, whole in ``make marathon``. They assert the same in both.

``make marathon`` runs all of them on both databases. In ``make test``, those run on PostgreSQL, too, that show what a
database does when it or who uses it is killed, or many write the same at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

IS_WHOLE = bool(os.environ.get("WHOLE_MARATHONS"))


def length(short: int, *, whole: int) -> int:
    return whole if IS_WHOLE else short


# Without a broker.
OUTAGE_SECONDS = length(5, whole=90)

# Of the server, its workers, or some of them, while four people save.
ENDS = length(1, whole=10)
RELOADS = length(1, whole=10)
RECYCLED_WORKERS = length(2, whole=20)

# Through which eight clients change one configuration, or one asset; and how often each of them does.
WORKERS = length(2, whole=4)
SAVES_OF_EACH = length(10, whole=100)
UPLOADS_OF_EACH = length(2, whole=5)

# In which something is killed while ten saves are made.
KILL_ROUNDS = length(5, whole=30)

# Of a server that goes on with the others, while six clients save.
WRITERS = length(2, whole=3)
WRITERS_KILLED = length(2, whole=50)

# While the broker is away: announced at a pace, in small memory.
IMPORTED_FILES = length(200, whole=3000)

# In rounds in which an import is killed, and while people save and devices download.
TAKEN_TOGETHER = length(600, whole=5000)
IMPORTS_KILLED = length(2, whole=20)

# By one change of many, which is stopped, and whose process is killed.
CHANGED_TOGETHER = length(600, whole=5000)

# In directories of configurations and of assets that a running server takes over.
TAKEN_OVER = length(50, whole=200)

# Of five clients, each after the announcement of the one before.
AWAITED_SAVES = length(20, whole=100)

# On two nodes, of each of eight people.
SAVES_ON_NODES = length(10, whole=50)

# Of each of a hundred and fifty boards, and some more: 10,000 in all.
DOWNLOADS_OF_EACH = length(3, whole=61)

# Of each operation of the API, made up from its document.
REQUESTS_OF_EACH = length(8, whole=100)

# Of the whole server, while people save, upload and delete.
CRASHES = length(2, whole=20)

# Of the disk under server and database, while people change things.
POWER_CUTS = length(1, whole=30)


def marathon(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test whose length is one of these: whole, it runs on both databases; short, where it says so itself."""
    test = pytest.mark.marathon(pytest.mark.timeout(3600 if IS_WHOLE else 600)(test))
    return pytest.mark.both_databases(test) if IS_WHOLE else test
