"""Configurations go out as files, byte for byte, and their types beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from devices.models import DeviceConfig, DeviceType
from devices.transfer.types import LIST, file_of, write_list, write_type
from iotsupport.transfer.zipping import ZippedFile, answer_zip

# So many are read at a time: each is a query of its own, so whoever takes them slowly keeps no transaction open.
TOGETHER = 200


def answer_configs(configs: QuerySet[DeviceConfig]) -> StreamingHttpResponse:
    """Send these as a zip, by MAC address."""
    return answer_zip("configs", files_of(configs), is_packed=True)


def files_of(configs: QuerySet[DeviceConfig]) -> Iterator[ZippedFile]:
    """A file of each, then what says which has which type, and one of each of these types."""
    addresses = list(configs.order_by("mac_address").values_list("mac_address", flat=True).distinct())
    types: dict[str, int] = {}
    for start in range(0, len(addresses), TOGETHER):
        rows = DeviceConfig.objects.filter(mac_address__in=addresses[start : start + TOGETHER])
        found = rows.order_by("mac_address").values_list("mac_address", "content", "updated_at", "type")
        for mac_address, content, updated_at, type_pk in found:
            yield _file(DeviceConfig.filename_of(mac_address), content.encode(), changed_at=updated_at)
            if type_pk is not None:
                types[mac_address] = type_pk
    yield from _files_about(types)


def _files_about(types: dict[str, int]) -> Iterator[ZippedFile]:
    if not types:
        return
    known = DeviceType.objects.in_bulk(set(types.values()))
    names = {mac_address: known[pk].name for mac_address, pk in types.items() if pk in known}
    yield _file(LIST, write_list(names))
    for device_type in sorted(known.values(), key=file_of):
        yield _file(file_of(device_type), write_type(device_type), changed_at=device_type.updated_at)


def _file(name: str, content: bytes, **fields: Any) -> ZippedFile:
    return ZippedFile(name, len(content), lambda: [content], **fields)
