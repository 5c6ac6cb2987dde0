"""What nginx tells of a download that it answered by itself: one line of a log of its own, in JSON, in a datagram.

``deploy/nginx.conf`` has the line (``log_format checkin``); :func:`read` makes a check-in of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import cast

from iotsupport.boards.checkins import CheckIn, Kind, decode, reaches_end
from iotsupport.serving import downloads
from iotsupport.serving.downloads import Downloads
from iotsupport.serving.responses import Content, digests_of

# A board's is below a thousand bytes. nginx takes heads of up to 32 KB of anybody.
MOST_BYTES = 8192

# The file's date, in seconds since 1970, and its size, both in hexadecimal: nginx's ETag of a file.
NGINX_ETAG = re.compile('"[0-9a-f]{1,16}-[0-9a-f]{1,16}"')
# What the collector takes as it comes, by the name that the line has for it.
AS_SENT = ["user_agent", "version", "sketch_md5", "sketch_sha256", "sdk_version", "chip_size"]

METHODS = {"GET", "HEAD"}
STATUSES = {"200", "206", "304"}


def read(datagram: bytes, at: float) -> CheckIn:
    """Return what a datagram tells, that came at this time (``time.time``).

    Raises ``ValueError`` for any that nginx does not send: whoever may write to the socket may send anything.
    """
    told = _parse(datagram)
    method, status = told["method"], told["status"]
    found = _find(told["uri"])
    if method not in METHODS or status not in STATUSES or found is None:
        raise ValueError("No download of ours.")
    kind, filename = found
    is_whole = told["completed"] == "OK"
    etag = _content_etag(kind, filename, told["etag"])
    is_same = told["if_none_match"] == told["etag"]
    return CheckIn(
        way="nginx",
        kind=cast(Kind, kind.folders[0]),
        filename=filename,
        method=method,
        # Cut short, it tells that the board was there, and not what it holds.
        status=206 if status == "200" and not is_whole else int(status),
        etag=etag,
        at=at,
        # A configuration is asked for with the address of the station interface, if there is one.
        mac_address=told["sta_mac"] or told["base_mac"],
        reaches_end=is_whole and (status != "206" or reaches_end(told["content_range"])),
        remote=told["address"],
        if_none_match=etag if is_same else _content_etag(kind, filename, told["if_none_match"]),
        **{name: told[name] for name in AS_SENT},
    )


class _Told(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return ""


def _parse(datagram: bytes) -> Mapping[str, str]:
    """Return the values. What is no text is not there."""
    if len(datagram) > MOST_BYTES:
        raise ValueError("It is too long.")
    try:
        # Behind syslog's own beginning (RFC 3164). nginx escapes no byte beyond ASCII, whatever it is.
        told = json.loads(datagram[datagram.index(b"{") :].decode("latin-1"))
    except RecursionError as error:
        raise ValueError("It is nested too deeply.") from error
    if not isinstance(told, dict):
        raise ValueError("It is no object.")
    return _Told((name, decode(value)) for name, value in told.items() if isinstance(value, str))


def _find(uri: str) -> tuple[Downloads, str] | None:
    """Return the kind of file, and the name in its mirror, of an address that nginx has decoded."""
    path = uri.removeprefix("/api")
    for kind in downloads.registered:
        for folder in kind.folders:
            filename = path.removeprefix(f"/{folder}/")
            if filename == path or "/" in filename or not filename.endswith(kind.ending):
                continue
            if not kind.is_small or kind.usual_path.fullmatch(path):
                return kind, filename
    return None


def _content_etag(kind: Downloads, filename: str, etag: str) -> str:
    """Return the ETag that the application has for the same content; empty where that is not known.

    nginx's own is of the file's date and size. The mirror gives no two versions the same, so the file that has it still
    is the one that was sent; one that was replaced since is unknown: the board is behind, whatever it holds.
    """
    if not kind.is_small:
        return ""  # whoever asks for an asset says by other headers what it runs
    etag = etag.strip().removeprefix("W/")
    if not NGINX_ETAG.fullmatch(etag):
        return etag
    try:
        with open(kind.storage().path(filename), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if etag != f'"{int(status.st_mtime):x}-{status.st_size:x}"':
                return ""
            times = status.st_mtime_ns, status.st_ctime_ns
            return digests_of(Content(status.st_dev, status.st_ino, *times, status.st_size, file.fileno())).etag
    except OSError:
        return ""
