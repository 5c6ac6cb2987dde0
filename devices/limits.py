"""Where configurations come in, which may be larger than what everybody may send."""

from __future__ import annotations

import re

from django.conf import settings

from devices.api import WRAPPING_MAX_BYTES
from iotsupport.limits import LargeBodies

MAY_SAVE = ("devices.add_deviceconfig", "devices.change_deviceconfig")

LARGE_BODIES = [
    LargeBodies(
        method="PUT",
        path=re.compile("/configs/[^/]+"),
        most_bytes=lambda: settings.CONFIG_MAX_BYTES + WRAPPING_MAX_BYTES,
        permissions=MAY_SAVE,
    ),
    LargeBodies(
        method="POST",
        path=re.compile("/admin/devices/deviceconfig/.+"),
        most_bytes=lambda: settings.FORM_MAX_BYTES,
        permissions=MAY_SAVE,
    ),
]
