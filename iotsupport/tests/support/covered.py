"""What a process of pytest-xdist has covered is not lost where it ends slowly; the root ``conftest.py`` names this."""

from __future__ import annotations

import sys

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Write it before the run knows that this process is done: from then on, it has ten seconds, and is killed."""
    coverage = sys.modules.get("coverage")
    if coverage is not None and (measuring := coverage.Coverage.current()) is not None:
        measuring.save()
