"""The versions of a configuration, for scripts and CI."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from ninja import Router, Schema
from ninja.decorators import decorate_view
from pydantic import WithJsonSchema

from devices.api import CONDITIONS, Config, MacAddress, answer_config, check_if_match
from devices.boards_api import Time, in_utc
from devices.fields import normalise_mac_address
from devices.limits import MAY_ADD, MAY_CHANGE
from devices.metrics import track_answers
from devices.models import DeviceConfig
from iotsupport.api import REFUSALS, require
from iotsupport.editing import origins, reasons
from iotsupport.editing.history import DELETED
from iotsupport.editing.numbered import Numbered, parse_number
from iotsupport.editing.restoring import restore
from iotsupport.errors import ApiError

router = Router(tags=["configurations"])

# Read at once; each has a text of up to CONFIG_MAX_BYTES.
PAGE_ROWS = 50

Number = Annotated[str, WithJsonSchema({"type": "integer", "minimum": 1, "description": "1 is the first version."})]
WAYS = [way.value for way in origins.Way]


class Version(Schema):
    number: int
    saved_at: Time
    by: str | None
    way: Annotated[str | None, WithJsonSchema({"anyOf": [{"type": "string", "enum": WAYS}, {"type": "null"}]})]
    reason: str | None
    sha256: str
    deleted: bool


class VersionList(Schema):
    versions: list[Version]


class VersionWithContent(Version):
    content: dict[str, Any]


@router.get(
    "/configs/{mac_address}/versions",
    response={200: VersionList, **REFUSALS},
    summary="List the versions of a configuration",
    description="The newest first, also of what is deleted. A deletion is a version, too: `deleted` says so, and its"
    " content is what was deleted. Numbers stay when old versions are forgotten.",
)
@decorate_view(track_answers("list"))
def list_versions(request: HttpRequest, mac_address: MacAddress) -> HttpResponseBase:
    require(request, "devices.view_deviceconfig")
    pages = _pages(_versions_of(normalise_mac_address(mac_address)))
    first = next(pages)
    if len(first) < PAGE_ROWS:
        return JsonResponse({"versions": first})
    return StreamingHttpResponse(_stream(first, pages), content_type="application/json")


@router.get(
    "/configs/{mac_address}/versions/{number}",
    response={200: VersionWithContent, **REFUSALS},
    summary="Show one version of a configuration",
)
@decorate_view(track_answers("get"))
def get_version(request: HttpRequest, mac_address: MacAddress, number: Number) -> HttpResponse:
    require(request, "devices.view_deviceconfig")
    known, version = _find(normalise_mac_address(mac_address), number)
    said = json.dumps(_describe(known, version))
    # As it was typed.
    return HttpResponse(f'{said[:-1]}, "content": {version.content}}}', content_type="application/json")


@router.post(
    "/configs/{mac_address}/versions/{number}/restore",
    response={200: Config, **REFUSALS},
    summary="Save an earlier version of a configuration anew",
    description="As a PUT of its content. What was deleted is brought back.",
    openapi_extra=CONDITIONS,
)
@decorate_view(track_answers("save"))
def restore_version(request: HttpRequest, mac_address: MacAddress, number: Number) -> HttpResponse:
    mac_address = normalise_mac_address(mac_address)
    if not request.user.has_perm(MAY_ADD):
        require(request, MAY_CHANGE)  # one of the two at least; which, the locked row tells
    known, version = _find(mac_address, number)
    origins.current().reason = f"Restored from version {known}"
    reasons.read_header(request)
    return answer_config(restore(DeviceConfig, version, partial(_allow, request)))


def _allow(request: HttpRequest, config: DeviceConfig) -> None:
    config.updated_by = require(request, MAY_ADD if config.pk is None else MAY_CHANGE)
    check_if_match(request, config)


def _versions_of(mac_address: str) -> Numbered:
    versions = Numbered(DeviceConfig, mac_address)
    if versions.last < versions.first:
        message = f"{mac_address} never had a configuration. PUT one to /configs/{mac_address}."
        raise ApiError(404, "NOT_FOUND", message)
    return versions


def _find(mac_address: str, text: str) -> tuple[int, Any]:
    versions = _versions_of(mac_address)
    number = parse_number(text)
    version = None if number is None else versions.get(number)
    if number is None or version is None:
        message = f"There is no such version of {mac_address}. It has the versions {versions.first} to {versions.last}."
        raise ApiError(404, "NOT_FOUND", message)
    return number, version


def _pages(versions: Numbered) -> Iterator[list[dict[str, Any]]]:
    """Yield what the list says; each page is a query of its own, which keeps nothing open for a slow reader."""
    number, last = versions.last, None
    while True:
        rows = versions.rows if last is None else versions.rows.filter(history_id__lt=last)
        page = list(rows.select_related("history_user").order_by("-history_id")[:PAGE_ROWS])
        yield [_describe(number - place, version) for place, version in enumerate(page)]
        if len(page) < PAGE_ROWS:
            return
        number, last = number - len(page), page[-1].history_id


def _stream(first: list[dict[str, Any]], others: Iterator[list[dict[str, Any]]]) -> Iterator[str]:
    yield f'{{"versions": [{json.dumps(first)[1:-1]}'
    for page in others:
        yield "".join(f", {json.dumps(version)}" for version in page)
    yield "]}"


def _describe(number: int, version: Any) -> dict[str, Any]:
    return {
        "number": number,
        "saved_at": in_utc(version.history_date),
        "by": version.history_user.get_username() if version.history_user else None,
        "way": version.history_way,
        "reason": version.history_change_reason,
        "sha256": hashlib.sha256(version.content.encode()).hexdigest(),
        "deleted": version.history_type == DELETED,
    }
