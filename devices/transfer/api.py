"""Configurations as a zip, for scripts and CI."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from ninja import Router, Schema

from devices.changes.api import ChangeDetails, answer
from devices.limits import MAY_ADD, MAY_CHANGE
from devices.models import DeviceConfig
from devices.transfer.beginning import begin_import, refused_file
from devices.transfer.exporting import answer_configs
from devices.transfer.zips import Report, open_configs
from iotsupport.api import REFUSALS, body_of, require
from iotsupport.editing import origins, reasons
from iotsupport.transfer.receiving import received_zip
from iotsupport.transfer.zipping import ZIP_ANSWER

router = Router(tags=["configurations"])


@router.get(
    "/configs.zip",
    response=REFUSALS,
    summary="Export all configurations, byte for byte, with their types",
    openapi_extra=ZIP_ANSWER,
)
def export_configs(request: HttpRequest) -> HttpResponseBase:
    require(request, "devices.view_deviceconfig")
    return answer_configs(DeviceConfig.objects.all())


class RefusedFile(Schema):
    name: str
    reason: str


class ImportReport(Schema):
    new: list[str]
    changed: list[str]
    unchanged: list[str]
    refused: list[RefusedFile]
    new_types: list[str]


@router.post(
    "/configs.zip",
    response={202: ImportReport | ChangeDetails, **REFUSALS},
    summary="Import a zip: begin a change of many, which goes on by itself unless something would be refused",
    openapi_extra={
        **body_of("application/zip", {"type": "string", "format": "binary"}),
        "parameters": [reasons.HEADER_PARAMETER],
    },
)
def import_configs(request: HttpRequest, dry_run: bool = False) -> HttpResponse:
    user = require(request, MAY_ADD if request.user.has_perm(MAY_ADD) else MAY_CHANGE)
    reasons.read_header(request)
    with received_zip(request) as file, open_configs(file) as zipped:
        if dry_run:
            return _tell(zipped.report(user))
        return answer(begin_import(zipped, user, reason=origins.current().reason), status=202)


def _tell(report: Report) -> HttpResponse:
    refused = [refused_file(*each) for each in report.refused]
    found = {name: getattr(report, name) for name in ["new", "changed", "unchanged", "new_types"]}
    return JsonResponse({**found, "refused": refused}, status=202)
