"""What the room of boards asks of configurations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.db import transaction

from devices.models import DeviceConfig


class Configurations:
    def all(self, using: str) -> Iterator[tuple[str, str]]:
        rows = DeviceConfig._base_manager.using(using).values_list("mac_address", "content")
        for mac_address, content in rows.iterator(chunk_size=1000):
            yield mac_address, hashlib.sha256(content.encode()).hexdigest()

    @contextmanager
    def locked(self, mac_addresses: Sequence[str], using: str) -> Iterator[dict[str, str]]:
        with transaction.atomic(using=using):
            DeviceConfig.lock_names(mac_addresses, using)
            rows = DeviceConfig._base_manager.using(using).select_for_update()
            found = rows.filter(mac_address__in=mac_addresses).order_by("mac_address")
            yield {row.mac_address: row.content_sha256 for row in found}
