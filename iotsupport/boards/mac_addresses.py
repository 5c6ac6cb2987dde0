"""MAC addresses, in the one spelling that they have inside the system."""

from __future__ import annotations

import re

MAC_ADDRESS = re.compile(r"[0-9a-f]{2}([-:]?)[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}", re.ASCII | re.IGNORECASE)


def spell(digits: str) -> str:
    """Return ``aa-bb-cc-dd-ee-ff`` for its twelve digits, whatever stands between them."""
    digits = re.sub("[-:]", "", digits).lower()
    return "-".join(digits[i : i + 2] for i in range(0, 12, 2))


def find_mac_address(text: str) -> str | None:
    """Return a MAC address in our spelling, given in any usual one; None for anything else."""
    return spell(text) if MAC_ADDRESS.fullmatch(text) else None
