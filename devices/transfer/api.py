"""Configurations as a zip, for scripts and CI."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from ninja import Router, Schema

from devices.limits import MAY_ADD, MAY_CHANGE
from devices.models import DeviceConfig
from devices.transfer.exporting import answer_configs
from devices.transfer.zips import Report, open_configs
from iotsupport.api import REFUSALS, body_of, require
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
    response={202: ImportReport, **REFUSALS},
    summary="Say what an import of a zip would do",
    openapi_extra=body_of("application/zip", {"type": "string", "format": "binary"}),
)
def import_configs(request: HttpRequest, dry_run: bool = False) -> HttpResponse:
    user = require(request, MAY_ADD if request.user.has_perm(MAY_ADD) else MAY_CHANGE)
    with received_zip(request) as file, open_configs(file) as zipped:
        return _tell(zipped.report(user))


def _tell(report: Report) -> HttpResponse:
    refused = [{"name": name, "reason": reason} for name, reason in report.refused]
    found = {name: getattr(report, name) for name in ["new", "changed", "unchanged", "new_types"]}
    return JsonResponse({**found, "refused": refused}, status=202)
