"""Which of the installed apps' static files there are (all of them, but for most of the editor's), and where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.contrib.staticfiles.finders import AppDirectoriesFinder
from django.contrib.staticfiles.storage import StaticFilesStorage

# Some 600 of 800 files are for other languages than JSON, and for themes that nobody chooses. Each worker looks at
# every file when it starts, and each start of `make run` when it collects them.
LEFT_OUT = re.compile(
    r"django_ace/ace/(?:(?:mode|worker)-(?!json|base)|theme-|css/(?!ace|main|textmate)|snippets/)", re.ASCII
)


class AppFinder(AppDirectoriesFinder):
    """Django's, which lists fewer files. It still finds those that it does not list."""

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, Any]]:
        """Yield the files that are served: their path below ``STATIC_URL``, and the storage that has it."""
        return (found for found in super().list(ignore_patterns) if not LEFT_OUT.match(found[0]))


class StaticFiles(StaticFilesStorage):
    """Makes the address of each file once: a list of a hundred rows asks 120 times, most often for the same icon."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._urls: dict[str | None, str] = {}  # of names in templates, which are few

    def url(self, name: str | None) -> str:
        if name not in self._urls:
            self._urls[name] = super().url(name)
        return self._urls[name]
