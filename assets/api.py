"""Assets, for scripts and CI."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from ninja import Router, Schema
from ninja.decorators import decorate_view
from pydantic import WithJsonSchema

from assets.exporting import answer_assets
from assets.identity import describe
from assets.metrics import SIZE, track_uploads
from assets.models import Asset
from assets.names import find_filename, name_of_upload
from assets.uploads import UploadedAsset
from assets.views import FILENAME_SCHEMA
from iotsupport import converters  # noqa: F401 - registers {anything:…}
from iotsupport.api import (
    REFUSALS,
    body_of,
    no_content,
    require,
    require_length,
    require_no_coding,
)
from iotsupport.editing import reasons
from iotsupport.errors import ApiError
from iotsupport.transfer.zipping import ZIP_ANSWER

router = Router(tags=["assets"])

Filename = Annotated[str, WithJsonSchema(FILENAME_SCHEMA)]

UPLOAD_FORM = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "unchanged_where_running": {
            "type": "boolean",
            "description": "Whether boards that say they run it are told that there is nothing new. Stays as it is"
            " where it is left out; of a new asset it is false.",
        },
    },
    "required": ["file"],
}
REASON = {"parameters": [reasons.HEADER_PARAMETER]}
CHOICES = {"true": True, "false": False}


class ImageSchema(Schema):
    chip: str
    project: str | None
    version: str | None
    idf_version: str | None
    built: str | None
    elf_sha256: str | None
    image_sha256: str | None
    signed: bool


class AssetSchema(Schema):
    filename: str
    size: int
    sha256: str
    uploaded_at: datetime
    image: ImageSchema | None
    warnings: list[str]
    unchanged_where_running: bool


@router.get("/assets", response={200: list[AssetSchema], **REFUSALS}, summary="List all assets")
def list_assets(request: HttpRequest) -> HttpResponse:
    require(request, "assets.view_asset")
    return JsonResponse([_describe(asset) for asset in Asset.objects.order_by("filename")], safe=False)


@router.get("/assets.zip", response=REFUSALS, summary="Export all assets, byte for byte", openapi_extra=ZIP_ANSWER)
def export_assets(request: HttpRequest) -> HttpResponseBase:
    require(request, "assets.view_asset")
    return answer_assets(Asset.objects.all())


@router.post(
    "/assets",
    response={200: AssetSchema, **REFUSALS},
    summary="Upload an asset, new or again",
    openapi_extra=body_of("multipart/form-data", UPLOAD_FORM) | REASON,
)
@decorate_view(track_uploads)
def upload_asset(request: HttpRequest) -> HttpResponse:
    reasons.read_header(request)
    upload = _read_upload(request)
    choice = _read_choice(request)
    blob = upload.require_blob()
    with Asset.objects.locked(name_of_upload(upload.full_name)) as asset:
        asset.uploaded_by = require(request, "assets.add_asset" if asset.pk is None else "assets.change_asset")
        asset.set_bytes(blob)
        if choice is not None:
            asset.unchanged_where_running = choice
    SIZE.observe(asset.size)
    return JsonResponse(_describe(asset))


@router.delete(
    "/assets/{anything:filename}",
    response={204: None, **REFUSALS},
    summary="Delete an asset",
    openapi_extra=REASON,
)
def delete_asset(request: HttpRequest, filename: Filename) -> HttpResponse:
    require(request, "assets.delete_asset")
    reasons.read_header(request)
    filename = find_filename(filename, lambda name: Asset.objects.filter(filename=name).exists())
    with transaction.atomic():
        asset = Asset.objects.select_for_update().filter(filename=filename).first()
        if asset is None:
            raise ApiError(404, "NOT_FOUND", f"There is no asset called {filename}. GET /assets lists them all.")
        asset.delete()
    return no_content()


def _read_upload(request: HttpRequest) -> UploadedAsset:
    if (request.content_type or "").lower() != "multipart/form-data":
        message = "Send the file as multipart/form-data, in a field called 'file': curl -F file=@firmware.bin …"
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", message)
    require_no_coding(request)
    require_length(request)
    # One of the two is needed at least; which, the name will tell.
    if not request.user.has_perm("assets.add_asset"):
        require(request, "assets.change_asset")
    uploads = request.FILES.getlist("file")
    if len(uploads) > 1:
        raise ApiError(400, "TOO_MANY_FILES", "Several files arrived. Send each in a request of its own.")
    if not uploads or not isinstance(uploads[0], UploadedAsset):
        message = "No file arrived. Send one file with a usable name in the multipart field 'file'."
        raise ApiError(400, "NO_FILE", message)
    return uploads[0]


def _read_choice(request: HttpRequest) -> bool | None:
    said = request.POST.get("unchanged_where_running")
    if said is None:
        return None
    if said not in CHOICES:
        raise ApiError(400, "INVALID_VALUE", "The field 'unchanged_where_running' is either true or false.")
    return CHOICES[said]


def _describe(asset: Asset) -> dict[str, Any]:
    return {
        "filename": asset.filename,
        "size": asset.size,
        "sha256": asset.sha256,
        "uploaded_at": asset.uploaded_at,
        "image": describe(asset.image),
        "warnings": asset.warnings,
        "unchanged_where_running": asset.unchanged_where_running,
    }
