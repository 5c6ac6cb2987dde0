"""What devices download: no session, no database."""

from __future__ import annotations

from functools import partial

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from devices.fields import normalise_mac_address
from devices.metrics import count_answer, track_answers
from devices.models import DeviceConfig
from iotsupport.accounts.downloading import for_downloads
from iotsupport.boards.noting import note_quick, respond_and_note
from iotsupport.errors import public_view
from iotsupport.mirror.files import mirror_storage
from iotsupport.serving.downloads import Downloads
from iotsupport.serving.responses import mirror_response

# For the documentation alone: what does not match is refused in words of our own.
MAC_ADDRESS_SCHEMA = {
    "type": "string",
    "pattern": "^([0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{12})$",
    "examples": ["aa-bb-cc-dd-ee-ff"],
}

DOWNLOADS = Downloads(
    folders=("configs", "esp32/config"),
    name="mac_address",
    usual_name="[0-9a-f]{2}(?:-[0-9a-f]{2}){5}",  # the spelling that notifications announce
    ending=".json",
    permission="devices.view_deviceconfig",
    storage=partial(mirror_storage, DeviceConfig.storage_alias),
    content_type="application/json",
    count=partial(count_answer, "get_raw"),
    note=partial(note_quick, "configs"),
    is_small=True,
    name_schema=MAC_ADDRESS_SCHEMA,
    file_schema={"type": "object"},
    operation={
        "operationId": "devices_api_download_config",
        "summary": "Download a configuration, as devices do",
        "tags": ["configurations"],
    },
)


@public_view
@for_downloads(DOWNLOADS)
@track_answers("get_raw")
def download_config(request: HttpRequest, mac_address: str) -> HttpResponseBase:
    """Send a device the bytes of its configuration (RFC 9110: conditional and ranged).

    Reads the mirror only: neither the database nor the broker has to be there. Refuses what is not a MAC address
    with 400, and one without a configuration with 404.
    """
    filename = f"{normalise_mac_address(mac_address)}{DOWNLOADS.ending}"
    respond = partial(mirror_response, request, DOWNLOADS.storage(), filename, content_type=DOWNLOADS.content_type)
    return respond_and_note("configs", request, filename, respond)
