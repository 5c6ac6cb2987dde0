"""MAC addresses, in one spelling inside the system."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

MAC_ADDRESS = re.compile(r"[0-9a-f]{2}([-:]?)[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}", re.ASCII | re.IGNORECASE)


def normalise_mac_address(text: str) -> str:
    """Return ``aa-bb-cc-dd-ee-ff`` for any usual spelling: any case, with ``-``, ``:`` or nothing between.

    Raises ``ValidationError`` for anything else.
    """
    if not MAC_ADDRESS.fullmatch(text):
        raise ValidationError(
            "This is not a MAC address: write six pairs of hexadecimal digits, such as aa-bb-cc-dd-ee-ff.",
            code="INVALID_MAC_ADDRESS",
        )
    digits = re.sub("[-:]", "", text).lower()
    return "-".join(digits[i : i + 2] for i in range(0, 12, 2))


class MACAddressField(models.CharField):
    """A MAC address that is normalised wherever it comes in: forms, lookups and saves alike."""

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

    def get_prep_value(self, value: Any) -> Any:
        value = super(models.CharField, self).get_prep_value(value)
        # A search for something that is no MAC address finds nothing; it is no error.
        return normalise_mac_address(value) if isinstance(value, str) and MAC_ADDRESS.fullmatch(value) else value

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = normalise_mac_address(str(super().pre_save(model_instance, add)))
        setattr(model_instance, self.attname, value)
        return value
