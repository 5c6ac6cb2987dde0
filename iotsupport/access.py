"""Who may read and write a file, in words: where a file cannot be used, it is most often another user's."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def this_user() -> str:
    """The name of the user that this process runs as, or its number."""
    return _name_of(os.geteuid())


def problem(path: Path) -> str | None:
    """Return why this process cannot use a file or directory, as in "'/a/b' cannot be …", or None.

    What is missing is no problem: it is made when it is needed.
    """
    try:
        owner = path.stat().st_uid
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"'{path}' cannot be reached by the user {this_user()}: {error.strerror}."
    needed = os.X_OK if path.is_dir() else os.R_OK
    whose = f": it belongs to {_name_of(owner)}" if owner != os.geteuid() else ""
    if not os.access(path, needed):
        return f"'{path}' cannot be read by the user {this_user()}{whose}."
    if not os.access(path, os.W_OK):
        return f"'{path}' cannot be written by the user {this_user()}{whose}."
    return None


def describe(error: OSError) -> str:
    """What the system says, as in "cannot be read …: Permission denied", with the user where that is the reason."""
    user = f" by the user {this_user()}" if isinstance(error, PermissionError) else ""
    return f"{user}: {error.strerror}."


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"
