"""gunicorn's configuration for a server whose installation was copied a moment before, and has no file yet.

Nothing is compared at its start, in a process of its own that takes as long as a worker; and ``/health`` and
``/metrics`` wait for each look, so that a busy machine leaves nothing out. The rest is as in ``gunicorn.conf.py``. For
tests that are about neither.
"""

from __future__ import annotations

import runpy
from typing import Any

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.waiting import LIMIT

globals().update(runpy.run_path(str(BASE_DIR / "gunicorn.conf.py")))


def on_starting(server: Any) -> None:
    from iotsupport.monitoring import metrics_directory
    from iotsupport.serving import handed_over

    handed_over.load()
    metrics_directory.prepare(globals()["METRICS_DIR"])


_post_worker_init = globals()["post_worker_init"]


def post_worker_init(worker: Any) -> None:
    from iotsupport.monitoring import glance

    _post_worker_init(worker)
    glance.PATIENCE_SECONDS = LIMIT
