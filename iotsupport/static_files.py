"""Which of the installed apps' static files there are (all of them, but for most of the editor's), and where."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import AppDirectoriesFinder
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware

# Some 600 of 800 files are for other languages than JSON, and for themes that nobody chooses. Each worker looks at
# every file when it is asked for one, and each start of `make run` when it collects them.
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


class StaticFilesMiddleware:
    """WhiteNoise, which looks at every file there is, once a static file is asked for: a tenth of a worker's start."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response
        self._prefix = str(settings.STATIC_URL)
        self._white_noise: WhiteNoiseMiddleware | None = None
        self._lock = Lock()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(self._prefix):
            return self._get_response(request)
        answer: HttpResponseBase = self._looked_up()(request)
        return answer

    def _looked_up(self) -> WhiteNoiseMiddleware:
        # A page asks for several at the same time: one looks, and the others wait for it.
        with self._lock:
            if self._white_noise is None:
                self._white_noise = WhiteNoiseMiddleware(self._get_response)
            return self._white_noise
