"""What the first page says of configurations and their boards, to those who may view configurations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Min
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from devices import telling
from devices.models import DeviceConfig
from devices.waiting import add_url
from iotsupport.boards.models import Board, State
from iotsupport.first_page import Arrival, Number
from iotsupport.times import lasting

MOST_ARRIVALS = 10


def numbers(request: HttpRequest) -> Iterator[Number]:
    """How many boards are in each state; each number leads to their list."""
    if not _admin().has_view_or_change_permission(request):
        return
    configs = reverse("admin:devices_deviceconfig_changelist")
    counts = Board.objects.count_states()
    remarks = {
        State.CURRENT: "hold what is saved",
        State.BEHIND: _oldest(),
        State.NEVER_FETCHED: "have not downloaded it yet",
    }
    for state, remark in remarks.items():
        count, tone = counts[state], telling.TONES.get(state, "quiet")
        yield Number(count, state.label, f"{configs}?state={state}", remark if count else "", tone)
    if settings.SILENT_AFTER:
        hours = f"{settings.SILENT_AFTER} hour{'' if settings.SILENT_AFTER == 1 else 's'}"
        yield Number(Board.objects.silent().count(), "silent", f"{configs}?seen=silent", f"not seen for {hours}", "bad")
    waiting = reverse("admin:devices_waitingboard_changelist")
    yield Number(counts[State.WAITING], "waiting", waiting, "ask, and have no configuration")


def _oldest() -> str:
    oldest = Board.objects.filter(state=State.BEHIND).aggregate(since=Min("behind_since"))["since"]
    return format_html("the oldest for {}", lasting(oldest)) if oldest else ""


def arrivals(request: HttpRequest) -> list[Arrival]:
    """The boards that came last, the newest first."""
    if not _admin().has_view_or_change_permission(request):
        return []
    boards = Board.objects.shown().exclude(last_seen=None).order_by("-last_seen")[:MOST_ARRIVALS]
    came = {board: board.last_seen for board in boards if board.last_seen}
    rows = DeviceConfig.objects.filter(mac_address__in=[board.mac_address for board in came])
    configs = {config.mac_address: config for config in rows.only("pk", "mac_address", "device_name")}
    return [
        Arrival(*_place(request, board, configs.get(board.mac_address)), _words(board), moment)
        for board, moment in came.items()
    ]


def _place(request: HttpRequest, board: Board, config: DeviceConfig | None) -> tuple[str, str]:
    """What it is called, and where one goes on with it."""
    if config is not None:
        name = config.device_name or config.mac_address
        return name, reverse("admin:devices_deviceconfig_change", args=[config.pk])
    may_add = _admin().has_add_permission(request)
    return board.mac_address, add_url(board.mac_address) if may_add else reverse(
        "admin:devices_waitingboard_changelist"
    )


def _words(board: Board) -> str:
    runs = board.runs_version or board.runs_filename
    return f"{WORDS[State(board.state)]}{f', says it runs {runs}' if runs else ''}"


WORDS = {
    State.CURRENT: "holds what is saved",
    State.BEHIND: "is behind",
    State.NEVER_FETCHED: "has not fetched its configuration",
    State.WAITING: "asks, and has no configuration",
}


def _admin() -> Any:
    return admin.site.get_model_admin(DeviceConfig)
