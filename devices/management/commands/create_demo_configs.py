"""Sample devices, for ``make demo``."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from devices.models import DeviceConfig, DeviceType
from iotsupport.characters import fold
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


# Of two kinds; those of the third have no type.
TYPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "thermometer": (
        "Thermometer",
        "Measures temperature and humidity of a room.",
        {
            "type": "object",
            "properties": {
                "deviceName": {"type": "string", "title": "Name", "minLength": 1},
                "deviceEntityId": {"type": "string", "pattern": "^[a-z0-9_]+$"},
                "enableOTA": {"type": "boolean", "title": "OTA updates", "default": True},
                "firmware": {"type": "string", "title": "Firmware", "description": "A file of the assets."},
                "sensors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "type": {"enum": ["DHT11", "DHT22"]},
                            "pin": {"enum": [1, 2, 4, 5]},
                            "offset": {"type": "number", "minimum": -5, "maximum": 5, "default": 0},
                        },
                        "required": ["type", "pin"],
                        "additionalProperties": False,
                    },
                },
                "reportSeconds": {"type": "integer", "title": "Seconds between reports", "minimum": 10, "default": 60},
            },
            "required": ["deviceName", "deviceEntityId", "sensors"],
            "additionalProperties": False,
        },
    ),
    "light": (
        "Light",
        "A strip of LEDs with scenes.",
        {
            "type": "object",
            "properties": {
                "deviceName": {"type": "string", "title": "Name", "minLength": 1},
                "led": {
                    "type": "object",
                    "properties": {"pin": {"type": "integer"}, "count": {"type": "integer", "maximum": 300}},
                    "required": ["pin", "count"],
                },
                "scenes": {
                    "type": "object",
                    "additionalProperties": {"properties": {"color": {"pattern": "^#[0-9a-f]{6}$"}}},
                },
            },
            "required": ["deviceName", "led"],
        },
    ),
}


class Command(BaseCommand):
    help = "Make two dozen sample devices; those that are there already are left alone."
    requires_system_checks = INSTALLATION

    @transaction.atomic
    def handle(self, **options: Any) -> None:
        types = {kind: _type_of(kind) for kind, _ in KINDS}
        kinds = [(room, kind, config) for room in ROOMS for kind, config in KINDS]
        for mac_address, (room, kind, config) in zip(MAC_ADDRESSES, kinds, strict=True):
            if not DeviceConfig.objects.filter(mac_address=mac_address).exists():
                content = json.dumps(describe(room, kind) | config, indent=2, ensure_ascii=False)
                DeviceConfig.objects.create(mac_address=mac_address, content=content, type=types[kind])


def _type_of(kind: str) -> DeviceType | None:
    if kind not in TYPES:
        return None
    name, description, schema = TYPES[kind]
    begin = json.dumps(describe("New", kind) | dict(KINDS)[kind], indent=2, ensure_ascii=False)
    texts = {"description": description, "schema": json.dumps(schema, indent=2), "starting_content": begin}
    return DeviceType.objects.get_or_create(folded=fold(name), defaults={"name": name, **texts})[0]


def describe(room: str, kind: str) -> dict[str, Any]:
    entity_id = f"{room} {kind}".lower().replace(" ", "_")
    return {"deviceName": f"{room} {kind}", "deviceEntityId": entity_id}
