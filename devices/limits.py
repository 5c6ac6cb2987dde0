"""Where configurations come in, which may be larger than what everybody may send."""

from __future__ import annotations

import re

from django.conf import settings

from iotsupport.limits import LargeBodies

# Around a configuration of the largest size, the wrapping object may be indented too.
WRAPPING_MAX_BYTES = 4096

MAY_ADD, MAY_CHANGE = MAY_SAVE = ("devices.add_deviceconfig", "devices.change_deviceconfig")

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
