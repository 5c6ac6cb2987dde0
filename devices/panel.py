"""The panel beside a configuration: what its board did, how it asks, and what was saved last."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import NamedTuple

from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from devices import telling
from devices.models import DeviceConfig
from iotsupport.boards import firmware
from iotsupport.boards.models import Board
from iotsupport.editing.history import DELETED
from iotsupport.editing.numbered import Numbered
from iotsupport.times import show, tell_date, told

# So many versions are looked through for the one that a board holds: each may be 64 KB.
MOST_VERSIONS = 50

LATEST_VERSIONS = 3
DONE = {"+": "added", "~": "", DELETED: "deleted"}


class Line(NamedTuple):
    name: str
    value: SafeString | str


class Saved(NamedTuple):
    at: datetime
    by: str
    """Whoever did it; where nobody is known, by which way it was done."""
    done: str
    """What was done and why, where that says more than that it was saved."""


class Panel(NamedTuple):
    lines: list[Line]
    curl: str
    saved: list[Saved]
    """The last ones first."""


def panel_of(request: HttpRequest, config: DeviceConfig) -> Panel:
    """What is known of the board of a configuration that may be viewed."""
    path = reverse("config-download", args=[config.mac_address], urlconf="iotsupport.public_urls")
    curl = f"curl -i {request.build_absolute_uri(path)}"
    saved = saved_last(config)
    board = Board.objects.filter(mac_address=config.mac_address).first()
    if board is None:
        return Panel([], curl, saved)
    lines = [
        Line("Configuration", format_html("{} {}", telling.tell_state(board), telling.tell_state_since(board))),
        Line("Holds", _holds(board, config)),
        Line("Last seen", _last_seen(board)),
        Line("", _two_addresses(board)),
        Line("Says it runs", _runs(request, board)),
        Line("Identifies itself", board.user_agent),
        Line("SDK", board.sdk_version),
        Line("Flash", filesizeformat(board.chip_size) if board.chip_size else ""),
    ]
    return Panel([line for line in lines if line.value], curl, saved)


def saved_last(config: DeviceConfig) -> list[Saved]:
    """The last versions of a configuration, or of one before it with its MAC address."""
    # Without their texts, which may be 64 KB each.
    versions = DeviceConfig.history.of(config.mac_address).select_related("history_user").defer("content")
    return [
        Saved(
            version.history_date,
            str(version.history_user or version.get_history_way_display() or "somebody"),
            version.history_change_reason or DONE[version.history_type],
        )
        for version in versions.order_by("-history_id")[:LATEST_VERSIONS]
    ]


def _holds(board: Board, config: DeviceConfig) -> SafeString | str:
    if board.holds_sha256 is None:
        return "nothing that is known"
    versions = config.history.only("history_id", "history_date", "history_type", "content").exclude(history_type="-")
    for version in versions[:MOST_VERSIONS]:
        if hashlib.sha256(version.content.encode()).hexdigest() == board.holds_sha256:
            number = Numbered(DeviceConfig, config.mac_address).number_of(version)
            url = reverse("admin:devices_deviceconfig_version", args=[config.pk, version.history_id])
            link = format_html('<a href="{}">version {}</a>', url, number)
            return format_html("{} of {}{}", link, _date(version.history_date), _held_since(board))
    return format_html("a version that is not kept{}", _held_since(board))


def _held_since(board: Board) -> SafeString | str:
    return format_html(", since {}", _date(board.holds_since)) if board.holds_since else ""


def _last_seen(board: Board) -> SafeString | str:
    if board.last_seen is None:
        return "never"
    seen = telling.tell_last_seen(board)
    return format_html("{}, from {}", seen, board.last_address) if board.last_address else seen


def _two_addresses(board: Board) -> SafeString | str:
    if board.two_addresses_at is None:
        return ""
    other = format_html(" ({} before)", board.address_before) if board.address_before else ""
    return format_html(
        '<span class="state behind">seen from two addresses</span> within a minute, {}{}',
        told(board.two_addresses_at),
        other,
    )


def _runs(request: HttpRequest, board: Board) -> SafeString | str:
    found = firmware.find([board.runs_md5] if board.runs_md5 else [], [board.runs_sha256] if board.runs_sha256 else [])
    version = found.get(board.runs_sha256) or found.get(board.runs_md5)
    if version is None:
        return telling.tell_runs(board)
    page = firmware.page_of(request, version)
    name = format_html('<a href="{}">{}</a>', page, version.filename) if page else version.filename
    file = format_html("{} of {}", name, _date(version.uploaded_at))
    says = board.runs_version or version.version
    return format_html("{} ({})", says, file) if says else file


def _date(moment: datetime) -> SafeString:
    return show(moment, tell_date(moment))
