"""Configurations as a zip, for scripts and CI."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from ninja import Router

from devices.models import DeviceConfig
from devices.transfer.exporting import answer_configs
from iotsupport.api import REFUSALS, require
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
