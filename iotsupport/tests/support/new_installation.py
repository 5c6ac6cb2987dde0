"""gunicorn's configuration for a server whose installation was copied a moment before, and has no file yet.

Nothing is compared at its start, in a process of its own that takes as long as a worker. The rest is as in
``gunicorn.conf.py``. For tests that are not about what a start does.
"""

from __future__ import annotations

import runpy
from typing import Any

from iotsupport.settings import BASE_DIR

globals().update(runpy.run_path(str(BASE_DIR / "gunicorn.conf.py")))


def on_starting(server: Any) -> None:
    from iotsupport.monitoring import metrics_directory

    metrics_directory.prepare(globals()["METRICS_DIR"])
