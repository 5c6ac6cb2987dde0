"""Types and configurations of them, as the tests of types make them."""

from __future__ import annotations

from typing import Any

from devices.models import DeviceConfig, DeviceType

SCHEMA = '{"properties": {"pin": {"enum": [1, 2, 4]}},\n "required": ["pin"]}\n'
STRICTER = '{"properties": {"pin": {"enum": [1, 2]}}}'
FITS, DOES_NOT = '{"pin": 4}', '{\n  "pin": 3\n}'
WHY = "Line 2, column 10: pin must be one of 1, 2, 4; is 3."

MAC = "aa-bb-cc-dd-ee-01"


def make_type(name: str = "gate", schema: str = SCHEMA, **fields: str) -> DeviceType:
    return DeviceType.objects.create(name=name, schema=schema, **fields)


def make_config(device_type: DeviceType | None, content: str = FITS, mac_address: str = MAC) -> DeviceConfig:
    config = DeviceConfig(mac_address=mac_address, content=content, type=device_type)
    config.although_it_does_not_fit = True
    config.save()
    return DeviceConfig.objects.get(pk=config.pk)


def form_of(device_type: DeviceType, **changes: str) -> dict[str, Any]:
    texts = {name: getattr(device_type, name) for name in ["name", "description", "schema", "starting_content"]}
    return {**texts, "based_on": device_type.fingerprint, **changes}


def url_of(row: Any) -> str:
    return f"/admin/devices/{row._meta.model_name}/{row.pk}/change/"
