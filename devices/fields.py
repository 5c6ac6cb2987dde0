"""MAC addresses, in one spelling inside the system."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from iotsupport.boards.mac_addresses import find_mac_address, spell
from iotsupport.boards.models import Board
from iotsupport.characters import name_of_character

# EUI-64, as boards with IEEE 802.15.4 print it; made from a MAC address by putting ff:fe into its middle.
EIGHT_BYTES = re.compile(r"[0-9a-f]{2}([-:]?)[0-9a-f]{2}(?:\1[0-9a-f]{2}){6}", re.ASCII | re.IGNORECASE)

MAC_ADDRESS_PART = re.compile("[0-9a-f:-]{2,17}", re.ASCII | re.IGNORECASE)


def normalise_mac_address(text: str) -> str:
    """Return ``aa-bb-cc-dd-ee-ff`` for any usual spelling: any case, with ``-``, ``:`` or nothing between.

    Raises ``ValidationError`` for anything else.
    """
    mac_address = find_mac_address(text)
    if mac_address is None:
        raise ValidationError(_what_is_wrong(text), code="INVALID_MAC_ADDRESS")
    return mac_address


def base_mac_address(text: str) -> str | None:
    """Return the MAC address that an address of eight bytes was made from; None where that is not what it is."""
    digits = re.sub("[-:]", "", text).lower()
    if not EIGHT_BYTES.fullmatch(text) or digits[6:10] != "fffe":
        return None
    return spell(digits[:6] + digits[10:])


def part_as_stored(term: str) -> str | None:
    """Return what somebody searches for as the database has it: a MAC address, or a part of one, in any spelling."""
    term = term.strip()
    if not MAC_ADDRESS_PART.fullmatch(term):
        return base_mac_address(term)
    if re.search("[-:]", term):
        return term.replace(":", "-").lower()
    # As labels on boards and serial logs write it.
    return "-".join(term[i : i + 2] for i in range(0, len(term), 2)).lower()


def _what_is_wrong(text: str) -> str:
    if base := base_mac_address(text):
        return (
            "This address has eight bytes, as ESP32-C6 and H2 print it. Write the base MAC address instead,"
            f" the six bytes without ff:fe: {base}."
        )
    if EIGHT_BYTES.fullmatch(text):
        return "This address has eight bytes; a MAC address has six. Write the base MAC address of the board."
    # Pasted with the rest, and not to be seen: the address looks right.
    if strange := re.search("[^ -~]", text):
        return (
            f"This is not a MAC address: {name_of_character(strange[0])} stands in it."
            " Type it anew, as aa-bb-cc-dd-ee-ff."
        )
    return (
        "This is not a MAC address: write six pairs of hexadecimal digits and nothing else, such as aa-bb-cc-dd-ee-ff."
    )


class BoardField(models.ForeignObject):  # type: ignore[type-arg]
    """The row of the board that has the MAC address: to be joined, filtered and sorted by.

    It has no column and no constraint: a board may be there without a configuration. So neither migrations nor
    versions know of it.
    """

    def __init__(self) -> None:
        super().__init__(
            Board,
            models.DO_NOTHING,
            from_fields=["mac_address"],
            to_fields=["mac_address"],
            related_name="+",
            null=True,
            editable=False,
        )

    def contribute_to_class(
        self, cls: type[models.Model], name: str, private_only: bool = False, **kwargs: Any
    ) -> None:
        super().contribute_to_class(cls, name, private_only=True, **kwargs)


class MACAddressField(models.CharField):  # type: ignore[type-arg]
    """A MAC address in its one spelling, whatever a form or a fixture has. Whoever else asks or saves, spells it so."""

    # CharField's would go through to_python(), once more for every query and save.
    get_prep_value = models.Field.get_prep_value

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = 17
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        del kwargs["max_length"]
        return name, path, args, kwargs

    def to_python(self, value: Any) -> Any:
        value = super().to_python(value)
        return normalise_mac_address(value) if value else value
