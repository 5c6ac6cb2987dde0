"""How lines end: a browser sends CRLF whatever was there, and what is stored is kept byte for byte."""

from __future__ import annotations


def has_crlf(text: str) -> bool:
    """Whether all lines end with CRLF."""
    return "\r\n" in text and "\n" not in text.replace("\r\n", "")


def with_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def as_stored(typed: str, stored: str) -> str:
    """Return what a browser sent with the line ends of the text that it was given."""
    typed = typed.replace("\r\n", "\n")
    if typed == with_lf(stored):
        return stored
    return typed.replace("\n", "\r\n") if has_crlf(stored) else typed
