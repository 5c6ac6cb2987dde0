"""Requests so plain that a pattern reads them instead of a parser, as those of usual downloads; and their answers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gunicorn import SERVER, util

# Status line, headers, body.
QuickAnswer = tuple[str, Iterable[tuple[str, str]], bytes]

# A request that needs no parser: short, without a body, and with no field but these, each once.
QUICK_REQUEST = re.compile(rb"(GET|HEAD) ([/\w.-]+) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[ -~]*\r\n){,20})\r\n", re.ASCII)
QUICK_FIELDS = {
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "connection",
    "content-length",  # ESP-IDF says 0
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "pragma",
    "range",
    "user-agent",
    "x-esp32-chip-size",
    "x-esp32-sdk-version",
    "x-esp32-sketch-md5",
    "x-esp32-sketch-sha256",
    "x-esp32-version",
    "x-esp8266-chip-size",
    "x-esp8266-sdk-version",
    "x-esp8266-sketch-md5",
    "x-esp8266-version",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
    "x-sendfile-type",
}
QUICK_HOST = re.compile(r"[\w.:\[\]-]+", re.ASCII)
QUICK_MAX_BYTES = 4096


def parse_quick_request(head: bytes, remote: str) -> dict[str, str] | None:
    """Return what WSGI calls the parts of a request that needs no parser; None for any other.

    ``remote`` is the address of who is connected.
    """
    match = QUICK_REQUEST.fullmatch(head) if len(head) <= QUICK_MAX_BYTES else None
    if match is None:
        return None
    method, path, fields = match[1].decode(), match[2].decode(), match[3].decode()
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "REMOTE_ADDR": remote}
    for line in fields.split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name = name.lower()
        key = f"HTTP_{name.upper().replace('-', '_')}"
        if name not in QUICK_FIELDS or key in environ:
            return None
        environ[key] = value.strip(" ")
    is_usual = (
        environ.pop("HTTP_CONTENT_LENGTH", "0") == "0"
        and environ.get("HTTP_CONNECTION", "keep-alive").lower() in {"close", "keep-alive"}
        and QUICK_HOST.fullmatch(environ.get("HTTP_HOST", ""))
    )
    return environ if is_usual else None


def format_head(answer: QuickAnswer, *, is_kept_alive: bool) -> bytes:
    status_line, headers, _ = answer
    fields = [
        f"HTTP/1.1 {status_line}",
        f"Server: {SERVER}",
        f"Date: {util.http_date()}",
        f"Connection: {'keep-alive' if is_kept_alive else 'close'}",
    ]
    fields += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*fields, "", ""]).encode("latin-1")
