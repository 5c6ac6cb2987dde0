"""What one download told of a board."""

from __future__ import annotations

from typing import Literal, NamedTuple

Way = Literal["worker", "view", "nginx"]
Kind = Literal["configs", "assets"]

WAYS: tuple[Way, ...] = ("worker", "view", "nginx")


class CheckIn(NamedTuple):
    """One download, as whoever answered it knows it. Text that is not known is empty.

    Header values are those that came, cut to a few hundred characters, and not cleaned yet: the collector's thread does
    that. Nothing but the first seven has to be given.
    """

    way: Way
    kind: Kind
    filename: str
    """As the mirror has it: ``aa-bb-cc-dd-ee-ff.json``, ``firmware.bin``."""
    method: str
    status: int
    etag: str
    """The answer's, as it was sent, with its quotation marks."""
    at: float
    """When it was answered: seconds since 1970 (``time.time``)."""
    mac_address: str = ""
    """Of an asset's download: as the header says it, in any spelling. Of a configuration's, its name says it."""
    reaches_end: bool = True
    """Of a 206: whether the file's last byte was in it."""
    remote: str = ""
    """The address that was connected; and what it sent as ``X-Forwarded-For``, for ``serving.clients.address_of``."""
    forwarded: str = ""
    if_none_match: str = ""
    user_agent: str = ""
    version: str = ""
    sketch_md5: str = ""
    sketch_sha256: str = ""
    sdk_version: str = ""
    chip_size: str = ""
