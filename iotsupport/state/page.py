"""The page of the admin that says how this server and what it depends on are, and what to do."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from iotsupport.state import database, directories, findings, installed, processes, upkeep
from iotsupport.state.findings import Finding, Level, Part
from iotsupport.state.permission import may_see_state

FIRST = [
    Part("directories", "Directories and room", directories.look),
    Part("database", "Database", database.look),
    Part("files", "Files and their rows", database.look_at_files),
]
PROCESSES = Part("processes", "Processes", processes.look)
LAST = [
    Part("upkeep", "Clock, backup, housekeeping", upkeep.look),
    Part("settings", "Settings", installed.look_at_settings),
    Part("versions", "Versions", installed.look_at_versions),
]


class Section(NamedTuple):
    """A part of the page, as it was found."""

    title: str
    anchor: str
    findings: list[Finding]

    def of(self, level: Level) -> list[Finding]:
        return [each for each in self.findings if each.level == level]


@require_safe
def page(request: HttpRequest) -> TemplateResponse:
    """Everything that can be known within two seconds, whatever hangs. Nothing is written.

    Raises ``PermissionDenied`` for who has no permission to see it.
    """
    if not may_see_state(request):
        raise PermissionDenied
    parts = [*FIRST, *findings.parts, PROCESSES, *LAST]
    for part in parts:
        part.begin()
    sections = [Section(part.title, part.anchor, part.findings()) for part in parts]
    sections[parts.index(PROCESSES)].findings.append(processes.front_server(request))
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": "State of this server",
        "sections": sections,
        "troubles": [(s, each) for level in [Level.WRONG, Level.LOOK] for s in sections for each in s.of(level)],
        "now": timezone.now(),
    }
    return TemplateResponse(request, "admin/state.html", context)
