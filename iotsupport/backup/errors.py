"""What is refused of a backup, or cannot be done about one."""

from __future__ import annotations


class BackupError(Exception):
    """Nothing was changed. The message is a sentence for a person."""


class DamagedError(BackupError):
    """It is no backup, or not all of it, or was changed since it was made."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} Nothing is taken of it: use another backup.")
