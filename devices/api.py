"""Configurations, for scripts and CI."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any, NamedTuple

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import Router, Schema
from ninja.decorators import decorate_view
from pydantic import WithJsonSchema

from devices.fields import normalise_mac_address
from devices.limits import MAY_ADD, MAY_CHANGE, WRAPPING_MAX_BYTES
from devices.lists import answer_list
from devices.metrics import track_answers
from devices.models import DeviceConfig, DeviceType
from devices.parsing import Member, check_size, decode_config, parse_members
from devices.types.finding import find_type
from devices.views import MAC_ADDRESS_SCHEMA
from iotsupport.api import REFUSALS, body_of, no_content, read_json, require
from iotsupport.editing import origins, reasons
from iotsupport.errors import ApiError
from iotsupport.serving.responses import matches_any

router = Router(tags=["configurations"])

LISTED = ["mac_address", "device_name", "device_entity_id", "enable_ota"]

# More than these are streamed.
PAGE_ROWS = 2000

MacAddress = Annotated[str, WithJsonSchema(MAC_ADDRESS_SCHEMA)]

WRAPPER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "content": {"type": "object"},
        "allow_overwrite": {"type": "boolean", "default": True},
        "reason": reasons.SCHEMA,
        "type": {"type": ["string", "null"], "description": "The type that it is to have; without, it stays."},
        "although_it_does_not_fit": {"type": "boolean", "default": False},
    },
    "required": ["content"],
    "additionalProperties": False,
}

CONDITIONS = {
    "parameters": [
        {"in": "header", "name": name, "required": False, "description": meaning, "schema": {"type": "string"}}
        for name, meaning in {
            "If-Match": "Change it only if this is its ETag; otherwise answer 412.",
            "If-None-Match": "With *: only create it; answer 412 where it exists.",
        }.items()
    ]
    + [reasons.HEADER_PARAMETER]
}


class Keep(Enum):
    KEEP = "what it has"


KEEP = Keep.KEEP


class Wishes(NamedTuple):
    """What a request says beside the configuration."""

    allow_overwrite: bool = True
    although_it_does_not_fit: bool = False
    type: DeviceType | None | Keep = KEEP


NO_WISHES = Wishes()


class ConfigSummary(Schema):
    mac_address: str
    device_name: str | None
    device_entity_id: str | None
    enable_ota: bool | None
    type: str | None
    fits: bool | None


class ConfigList(Schema):
    configs: list[ConfigSummary]
    count: int


class Config(ConfigSummary):
    content: dict[str, Any]


@router.get("/configs", response={200: ConfigList, **REFUSALS}, summary="List all configurations")
@decorate_view(track_answers("list"))
def list_configs(request: HttpRequest) -> HttpResponseBase:
    require(request, "devices.view_deviceconfig")
    return answer_list("configs", _read_page, PAGE_ROWS)


def _read_page(after: str, count: int) -> list[dict[str, Any]]:
    rows = DeviceConfig.objects.filter(mac_address__gt=after).order_by("mac_address")
    return [
        {**dict(zip(LISTED, facts, strict=True)), "type": type_name, "fits": fits}
        for *facts, type_name, fits in rows.values_list(*LISTED, "type__name", "fits")[:count]
    ]


@router.put(
    "/configs/{mac_address}.json",
    response={200: Config, **REFUSALS},
    summary="Create or replace a configuration, byte for byte",
    openapi_extra=body_of("application/json", {"type": "object"}) | CONDITIONS,
)
@decorate_view(track_answers("save"))
def put_config_file(request: HttpRequest, mac_address: MacAddress) -> HttpResponse:
    mac_address = normalise_mac_address(mac_address)
    reasons.read_header(request)
    body = read_json(request, settings.CONFIG_MAX_BYTES)
    return _put(request, mac_address, decode_config(body))


@router.get("/configs/{mac_address}", response={200: Config, **REFUSALS}, summary="Show one configuration")
@decorate_view(track_answers("get"))
def get_config(request: HttpRequest, mac_address: MacAddress) -> HttpResponse:
    require(request, "devices.view_deviceconfig")
    return answer_config(_find(normalise_mac_address(mac_address)))


@router.put(
    "/configs/{mac_address}",
    response={200: Config, **REFUSALS},
    summary="Create or replace a configuration",
    openapi_extra=body_of("application/json", WRAPPER) | CONDITIONS,
)
@decorate_view(track_answers("save"))
def put_config(request: HttpRequest, mac_address: MacAddress) -> HttpResponse:
    mac_address = normalise_mac_address(mac_address)
    reasons.read_header(request)
    body = read_json(request, settings.CONFIG_MAX_BYTES + WRAPPING_MAX_BYTES)
    members = parse_members(decode_config(body))
    if "content" not in members or members.keys() - WRAPPER["properties"].keys():
        others = [f'"{name}"' for name in WRAPPER["properties"] if name != "content"]
        message = f'Send an object with "content" (the configuration) and, if you like, {", ".join(others)}.'
        raise ApiError(400, "INVALID_BODY", message)
    content = members["content"]
    wishes = Wishes(
        _flag(members, "allow_overwrite", default=True),
        _flag(members, "although_it_does_not_fit", default=False),
        type_named(members["type"].value) if "type" in members else KEEP,
    )
    _take_reason(members.get("reason"))
    check_size(content.source)
    return _put(request, mac_address, content.source, content.value, wishes)


def _flag(members: dict[str, Member], name: str, *, default: bool) -> bool:
    value = members[name].value if name in members else default
    if not isinstance(value, bool):
        raise ApiError(400, "INVALID_BODY", f'"{name}" must be true or false.')
    return value


def type_named(name: Any) -> DeviceType | None:
    """Return the type that a body names; None for null. Raises 400 where there is none of this name."""
    if name is None:
        return None
    if not isinstance(name, str):
        raise ApiError(400, "INVALID_BODY", '"type" must be the name of a type, or null.')
    return find_type(name)


@router.delete(
    "/configs/{mac_address}",
    response={204: None, **REFUSALS},
    summary="Delete a configuration",
    openapi_extra=CONDITIONS,
)
@decorate_view(track_answers("delete"))
def delete_config(request: HttpRequest, mac_address: MacAddress) -> HttpResponse:
    require(request, "devices.delete_deviceconfig")
    mac_address = normalise_mac_address(mac_address)
    reasons.read_header(request)
    with transaction.atomic():
        config = _find(mac_address, for_update=True)
        check_if_match(request, config)
        config.delete()
    return no_content()


def _put(
    request: HttpRequest, mac_address: str, content: str, parsed: Any = None, wishes: Wishes = NO_WISHES
) -> HttpResponse:
    _require_either(request, mac_address)
    new = DeviceConfig.objects.prepare(content, parsed if isinstance(parsed, dict) else None)
    new.judge(DeviceType.objects.of(mac_address) if wishes.type is KEEP else wishes.type)
    with DeviceConfig.objects.locked(mac_address, new) as config:
        is_new = config.pk is None
        user = require(request, MAY_ADD if is_new else MAY_CHANGE)
        check_if_match(request, config)
        if not is_new and not wishes.allow_overwrite:
            message = f"{mac_address} has a configuration already. Send allow_overwrite: true to replace it."
            raise ApiError(409, "ALREADY_EXISTS", message)
        config.set_content(new)
        config.updated_by = user
        config.although_it_does_not_fit = wishes.although_it_does_not_fit
        if wishes.type is not KEEP:
            config.type = wishes.type
    return answer_config(config)


def _take_reason(member: Member | None) -> None:
    if member is None:
        return
    if not isinstance(member.value, str):
        raise ApiError(400, "INVALID_BODY", '"reason" must be a text.')
    origins.current().reason = reasons.check_reason(member.value)


def _require_either(request: HttpRequest, mac_address: str) -> None:
    """Refuse who may save nothing before anything is written. Which permission is needed, the locked row tells."""
    if not request.user.has_perm(MAY_ADD) and not request.user.has_perm(MAY_CHANGE):
        is_there = DeviceConfig.objects.filter(mac_address=mac_address).exists()
        require(request, MAY_CHANGE if is_there else MAY_ADD)


def check_if_match(request: HttpRequest, row: DeviceConfig | DeviceType, what: str = "configuration") -> None:
    """Raise 412 unless ``If-Match`` and ``If-None-Match`` allow to change this row (RFC 9110, section 13.1).

    One that is not saved yet stands for nothing there.
    """
    if_match, if_none_match = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if if_match is None and if_none_match is None:
        return
    etag = None if row.pk is None else row.etag
    if if_match is not None and not matches_any(if_match, etag, strong=True):
        message = f"The {what} was changed meanwhile, or does not exist. Fetch it again, then repeat your change."
        raise ApiError(412, "PRECONDITION_FAILED", message)
    if if_none_match is not None and matches_any(if_none_match, etag):
        message = f"The {what} exists already. Leave out If-None-Match to replace it."
        raise ApiError(412, "PRECONDITION_FAILED", message)


def _find(mac_address: str, *, for_update: bool = False) -> DeviceConfig:
    configs = DeviceConfig.objects.select_for_update() if for_update else DeviceConfig.objects
    config = configs.filter(mac_address=mac_address).first()
    if config is None:
        raise ApiError(404, "NOT_FOUND", f"{mac_address} has no configuration. PUT one to this address.")
    return config


def answer_config(config: DeviceConfig) -> HttpResponse:
    facts = {name: getattr(config, name) for name in LISTED}
    summary = json.dumps({**facts, "type": config.type and config.type.name, "fits": config.fits})
    # The content as it was typed: parsed and written again, 1e3 would be 1000.0.
    body = f'{summary[:-1]}, "content": {config.content}}}'
    return HttpResponse(body, content_type="application/json", headers={"ETag": config.etag})
