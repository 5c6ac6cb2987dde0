"""Assets go out as files, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from assets.blobs import open_blob
from assets.models import Asset
from iotsupport.mirror.files import CHUNK_BYTES
from iotsupport.transfer.zipping import ZippedFile, answer_zip


def answer_assets(assets: QuerySet[Asset]) -> StreamingHttpResponse:
    """Send these as a zip, by name. Raises ``MirrorError`` where the bytes of one are lost."""
    files = list(files_of(assets))
    for sha256 in assets.values_list("sha256", flat=True):
        with open_blob(sha256):  # before the answer begins: afterwards, there is no other than an end of it
            pass
    return answer_zip("assets", files, is_packed=False)


def files_of(assets: QuerySet[Asset]) -> Iterator[ZippedFile]:
    rows = assets.order_by("filename").values_list("filename", "size", "sha256", "uploaded_at").distinct()
    for filename, size, sha256, uploaded_at in rows:
        yield ZippedFile(filename, size, _reader(sha256), uploaded_at)


def _reader(sha256: str) -> Callable[[], Iterable[bytes]]:
    def read() -> Iterator[bytes]:
        with open_blob(sha256) as file:
            yield from iter(partial(file.read, CHUNK_BYTES), b"")

    return read
