"""Types of devices, for scripts and CI."""

from __future__ import annotations

import json
from typing import Annotated, Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from ninja import Field, Router, Schema
from pydantic import WithJsonSchema

from devices.api import CONDITIONS, check_if_match
from devices.limits import MAY_SAVE_TYPES, TYPE_WRAPPING_MAX_BYTES
from devices.models import DeviceType
from devices.parsing import Member, decode_config, parse_members
from devices.schemas import SCHEMA_MAX_BYTES
from devices.types import marking
from devices.types.admin import say_that_it_is_used
from devices.types.models import NAME_MAX_CHARS
from iotsupport.api import REFUSALS, body_of, no_content, read_json, require
from iotsupport.characters import fold
from iotsupport.editing import reasons
from iotsupport.errors import ApiError

router = Router(tags=["types"])

Name = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARS})]

WRITTEN = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "As it is to be written; the same but for capital letters."},
        "description": {"type": "string", "default": ""},
        "schema": {"type": "object", "description": "JSON Schema, draft 2020-12. Kept byte for byte."},
        "starting_content": {"type": "string", "default": "", "description": "Text that fits the schema, or nothing."},
    },
    "required": ["schema"],
    "additionalProperties": False,
}


class Type(Schema):
    name: str
    description: str
    rules: dict[str, Any] = Field(alias="schema")
    starting_content: str
    configs: int
    do_not_fit: int
    is_being_marked: bool


class TypeList(Schema):
    types: list[Type]
    count: int


@router.get("/types", response={200: TypeList, **REFUSALS}, by_alias=True, summary="List all types of devices")
def list_types(request: HttpRequest) -> HttpResponse:
    require(request, "devices.view_devicetype")
    described = [_describe(row) for row in _counted().order_by("folded")]
    body = f'{{"types": [{", ".join(described)}], "count": {len(described)}}}'
    return HttpResponse(body, content_type="application/json")


@router.get("/types/{name}", response={200: Type, **REFUSALS}, by_alias=True, summary="Show one type")
def get_type(request: HttpRequest, name: Name) -> HttpResponse:
    require(request, "devices.view_devicetype")
    return _answer(_find(name))


@router.put(
    "/types/{name}",
    response={200: Type, **REFUSALS},
    by_alias=True,
    summary="Create or replace a type; configurations that do not fit it any more are marked",
    openapi_extra=body_of("application/json", WRITTEN) | CONDITIONS,
)
def put_type(request: HttpRequest, name: Name) -> HttpResponse:
    if not any(map(request.user.has_perm, MAY_SAVE_TYPES)):
        require(request, "devices.change_devicetype")
    reasons.read_header(request)
    written = _read(request, name)
    try:
        with DeviceType.objects.locked(name) as row:
            row.updated_by = require(request, MAY_SAVE_TYPES[0 if row.pk is None else 1])
            check_if_match(request, row, "type")
            for field, value in written.items():
                setattr(row, field, value)
    except IntegrityError as error:  # created in this moment
        raise ApiError(409, "ALREADY_EXISTS", "Another type of this name was added. Send it again.") from error
    marking.finish(row)
    return _answer(_find(name))


@router.delete(
    "/types/{name}",
    response={204: None, **REFUSALS},
    summary="Delete a type that no configuration has",
    openapi_extra=CONDITIONS,
)
def delete_type(request: HttpRequest, name: Name) -> HttpResponse:
    require(request, "devices.delete_devicetype")
    reasons.read_header(request)
    with transaction.atomic():
        row = DeviceType.objects.select_for_update().filter(folded=fold(name)).first() or _find(name)
        check_if_match(request, row, "type")
        if count := row.configs.count():
            raise ApiError(409, "IN_USE", say_that_it_is_used(row.name, count), configs=count)
        row.delete()
    return no_content()


def _read(request: HttpRequest, name: str) -> dict[str, str]:
    """Return the fields that a request writes. Raises 400 for any other body."""
    most_bytes = SCHEMA_MAX_BYTES + settings.CONFIG_MAX_BYTES + TYPE_WRAPPING_MAX_BYTES
    members = parse_members(decode_config(read_json(request, most_bytes)))
    schema = members.pop("schema", None)
    others = {member: members.pop(member, Member("", "")).value for member in ["description", "starting_content"]}
    spelled = members.pop("name", Member("", name)).value
    if schema is None or members or not all(isinstance(value, str) for value in [spelled, *others.values()]):
        message = 'Send an object with "schema" (an object) and, if you like, the texts "description" and'
        raise ApiError(400, "INVALID_BODY", f'{message} "starting_content".')
    if fold(spelled) != fold(name):
        raise ApiError(400, "INVALID_BODY", f"The name {spelled[:40]!a} is another than the address has. Leave it out.")
    return {"name": spelled, "schema": schema.source, **others}


def _counted() -> Any:
    return DeviceType.objects.annotate(
        config_count=Count("configs"), misfit_count=Count("configs", filter=Q(configs__fits=False))
    )


def _find(name: str) -> Any:
    row = _counted().filter(folded=fold(name)).first()
    if row is None:
        raise ApiError(404, "NOT_FOUND", f"There is no type {name[:NAME_MAX_CHARS]!a}. PUT one to this address.")
    return row


def _answer(row: Any) -> HttpResponse:
    return HttpResponse(_describe(row), content_type="application/json", headers={"ETag": row.etag})


def _describe(row: Any) -> str:
    """JSON, with the schema as it was typed."""
    before = json.dumps({"name": row.name, "description": row.description})
    behind = json.dumps(
        {
            "starting_content": row.starting_content,
            "configs": row.config_count,
            "do_not_fit": row.misfit_count,
            "is_being_marked": row.marks_after is not None,
        }
    )
    return f'{before[:-1]}, "schema": {row.schema}, {behind[1:]}'
