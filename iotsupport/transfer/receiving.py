"""A large body that is looked at as a whole: in a file without a name, which goes with the request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from django.http import HttpRequest

from iotsupport.api import require_length, require_no_coding
from iotsupport.errors import ApiError
from iotsupport.mirror.files import CHUNK_BYTES
from iotsupport.transfer.unnamed import open_unnamed, write
from iotsupport.transfer.unzipping import MOST_BYTES

ZIP_TYPES = {"", "application/zip", "application/x-zip-compressed", "application/octet-stream"}


@contextmanager
def received_zip(request: HttpRequest) -> Iterator[IO[bytes]]:
    """The body of a request, while the block runs. Raises 400, 413 and 415, and ``MirrorError`` for a full disk."""
    if (request.content_type or "").lower() not in ZIP_TYPES:
        message = "Send the zip as it is: curl --data-binary @configs.zip -H 'Content-Type: application/zip' …"
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", message)
    require_no_coding(request)
    require_length(request)
    announced = int(request.META.get("CONTENT_LENGTH") or 0)
    if announced > MOST_BYTES:
        raise ApiError(413, "TOO_LARGE", f"The zip has {announced} bytes; {MOST_BYTES} are allowed. Send several.")
    with open_unnamed() as file:
        while chunk := request.read(CHUNK_BYTES):
            write(file, chunk)
        if (size := file.tell()) != announced:
            raise ApiError(400, "INCOMPLETE", f"Only {size} of {announced} bytes arrived. Send it again.")
        yield file
