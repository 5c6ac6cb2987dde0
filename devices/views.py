"""What devices download: no session, no database."""

from __future__ import annotations

import re
from functools import partial

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from devices.fields import normalise_mac_address
from devices.metrics import count_answer, track_answers
from devices.models import DeviceConfig
from iotsupport.errors import public_view
from iotsupport.serving.ahead_of_django import FastDownloads
from iotsupport.serving.responses import mirror_response

CONTENT_TYPE = "application/json"


@public_view
@track_answers("get_raw")
def download_config(request: HttpRequest, mac_address: str) -> HttpResponseBase:
    """Send a device the bytes of its configuration (RFC 9110: conditional and ranged).

    Reads the mirror only: neither the database nor the broker has to be there. Refuses what is not a MAC address
    with 400, and one without a configuration with 404.
    """
    filename = f"{normalise_mac_address(mac_address)}.json"
    return mirror_response(request, DeviceConfig.storage(), filename, content_type=CONTENT_TYPE)


# The spelling that notifications announce.
FAST_DOWNLOADS = FastDownloads(
    path=re.compile(r"/(?:configs|esp32/config)/([0-9a-f]{2}(?:-[0-9a-f]{2}){5}\.json)"),
    storage=DeviceConfig.storage,
    content_type=CONTENT_TYPE,
    count=partial(count_answer, "get_raw"),
    is_small=True,
)
