"""What devices download: no session, no database."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from assets.models import Asset
from assets.names import validate_filename
from iotsupport.downloads import mirror_response
from iotsupport.errors import json_view


@json_view
def download_asset(request: HttpRequest, filename: str) -> HttpResponseBase:
    """Send a device the bytes of an asset (RFC 9110: conditional and ranged), with their digests.

    Reads the mirror only. Refuses an unusable name with 400 and an unknown one with 404.
    """
    validate_filename(filename)
    return mirror_response(
        request, Asset.storage(), filename, content_type="application/octet-stream", with_digests=True
    )
