"""What an archive is: names, the manifest, and the end by which every byte of it is known."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from iotsupport.backup.errors import BackupError, DamagedError
from iotsupport.backup.tables import Migrations

# Raised where an earlier version could not read what this one writes.
FORMAT = 1

MANIFEST, SECRET_KEY = "manifest.json", "secret_key"
ROWS, BLOBS = "rows/", "blobs/"
ROWS_NAME = re.compile(r"rows/([a-z0-9_]+\.[a-z0-9_]+)\.jsonl", re.ASCII)
BLOB_NAME = re.compile(r"blobs/([0-9a-f]{64})", re.ASCII)

# The zip's comment: after it, the SHA-256 in hexadecimal of all that comes before the comment.
COMMENT = b"IoT Support backup, SHA-256 "
COMMENT_BYTES = len(COMMENT) + 64

MOST_MANIFEST_BYTES = 64 * 1024 * 1024
MOST_SECRET_BYTES = 64 * 1024

# Of whoever wants to see how far it is: called with how many steps a part has; returns what to call with how many of
# them are done.
Show = Callable[[int], None]
Watch = Callable[[int], Show]

UNREADABLE = "The manifest of the backup cannot be read."


def rows_name(label: str) -> str:
    return f"{ROWS}{label}.jsonl"


@dataclass
class Member:
    """One file of the archive; ``sha256`` in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass
class Rows:
    """What there is of one table."""

    label: str
    columns: list[str]
    count: int
    last_key: int
    """The last key that the database gave: to a row that may be deleted since."""


@dataclass
class Manifest:
    """What an archive says of itself, and of each of its members."""

    made_at: datetime
    version: str
    """Of IoT Support."""
    database: str
    """``sqlite`` or ``postgresql``."""
    migrations: Migrations
    tables: list[Rows] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """The SHA-256 of bytes that were missing or damaged when the backup was made."""

    def encode(self) -> bytes:
        said = {"format": FORMAT, **asdict(self), "made_at": self.made_at.astimezone(UTC).isoformat()}
        return json.dumps(said, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, text: bytes) -> Manifest:
        """Raises :class:`BackupError`, also for what a newer version made."""
        try:
            said = json.loads(text)
            found = said.pop("format")
            version = _text(said["version"])
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(UNREADABLE) from error
        if found != FORMAT:
            raise newer(version)
        try:
            return cls(
                made_at=datetime.fromisoformat(_text(said.pop("made_at"))).astimezone(UTC),
                version=_text(said.pop("version")),
                database=_text(said.pop("database")),
                migrations={_text(app): _texts(names) for app, names in said.pop("migrations").items()},
                tables=[_rows(**each) for each in said.pop("tables")],
                members=[_member(**each) for each in said.pop("members")],
                lost=_texts(said.pop("lost")),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(UNREADABLE) from error


def newer(version: str) -> BackupError:
    return BackupError(
        f"The backup was made by IoT Support {version[:40]!a}, which is newer than this version or another one."
        " Install that version, then try again."
    )


def _rows(label: str, columns: list[str], count: int, last_key: int) -> Rows:
    return Rows(_text(label), _texts(columns), _count(count), _count(last_key))


def _member(name: str, size: int, sha256: str) -> Member:
    return Member(_text(name), _count(size), _text(sha256))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list):
        raise TypeError(values)
    return [_text(value) for value in values]


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(value)
    return value
