"""Sample devices, for ``make demo``."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from devices.models import DeviceConfig
from iotsupport.checks import INSTALLATION
from iotsupport.trial.demo import MAC_ADDRESSES

ROOMS = ["Kitchen", "Living room", "Bedroom", "Bathroom", "Office", "Hall", "Cellar", "Garage"]

# What a kind of device is called, and what it is told.
KINDS: list[tuple[str, dict[str, Any]]] = [
    (
        "thermometer",
        {
            "enableOTA": True,
            "firmware": "demo-firmware.bin",
            "sensors": [{"type": "DHT22", "pin": 4, "offset": -0.5}],
            "reportSeconds": 60,
        },
    ),
    (
        "light",
        {
            "enableOTA": False,
            "led": {"pin": 5, "count": 60, "order": "GRB"},
            "scenes": {"evening": {"brightness": 0.3, "color": "#ffb46b"}, "off": {"brightness": 0}},
        },
    ),
    (
        "display",
        {
            "enableOTA": True,
            "display": {"driver": "SSD1306", "width": 128, "height": 64, "font": "demo-font.bin"},
            "pages": [{"title": "Outside", "unit": "°C"}, {"title": "Power", "unit": "W"}],
            "sleepSeconds": 300,
        },
    ),
]


class Command(BaseCommand):
    help = "Make two dozen sample devices; those that are there already are left alone."
    requires_system_checks = INSTALLATION

    @transaction.atomic
    def handle(self, **options: Any) -> None:
        kinds = [(room, kind, config) for room in ROOMS for kind, config in KINDS]
        for mac_address, (room, kind, config) in zip(MAC_ADDRESSES, kinds, strict=True):
            if not DeviceConfig.objects.filter(mac_address=mac_address).exists():
                content = json.dumps(describe(room, kind) | config, indent=2, ensure_ascii=False)
                DeviceConfig.objects.create(mac_address=mac_address, content=content)


def describe(room: str, kind: str) -> dict[str, Any]:
    entity_id = f"{room} {kind}".lower().replace(" ", "_")
    return {"deviceName": f"{room} {kind}", "deviceEntityId": entity_id}
