"""Where devices download: said once for each kind of file, by a :class:`Downloads` of its app.

What is answered ahead of Django, the views' URLs, the API's documentation and the address that somebody nearly asked
for are all made from it. Only ``deploy/nginx.conf`` says it again; ``iotsupport/tests/test_addresses.py`` compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.urls import URLPattern, path

from iotsupport import converters  # noqa: F401 - registers <anything:…>
from iotsupport.mirror.files import MirrorStorage
from iotsupport.serving.responses import IsRunning


@dataclass(frozen=True)
class Downloads:
    """One kind of file: its addresses, ``/<folder>/<name><ending>`` and the same under ``/api``, and its answers."""

    # Without slashes around them. The first is the one to be told; the others are what old firmware asks for.
    folders: tuple[str, ...]
    # What the view calls its argument. The mirror's file is called like the last part of the address: with the ending.
    name: str
    # A regular expression of names as files are called. Only these are answered ahead of Django, so it must match none
    # that the view refuses or changes, and no temporary file.
    usual_name: str
    # Where devices have to sign in, people who have it may download, too: by a session of the admin or with a token.
    permission: str
    storage: Callable[[], MirrorStorage]
    content_type: str
    # What the documentation says: JSON schemas of name and file; "operationId", "summary" and "tags" of OpenAPI.
    name_schema: Mapping[str, Any]
    file_schema: Mapping[str, Any]
    operation: Mapping[str, Any]
    ending: str = ""
    with_digests: bool = False
    # Who is told that it has the file already, beside those who sent a validator.
    is_running: IsRunning | None = None
    # Told the status and the seconds of each answer that is given ahead of Django.
    count: Callable[[int, float], None] | None = None
    # Told of each of them the request, the file's name, and status and headers of the answer. Must not raise.
    note: Callable[[Mapping[str, Any], str, int, Mapping[str, str]], None] | None = None
    # Whether reading and hashing one takes no time worth mentioning.
    is_small: bool = False

    @cached_property
    def folder_pattern(self) -> str:
        return "|".join(re.escape(folder) for folder in self.folders)

    @cached_property
    def usual_path(self) -> re.Pattern[str]:
        """What a usual path looks like, whole and without ``/api``; its only group is the file's name."""
        return re.compile(f"/(?:{self.folder_pattern})/({self.usual_name}{re.escape(self.ending)})", re.ASCII)

    @cached_property
    def any_path(self) -> re.Pattern[str]:
        """What the path looks like of anything that is downloaded here, in any spelling, whole and without ``/api``."""
        return re.compile(f"/(?:{self.folder_pattern})/[^/]+{re.escape(self.ending)}")

    @property
    def documented_path(self) -> str:
        """As OpenAPI writes it, such as ``/assets/{filename}``."""
        return f"/{self.folders[0]}/{{{self.name}}}{self.ending}"

    def urls(self, view: Callable[..., Any], url_name: str) -> list[URLPattern]:
        """Return the view's URLs, for any spelling of a name; ``reverse(url_name)`` finds the one to be told."""
        return [
            path(f"{folder}/<anything:{self.name}>{self.ending}", view, name=None if i else url_name)
            for i, folder in enumerate(self.folders)
        ]


registered: list[Downloads] = []


def register(downloads: Downloads) -> None:
    """Make a kind of file known; for :meth:`AppConfig.ready`."""
    registered.append(downloads)
