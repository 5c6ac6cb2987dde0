"""Changes of many, for scripts and CI."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Router, Schema
from pydantic import WithJsonSchema

from devices.api import type_named
from devices.changes.choosing import Chosen, found, named
from devices.changes.models import CannotBegin, Change, ItemState, Kind, State
from devices.changes.planning import begin, begin_undo
from devices.changes.waking import wake
from devices.limits import MAY_CHANGE
from devices.parsing import Member, decode_config, parse_members
from devices.patching import Patch
from devices.views import MAC_ADDRESS_SCHEMA
from iotsupport.api import REFUSALS, body_of, read_json, require
from iotsupport.boards.models import CONFIGURED
from iotsupport.editing import reasons
from iotsupport.editing.origins import current
from iotsupport.errors import ApiError

router = Router(tags=["changes of many"])

MOST_CHANGES = 100
# Of those that were refused, left alone, or failed.
MOST_REASONS = 1000
WITH_REASON = [ItemState.REFUSED, ItemState.SKIPPED, ItemState.FAILED]

BODY = {
    "type": "object",
    "properties": {
        "patch": {"type": "object", "description": "A JSON merge patch (RFC 7396)."},
        "type": {
            "type": ["string", "null"],
            "description": "In place of a patch: the name of the type that they get; null takes it away.",
        },
        "announce": {"const": True, "description": "In place of a patch: announce them again, as they are."},
        "where": {
            "type": "object",
            "description": "Either the MAC addresses, or what to search for and which state: both must be so.",
            "properties": {
                "macs": {"type": "array", "items": MAC_ADDRESS_SCHEMA, "minItems": 1},
                "search": {"type": "string"},
                "state": {"type": "string", "enum": [state.value for state in CONFIGURED]},
                "type": {"type": "string", "description": "The name of their type."},
            },
            "additionalProperties": False,
            "oneOf": [
                {"required": ["macs"], "maxProperties": 1},
                {"not": {"required": ["macs"]}, "minProperties": 1},
            ],
        },
        "reason": reasons.SCHEMA,
    },
    "required": ["where"],
    "oneOf": [{"required": ["patch"]}, {"required": ["type"]}, {"required": ["announce"]}],
    "additionalProperties": False,
}
APPLY_BODY = {
    "type": "object",
    "properties": {"leave_out_refused": {"type": "boolean", "default": False}},
    "additionalProperties": False,
}

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class Reason(Schema):
    mac_address: str
    state: str
    reason: str


class ChangeSummary(Schema):
    id: int
    kind: Annotated[str, WithJsonSchema({"type": "string", "enum": Kind.values})]
    state: Annotated[str, WithJsonSchema({"type": "string", "enum": State.values})]
    reason: str
    remark: str
    undoes: int | None
    created_at: Time
    created_by: str | None
    applied_by: str | None
    finished_at: Time | None
    chosen: int


class ChangeDetails(ChangeSummary):
    counts: Annotated[
        dict[str, int],
        WithJsonSchema({"type": "object", "properties": {state: {"type": "integer"} for state in ItemState.values}}),
    ]
    not_changed: list[Reason]


class ChangeList(Schema):
    changes: list[ChangeSummary]
    count: int


@router.get("/changes", response={200: ChangeList, **REFUSALS}, summary="List the latest changes of many")
def list_changes(request: HttpRequest) -> HttpResponse:
    require(request, "devices.view_deviceconfig")
    changes = Change.objects.select_related("created_by", "applied_by")[:MOST_CHANGES]
    rows = [_summary(change) for change in changes]
    return JsonResponse({"changes": rows, "count": len(rows)})


@router.post(
    "/changes",
    response={202: ChangeDetails, **REFUSALS},
    summary="Plan a change of many configurations",
    openapi_extra=body_of("application/json", BODY) | {"parameters": [reasons.HEADER_PARAMETER]},
)
def plan_change(request: HttpRequest) -> HttpResponse:
    user = require(request, MAY_CHANGE)
    members = _members(request, BODY, settings.LIST_MAX_BYTES)
    fields = _what(members)
    chosen = _where(request, members.get("where"))
    fields |= {"reason": _reason(request, members.get("reason")), "chosen_by": chosen.words}
    change = begin(dict.fromkeys(chosen.mac_addresses), created_by=user, token=current().token, **fields)
    return answer(change, status=202)


@router.get("/changes/{int:pk}", response={200: ChangeDetails, **REFUSALS}, summary="Show a change of many")
def get_change(request: HttpRequest, pk: int) -> HttpResponse:
    require(request, "devices.view_deviceconfig")
    return answer(_find(pk))


@router.post(
    "/changes/{int:pk}/apply",
    response={202: ChangeDetails, **REFUSALS},
    summary="Apply a change that is planned, or go on with one that was stopped",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": APPLY_BODY}}}},
)
def apply_change(request: HttpRequest, pk: int) -> HttpResponse:
    user = require(request, MAY_CHANGE)
    change = _find(pk)
    members = _members(request, APPLY_BODY, settings.LIST_MAX_BYTES) if request.body else {}
    leave_out = members.get("leave_out_refused", Member("false", False)).value
    if not isinstance(leave_out, bool):
        raise ApiError(400, "INVALID_BODY", '"leave_out_refused" must be true or false.')
    _begin(lambda: change.apply(user, token=current().token, leave_out=leave_out), change)
    transaction.on_commit(wake)
    return answer(change, status=202)


@router.post(
    "/changes/{int:pk}/stop", response={202: ChangeDetails, **REFUSALS}, summary="Stop what is planned or applied"
)
def stop_change(request: HttpRequest, pk: int) -> HttpResponse:
    user = require(request, MAY_CHANGE)
    change = _find(pk)
    _begin(lambda: change.stop(user), change)
    return answer(change, status=202)


@router.post(
    "/changes/{int:pk}/undo",
    response={202: ChangeDetails, **REFUSALS},
    summary="Plan a change that gives each its earlier text, where nobody changed it since",
)
def undo_change(request: HttpRequest, pk: int) -> HttpResponse:
    user = require(request, MAY_CHANGE)
    change = _find(pk)
    return answer(_begin(lambda: begin_undo(change, user, current().token), change), status=202)


def _begin(act: Callable[[], Any], change: Change) -> Any:
    try:
        return act()
    except CannotBegin as error:
        raise ApiError(409, str(error.code), str(error.message), state=change.state) from error


def _find(pk: int) -> Change:
    change = Change.objects.select_related("created_by", "applied_by").filter(pk=pk).first()
    if change is None:
        raise ApiError(404, "NOT_FOUND", f"There is no change {pk}. GET /changes lists the latest.")
    return change


def _members(request: HttpRequest, schema: dict[str, Any], most_bytes: int) -> dict[str, Member]:
    members = parse_members(decode_config(read_json(request, most_bytes)))
    _check_names(members, schema["properties"], "the body")
    return members


def _check_names(members: Any, known: Any, what: str) -> None:
    if unknown := members.keys() - set(known):
        names = ", ".join(known)
        raise ApiError(
            400, "INVALID_BODY", f"{sorted(unknown)[0][:40]!a} is not known in {what}. It may have: {names}."
        )


def _what(members: dict[str, Member]) -> dict[str, Any]:
    """What is to be done: one of those that the body can name."""
    if len(members.keys() & {"patch", "type", "announce"}) != 1:
        raise ApiError(400, "INVALID_BODY", 'Send either "patch" (an object), "type" (its name) or "announce": true.')
    if "type" in members:
        device_type = type_named(members["type"].value)
        return {"kind": Kind.TYPE, "type": device_type, "type_name": device_type.name if device_type else ""}
    if "announce" in members:
        if members["announce"].value is not True:
            raise ApiError(400, "INVALID_BODY", '"announce" must be true, or left out.')
        return {"kind": Kind.ANNOUNCE}
    if not isinstance(members["patch"].value, dict):
        raise ApiError(400, "INVALID_BODY", '"patch" must be an object.')
    return {"kind": Kind.PATCH, "patch": Patch(members["patch"].source).source}


def _where(request: HttpRequest, member: Member | None) -> Chosen:
    where = member.value if member else None
    if not isinstance(where, dict) or not where:
        message = 'Send "where": {"macs": […]}, or what is to be found: {"search": "…", "state": "…"}.'
        raise ApiError(400, "INVALID_BODY", message)
    _check_names(where, BODY["properties"]["where"]["properties"], "where")  # type: ignore[index]
    if "macs" not in where:
        chosen = found(request, where)
    elif len(where) > 1:
        raise ApiError(400, "INVALID_BODY", 'Name either "macs", or what is to be found.')
    else:
        macs = where["macs"]
        if not isinstance(macs, list) or not all(isinstance(each, str) for each in macs):
            raise ApiError(400, "INVALID_BODY", '"macs" must be a list of MAC addresses.')
        chosen = named(macs)
    if not chosen.mac_addresses:
        raise ApiError(404, "NOTHING_FOUND", "No configuration is found, so there is nothing to change.")
    return chosen


def _reason(request: HttpRequest, member: Member | None) -> str:
    """From the body, else from the header."""
    if member is None:
        reasons.read_header(request)
        return current().reason
    if not isinstance(member.value, str):
        raise ApiError(400, "INVALID_BODY", '"reason" must be text.')
    return reasons.check_reason(member.value)


def answer(change: Change, status: int = 200) -> HttpResponse:
    """Say how far a change is."""
    tally = change.tally()
    items = change.items.filter(state__in=WITH_REASON).order_by("mac_address")[:MOST_REASONS]
    return JsonResponse(
        {
            **_summary(change),
            "counts": {state: tally[state] for state in ItemState.values},
            "not_changed": list(items.values("mac_address", "state", "reason")),
        },
        status=status,
    )


def _summary(change: Change) -> dict[str, Any]:
    return {
        "id": change.pk,
        "kind": change.kind,
        "state": change.state,
        "reason": change.reason,
        "remark": change.remark,
        "undoes": change.undoes_id,
        "created_at": _in_utc(change.created_at),
        "created_by": _name(change.created_by),
        "applied_by": _name(change.applied_by),
        "finished_at": _in_utc(change.finished_at),
        "chosen": change.count,
    }


def _name(user: User | None) -> str | None:
    return user.get_username() if user else None


def _in_utc(moment: datetime | None) -> str | None:
    """RFC 3339."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None
