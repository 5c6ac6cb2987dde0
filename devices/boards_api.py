"""What the boards did, for scripts and CI."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from django.db import models
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from ninja import Router, Schema
from pydantic import WithJsonSchema

from devices.api import MacAddress
from devices.fields import normalise_mac_address
from devices.lists import answer_list
from devices.models import DeviceConfig
from devices.types.finding import find_type
from iotsupport.api import REFUSALS, require
from iotsupport.boards.models import CONFIGURED, Board, BoardQuerySet, State
from iotsupport.errors import ApiError

router = Router(tags=["devices"])

# More than these are streamed.
PAGE_ROWS = 2000

STATES = [state.value for state in [*CONFIGURED, State.WAITING]]
SILENT = {"true": True, "false": False}

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class Runs(Schema):
    version: str | None
    asset: str | None
    sha256: str | None


class Device(Schema):
    mac_address: str
    device_name: str | None
    state: Annotated[str, WithJsonSchema({"type": "string", "enum": STATES})]
    behind_since: Time | None
    last_seen: Time | None
    last_address: str | None
    silent: bool
    holds_sha256: str | None
    runs: Runs | None
    user_agent: str | None


class DeviceList(Schema):
    devices: list[Device]
    count: int


def _parameter(name: str, values: Iterable[str], meaning: str) -> dict[str, Any]:
    schema = {"type": "string", "enum": list(values)}
    return {"in": "query", "name": name, "required": False, "description": meaning, "schema": schema}


FILTERS = {
    "parameters": [
        _parameter("state", STATES, "Only those in this state."),
        _parameter("silent", SILENT, "Only those that are silent, or only the others."),
        {
            "in": "query",
            "name": "type",
            "required": False,
            "description": "Only those whose configurations have the type of this name.",
            "schema": {"type": "string"},
        },
    ]
}


@router.get("/devices", response={200: DeviceList, **REFUSALS}, summary="List what boards did", openapi_extra=FILTERS)
def list_devices(request: HttpRequest) -> HttpResponseBase:
    require(request, "devices.view_deviceconfig")
    return answer_list("devices", partial(_read_page, _filtered(request)), PAGE_ROWS)


@router.get("/devices/{mac_address}", response={200: Device, **REFUSALS}, summary="Show what one board did")
def get_device(request: HttpRequest, mac_address: MacAddress) -> HttpResponseBase:
    require(request, "devices.view_deviceconfig")
    mac_address = normalise_mac_address(mac_address)
    rows = _describe(Board.objects.shown().filter(mac_address=mac_address))
    if not rows:
        message = f"{mac_address} has no configuration, and no board of this address asked for one."
        raise ApiError(404, "NOT_FOUND", message)
    return JsonResponse(rows[0])


def _filtered(request: HttpRequest) -> BoardQuerySet:
    """Return the boards that the address asks for. Raises 400 for a filter that is none: it would show all of them."""
    boards = Board.objects.shown()
    for name, values in request.GET.lists():
        if name not in FILTER_BY:
            message = f"There is no filter {name[:40]!a}. Use {' or '.join(FILTER_BY)}."
            raise ApiError(400, "INVALID_FILTER", message)
        if len(values) > 1:
            raise ApiError(400, "INVALID_FILTER", f"The filter {name} is there {len(values)} times. Name it once.")
        boards = FILTER_BY[name](boards, values[0])
    return boards


def _in_state(boards: BoardQuerySet, state: str) -> BoardQuerySet:
    _check("state", state, STATES)
    return boards.filter(state=state)


def _silent(boards: BoardQuerySet, silent: str) -> BoardQuerySet:
    _check("silent", silent, SILENT)
    return boards.silent(SILENT[silent])


def _check(name: str, value: str, values: Iterable[str]) -> None:
    if value not in values:
        raise ApiError(400, "INVALID_FILTER", f"{name} is {value[:40]!a}, but it must be {' or '.join(values)}.")


def _of_type(boards: BoardQuerySet, name: str) -> BoardQuerySet:
    return boards.filter(Exists(find_type(name).configs.filter(mac_address=OuterRef("mac_address"))))


FILTER_BY: dict[str, Callable[[BoardQuerySet, str], BoardQuerySet]] = {
    "state": _in_state,
    "silent": _silent,
    "type": _of_type,
}


def _read_page(boards: BoardQuerySet, after: str, count: int) -> list[dict[str, Any]]:
    return _describe(boards.filter(mac_address__gt=after).order_by("mac_address")[:count])


def _describe(boards: models.QuerySet[Board]) -> list[dict[str, Any]]:
    rows = list(boards)
    configs = DeviceConfig.objects.filter(mac_address__in=[row.mac_address for row in rows])
    names = dict(configs.values_list("mac_address", "device_name"))
    return [
        {
            "mac_address": row.mac_address,
            "device_name": names.get(row.mac_address),
            "state": row.state,
            "behind_since": in_utc(row.behind_since),
            "last_seen": in_utc(row.last_seen),
            "last_address": row.last_address,
            "silent": row.is_silent,
            "holds_sha256": row.holds_sha256,
            "runs": _runs(row),
            "user_agent": row.user_agent or None,
        }
        for row in rows
    ]


def _runs(row: Board) -> dict[str, str | None] | None:
    if not row.runs_version and not row.runs_filename:
        return None
    return {
        "version": row.runs_version or None,
        "asset": row.runs_filename or None,
        "sha256": row.runs_asset_sha256 or None,
    }


def in_utc(moment: datetime | None) -> str | None:
    """RFC 3339."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None
