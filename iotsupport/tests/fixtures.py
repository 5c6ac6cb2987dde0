"""Fixtures of several apps; each ``conftest.py`` imports what its tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings

from iotsupport.tests.api_client import committing_database, use_directories


@pytest.fixture
def directories(settings: LazySettings, tmp_path: Path) -> Path:
    """``configs``, ``assets`` and ``blobs``, empty, below this path."""
    use_directories(settings, tmp_path)
    return tmp_path


@pytest.fixture
def transactional_db(django_db_setup: None, django_db_blocker: Any, directories: Path) -> Iterator[None]:
    """A database where transactions commit, and the directories that follow it. Faster than pytest-django's."""
    with committing_database(django_db_blocker):
        yield
