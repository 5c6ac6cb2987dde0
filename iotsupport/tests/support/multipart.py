"""Uploads as they look on the wire, and while they arrive."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from django.test import Client

BOUNDARY = "----a-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(
    content: bytes, filename: str | bytes | None = "firmware.bin", field: str = "file", headers: str = ""
) -> bytes:
    """One part of a body, as curl writes it. ``headers`` end with a line break each."""
    name = f'form-data; name="{field}"'.encode()
    if filename is not None:
        raw = filename if isinstance(filename, bytes) else filename.encode(errors="surrogatepass")
        name += b'; filename="' + raw.replace(b'"', b"%22") + b'"'
    head = b"--%s\r\nContent-Disposition: %s\r\n%s\r\n" % (BOUNDARY.encode(), name, headers.encode())
    return head + content + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def post(client: Client, *parts: bytes, path: str = "/assets", content_type: str = CONTENT_TYPE) -> Any:
    return client.generic("POST", path, body(*parts), content_type=content_type)


def upload(client: Client, content: bytes, filename: str | bytes = "firmware.bin", path: str = "/assets") -> Any:
    return post(client, part(content, filename), path=path)


class Arriving(io.RawIOBase):
    """A body that is made while it is read: ``size`` null bytes in one file.

    ``watch`` is told, before each read, how many bytes were taken; it may raise what a broken connection raises.
    """

    def __init__(self, size: int, watch: Callable[[int], None] = lambda taken: None) -> None:
        self._head, self._tail = part(b"")[:-2], b"\r\n" + body()
        self._size = size
        self._taken = 0
        self._watch = watch

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def read(self, size: int = -1) -> bytes:
        self._watch(self._taken)
        size = len(self) if size < 0 else size
        chunk = self._at(self._taken, min(size, 65536))
        self._taken += len(chunk)
        return chunk

    def _at(self, position: int, size: int) -> bytes:
        if position < len(self._head):
            return self._head[position : position + size]
        position -= len(self._head)
        if position < self._size:
            return bytes(min(size, self._size - position))
        return self._tail[position - self._size :][:size]

    def send(self, client: Client, path: str = "/assets") -> Any:
        return client.request(
            **{
                "REQUEST_METHOD": "POST",
                "PATH_INFO": path,
                "CONTENT_TYPE": CONTENT_TYPE,
                "CONTENT_LENGTH": str(len(self)),
                "wsgi.input": self,
            }
        )
