"""Where assets come in, which are larger than what everybody may send, and than memory."""

from __future__ import annotations

import re

from django.conf import settings

from iotsupport.limits import LargeBodies

MAY_UPLOAD = ("assets.add_asset", "assets.change_asset")

# The form around the file.
FORM_BYTES = 64 * 1024


def most_bytes() -> int:
    """What is somewhat too large is read to its end, so that its form or the API can say so, and count it."""
    return 2 * settings.ASSET_MAX_BYTES + FORM_BYTES


LARGE_BODIES = [
    LargeBodies("POST", re.compile(path), most_bytes, permissions=MAY_UPLOAD, is_streamed=True)
    for path in ["/assets", "/admin/assets/asset/.+"]
]
