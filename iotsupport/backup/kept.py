"""Bytes that a model keeps beside its rows, such as those of each version of an asset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from iotsupport.mirror.rows import mirrored_models


class KeptBytes(Protocol):
    """Where they are: each has its SHA-256 in hexadecimal for a name."""

    named_by: Mapping[str, str]
    """The columns that name them, by the label of their table."""

    def hold(self) -> AbstractContextManager[None]:
        """Let nobody remove any on this node while the block runs."""

    def read(self, sha256: str) -> Iterator[bytes]:
        """Yield the bytes. Raises ``MirrorError`` where there are none, or they cannot be read."""

    def keep(self, sha256: str, chunks: Iterable[bytes]) -> None:
        """Keep such bytes for good, in place of any of that name that are others. Raises ``MirrorError``."""

    def share(self, sha256: str) -> None:
        """Let other nodes have them, too: called in the transaction that brings the rows which name them."""


def kept_bytes() -> KeptBytes:
    """All that the models keep: one of them says where."""
    found: KeptBytes = next(kept for model in mirrored_models() if (kept := model.kept_bytes()) is not None)
    return found
