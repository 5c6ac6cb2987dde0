"""Device types as files beside configurations: each has its own, and one list says which device has which."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError

from devices.models import DeviceType
from devices.parsing import decode_config, parse_members
from iotsupport.management.importing import Taken

# Which device has which type: {"aa-bb-cc-dd-ee-ff": "Kitchen"}.
LIST = "types.json"
DIRECTORY = "types"

# Of a file's name; the name of a type may be longer.
NAME_MAX_BYTES = 200


def file_of(device_type: DeviceType) -> str:
    name = device_type.name
    if len(name.encode()) > NAME_MAX_BYTES:
        name = hashlib.sha256(name.encode()).hexdigest()
    return f"{DIRECTORY}/{name}.json"


def write_type(device_type: DeviceType) -> bytes:
    """The schema stands there as it was typed."""
    texts = {"name": device_type.name, "description": device_type.description}
    lines = [f"  {json.dumps(name)}: {json.dumps(text, ensure_ascii=False)}" for name, text in texts.items()]
    lines.append(f'  "schema": {device_type.schema.strip()}')
    lines.append(f'  "starting_content": {json.dumps(device_type.starting_content, ensure_ascii=False)}')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def write_list(names: Mapping[str, str]) -> bytes:
    """One device a line, for those who compare."""
    return (json.dumps(dict(sorted(names.items())), ensure_ascii=False, indent=1) + "\n").encode()


def read_list(data: bytes) -> dict[str, str]:
    """Raises ``ValidationError``."""
    members = parse_members(decode_config(data))
    names = {mac_address: member.value for mac_address, member in members.items()}
    if not all(isinstance(name, str) for name in names.values()):
        raise ValidationError(f"{LIST} says of each device the name of its type, as text.")
    return names


def read_type(data: bytes) -> DeviceType:
    """A type that is not saved yet. Raises ``ValidationError``."""
    members = parse_members(decode_config(data))
    values: dict[str, Any] = {name: member.value for name, member in members.items()}
    texts = [values.get("name"), values.get("description", ""), values.get("starting_content", "")]
    if not isinstance(values.get("schema"), dict) or not all(isinstance(text, str) for text in texts):
        message = 'A type is {"name": "…", "description": "…", "schema": {…}, "starting_content": "…"}.'
        raise ValidationError(message)
    name, description, starting_content = map(str, texts)
    found = DeviceType(
        name=name, description=description, schema=members["schema"].source, starting_content=starting_content
    )
    found.read_name()
    return found


def compare_type(incoming: DeviceType, here: DeviceType | None) -> Taken:
    """Say what becomes of a type that comes in. Raises ``ValidationError`` where it cannot be one."""
    if here is None:
        incoming.check_texts()
        return Taken("taken")
    if (here.schema.strip(), here.starting_content) == (incoming.schema.strip(), incoming.starting_content):
        return Taken("unchanged")
    message = f"The type “{here.name}” is another here, and stays as it is: a new schema is tried on its page first."
    return Taken("refused", message)
