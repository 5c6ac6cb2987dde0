"""A zip of many files, sent while it is made: neither memory nor the disk has to hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from django.http import StreamingHttpResponse
from django.utils import timezone

# So much is sent at a time, at least.
CHUNK_BYTES = 64 * 1024

# Of a zip, no file can be older; and what no row dates, such as a list of types, is as old.
OLDEST = datetime(1980, 1, 1, tzinfo=UTC)
REGULAR_FILE = 0o100644 << 16

# What OpenAPI says of the answer.
ZIP_ANSWER = {
    "responses": {
        200: {
            "description": "A zip of all files.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        }
    }
}


@dataclass(frozen=True, slots=True)
class ZippedFile:
    """One file of a zip."""

    name: str
    size: int
    read: Callable[[], Iterable[bytes]]
    changed_at: datetime = OLDEST


def answer_zip(name: str, files: Iterable[ZippedFile], *, is_packed: bool) -> StreamingHttpResponse:
    """Send a zip, called by ``name`` and today's date. What is packed already, such as firmware, need not be again."""
    filename = f"{name}-{timezone.localdate().isoformat()}.zip"
    headers = {"Content-Disposition": f'attachment; filename="{filename}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(
        stream_zip(files, is_packed=is_packed), content_type="application/zip", headers=headers
    )


def stream_zip(files: Iterable[ZippedFile], *, is_packed: bool) -> Iterator[bytes]:
    """Yield the bytes of a zip. The same files make the same bytes."""
    pipe = _Pipe()
    with ZipFile(cast(IO[bytes], pipe), "w", ZIP_DEFLATED if is_packed else ZIP_STORED) as archive:
        for file in files:
            with archive.open(_info(file, archive.compression), "w") as target:
                for chunk in file.read():
                    target.write(chunk)
                    if pipe.size >= CHUNK_BYTES:
                        yield pipe.take()
    yield pipe.take()


def _info(file: ZippedFile, compression: int) -> ZipInfo:
    moment = max(file.changed_at.astimezone(UTC), OLDEST)
    info = ZipInfo(file.name, moment.timetuple()[:6])
    info.compress_type, info.file_size, info.external_attr = compression, file.size, REGULAR_FILE
    return info


class _Pipe:
    """What :class:`ZipFile` writes to, and cannot seek in; and what takes away what was written."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.size = 0

    def write(self, chunk: bytes) -> int:
        self._chunks.append(bytes(chunk))
        self.size += len(chunk)
        return len(chunk)

    def flush(self) -> None:
        """There is nothing behind it."""

    def take(self) -> bytes:
        taken = b"".join(self._chunks)
        self._chunks, self.size = [], 0
        return taken
