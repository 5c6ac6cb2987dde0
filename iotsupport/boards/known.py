"""Which boards are known without the database: those that have a configuration, as its mirror says."""

from __future__ import annotations

import os

from iotsupport.serving.downloads import registered


def has_configuration(mac_address: str) -> bool:
    """Whether a board has one: a look at the directory, some microseconds."""
    return any(
        kind.folders[0] == "configs" and os.path.exists(f"{kind.storage().location}/{mac_address}{kind.ending}")
        for kind in registered
    )
