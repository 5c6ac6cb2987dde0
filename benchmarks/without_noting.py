"""The server as it would be if it noted nothing of what boards do: ``gunicorn benchmarks.without_noting``."""

from __future__ import annotations

from iotsupport.wsgi import application  # isort: skip - it makes the apps ready
from iotsupport.boards.collector import collector

__all__ = ["application"]

collector.is_serving = False
