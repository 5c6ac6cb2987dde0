"""The type that a request names."""

from __future__ import annotations

from devices.types.models import DeviceType
from iotsupport.characters import fold
from iotsupport.errors import ApiError


def find_type(name: str) -> DeviceType:
    """Return the type of this name. Raises 400 where there is none."""
    device_type = DeviceType.objects.filter(folded=fold(name)).first()
    if device_type is None:
        raise ApiError(400, "UNKNOWN_TYPE", f"There is no type {name[:40]!a}. GET /types lists them.")
    return device_type
