"""Where configurations come in, which may be larger than what everybody may send."""

from __future__ import annotations

import re

from django.conf import settings

from iotsupport.editing.reasons import MOST_CHARACTERS
from iotsupport.limits import LargeBodies

# Around a configuration of the largest size, the wrapping object may be indented too, and give a reason.
WRAPPING_MAX_BYTES = 4096 + 12 * MOST_CHARACTERS

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
