"""Which version of which asset a board says that it runs: found by the digests that it tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from assets.models import Asset
from iotsupport.boards.firmware import FoundVersion
from iotsupport.editing.meanwhile import Change, changes_after

# So many digests are asked for in one query.
TOGETHER = 200


def find_versions(md5s: Iterable[str], image_sha256s: Iterable[str]) -> dict[str, FoundVersion]:
    """Return versions of the present and the past by either digest, as :data:`iotsupport.boards.firmware.Finder` says.

    Of several with the same bytes, the newest. What is deleted is found as well: boards may run it.
    """
    found: dict[str, FoundVersion] = {}
    for name, digests in [("md5", md5s), ("image_sha256", image_sha256s)]:
        # An image without a digest at its end has an empty one.
        wanted = sorted({digest for digest in digests if digest})
        for start in range(0, len(wanted), TOGETHER):
            found |= _find(name, wanted[start : start + TOGETHER])
    return found


def changes_meanwhile(asset: Asset, sha256: str) -> list[Change]:
    """Return what others did to an asset since its version of that digest, newest first."""
    versions = Asset.history.filter(filename=asset.filename)
    version = versions.filter(sha256=sha256).exclude(history_type="-").order_by("-history_id").first()
    return changes_after(versions, version)


def _find(name: str, digests: list[str]) -> dict[str, FoundVersion]:
    """The last to be saved wins. A deletion is no version of its own."""
    rows: Any = Asset.history.filter(**{f"{name}__in": digests}).exclude(history_type="-").order_by("history_id")
    told = rows.values_list(name, "filename", "sha256", "uploaded_at", "version")
    return {digest: FoundVersion(*version) for digest, *version in told}
