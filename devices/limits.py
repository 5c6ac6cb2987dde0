"""Where configurations come in, which may be larger than what everybody may send."""

from __future__ import annotations

import re

from django.conf import settings

from devices.schemas import SCHEMA_MAX_BYTES
from iotsupport.editing.reasons import MOST_CHARACTERS
from iotsupport.limits import LargeBodies
from iotsupport.transfer.unzipping import MOST_BYTES

# Around a configuration of the largest size, the wrapping object may be indented too, and give a reason.
WRAPPING_MAX_BYTES = 4096 + 12 * MOST_CHARACTERS

MAY_ADD, MAY_CHANGE = MAY_SAVE = ("devices.add_deviceconfig", "devices.change_deviceconfig")

MAY_SAVE_TYPES = ("devices.add_devicetype", "devices.change_devicetype")

# Around a schema and a starting content, whose characters may be escaped.
TYPE_WRAPPING_MAX_BYTES = 65536

# The page where a zip is chosen, and the form around it.
IMPORT_PATH = "/admin/devices/deviceconfig/import/"
FORM_BYTES = 64 * 1024

LARGE_BODIES = [
    LargeBodies("POST", re.compile(r"/configs\.zip"), lambda: MOST_BYTES, permissions=MAY_SAVE, is_streamed=True),
    LargeBodies(
        method="POST",
        path=re.compile(IMPORT_PATH),
        most_bytes=lambda: MOST_BYTES + FORM_BYTES,
        permissions=MAY_SAVE,
        is_streamed=True,
    ),
    LargeBodies(
        method="PUT",
        path=re.compile("/configs/[^/]+"),
        most_bytes=lambda: settings.CONFIG_MAX_BYTES + WRAPPING_MAX_BYTES,
        permissions=MAY_SAVE,
    ),
    LargeBodies(
        method="POST",
        path=re.compile("/changes"),
        most_bytes=lambda: settings.LIST_MAX_BYTES,
        permissions=(MAY_CHANGE,),
    ),
    LargeBodies(
        method="POST",
        path=re.compile("/admin/devices/change/new/"),
        most_bytes=lambda: settings.FORM_MAX_BYTES,
        permissions=(MAY_CHANGE,),
    ),
    LargeBodies(
        method="POST",
        path=re.compile("/admin/devices/deviceconfig/.+"),
        most_bytes=lambda: settings.FORM_MAX_BYTES,
        permissions=MAY_SAVE,
    ),
    LargeBodies(
        method="PUT",
        path=re.compile("/types/[^/]+"),
        most_bytes=lambda: SCHEMA_MAX_BYTES + settings.CONFIG_MAX_BYTES + TYPE_WRAPPING_MAX_BYTES,
        permissions=MAY_SAVE_TYPES,
    ),
    LargeBodies(
        method="POST",
        path=re.compile("/admin/devices/devicetype/.+"),
        most_bytes=lambda: settings.FORM_MAX_BYTES,
        permissions=MAY_SAVE_TYPES,
    ),
]
