"""What devices download: no session, no database."""

from __future__ import annotations

from functools import partial

from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

from assets.beside import answer_beside
from assets.models import Asset
from assets.names import find_filename
from assets.running import says_it_runs
from iotsupport.accounts.downloading import for_downloads
from iotsupport.boards.noting import note_quick, respond_and_note
from iotsupport.errors import public_view
from iotsupport.mirror.files import mirror_storage
from iotsupport.serving.downloads import Downloads
from iotsupport.serving.responses import mirror_response

# For the documentation alone: what does not match is refused in words of our own.
FILENAME_SCHEMA = {
    "type": "string",
    "pattern": r"^(?!\.|\s)(?!.*\.\.)[^/\\\u0000-\u001f\u007f-\u009f\u2028\u2029]+(?<!\s)$",
    "maxLength": 200,
    "description": "At most 200 bytes in UTF-8. Kept in Unicode's form NFC, and found in any.",
    "examples": ["firmware.bin"],
}

DOWNLOADS = Downloads(
    folders=("assets",),
    name="filename",
    usual_name=r"(?!.*\.\.)[\w-][\w.-]{0,199}",  # which find_filename() neither refuses nor changes
    permission="assets.view_asset",
    storage=partial(mirror_storage, Asset.storage_alias),
    content_type="application/octet-stream",
    with_digests=True,
    note=partial(note_quick, "assets"),
    is_running=says_it_runs,
    name_schema=FILENAME_SCHEMA,
    file_schema={"type": "string", "format": "binary"},
    operation={
        "operationId": "assets_api_download_asset",
        "summary": "Download an asset, as devices do",
        "tags": ["assets"],
    },
)


@public_view
@for_downloads(DOWNLOADS)
def download_asset(request: HttpRequest, filename: str) -> HttpResponseBase:
    """Send a device the bytes of an asset (RFC 9110: conditional and ranged), with their digests.

    Or what is made of them, where no asset has that name. Reads the mirror only. Refuses an unusable name with 400 and
    an unknown one with 404.
    """
    storage = DOWNLOADS.storage()
    try:
        filename = find_filename(filename, storage.exists)
        respond = partial(
            mirror_response,
            *(request, storage, filename),
            content_type=DOWNLOADS.content_type,
            with_digests=DOWNLOADS.with_digests,
            is_running=DOWNLOADS.is_running,
        )
        return respond_and_note("assets", request, filename, respond)
    except (Http404, ValidationError):
        made = answer_beside(request, storage, filename)
        if made is None:
            raise
        return made
