"""What devices download: no session, no database."""

from __future__ import annotations

import re

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from assets.models import Asset
from assets.names import find_filename
from iotsupport.errors import public_view
from iotsupport.serving.ahead_of_django import FastDownloads
from iotsupport.serving.responses import mirror_response

CONTENT_TYPE = "application/octet-stream"


@public_view
def download_asset(request: HttpRequest, filename: str) -> HttpResponseBase:
    """Send a device the bytes of an asset (RFC 9110: conditional and ranged), with their digests.

    Reads the mirror only. Refuses an unusable name with 400 and an unknown one with 404.
    """
    storage = Asset.storage()
    filename = find_filename(filename, storage.exists)
    return mirror_response(request, storage, filename, content_type=CONTENT_TYPE, with_digests=True)


# No name that find_filename() refuses or changes.
FAST_DOWNLOADS = FastDownloads(
    path=re.compile(r"/assets/((?!.*\.\.)[\w-][\w.-]{0,199})", re.ASCII),
    storage=Asset.storage,
    content_type=CONTENT_TYPE,
    with_digests=True,
)
